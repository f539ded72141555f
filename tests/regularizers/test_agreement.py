"""R-Drop's divergence is that of what the loss makes of the logits; what it cannot know it asks for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack import RAT, SMART, VAT, Output, RDrop
from dropattack.regularizers import agreement as agreement_module
from dropattack.regularizers import functional

T = torch.tensor([[0, 2, -100, -100], [1, 1, 2, 0], [2, -100, 0, 1]])
Y, LABELS = torch.tensor([0, 2, 1]), torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]]).double()


def softmax(a: Tensor, b: Tensor) -> Tensor:
    """(KL + KL) / 2 of each position, by the definition."""
    p, q = a.softmax(-1), b.softmax(-1)
    return 0.5 * ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1))


def bernoulli(a: Tensor, b: Tensor) -> Tensor:
    both = [torch.stack([x.sigmoid(), (-x).sigmoid()], -1).log() for x in (a, b)]
    return softmax(*both).sum(-1)


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    return 0.5 * (a - b).square().sum(-1)


def focal(z: Tensor) -> Tensor:
    nll = F.cross_entropy(z, Y, reduction="none")
    return ((1 - (-nll).exp()) ** 2 * nll).mean()


COUNTS = T >= 0


def smoothed(z: Tensor) -> Tensor:
    """As in the Hugging Face Trainer: without `ignore_index`, and in place."""
    each = -z.log_softmax(-1)
    labelled = each.gather(-1, T.clamp(min=0).unsqueeze(-1)).masked_fill_(~COUNTS.unsqueeze(-1), 0.0)
    all_ = each.sum(-1, keepdim=True).masked_fill_(~COUNTS.unsqueeze(-1), 0.0)
    return (0.9 * labelled.sum() + 0.1 * all_.sum() / 3) / COUNTS.sum()


def soft(z: Tensor) -> Tensor:
    """Return the loss of each position, padding or not. The labels are probabilities."""
    return F.cross_entropy(z.transpose(1, 2), F.one_hot(T.clamp(min=0), 3).double().transpose(1, 2), reduction="none")


CASES = {
    "classes": ((3,), lambda z: F.cross_entropy(z, Y), softmax, None),
    "smoothed": ((3,), lambda z: F.cross_entropy(z, Y, label_smoothing=0.1), softmax, None),
    "log-softmax": ((3,), lambda z: F.nll_loss(z.log_softmax(-1), Y), softmax, None),
    "focal": ((3,), focal, softmax, None),
    "Brier": ((3,), lambda z: F.mse_loss(z.softmax(-1), LABELS), softmax, None),
    "labels": ((3,), lambda z: F.binary_cross_entropy_with_logits(z, LABELS), bernoulli, None),
    "labels by hand": ((3,), lambda z: -(F.logsigmoid(z) * LABELS).mean(), bernoulli, None),
    "probabilities": ((3,), lambda z: F.binary_cross_entropy(z.sigmoid(), LABELS), bernoulli, None),
    "yes or no": ((), lambda z: F.binary_cross_entropy_with_logits(z, LABELS[:, 0]), bernoulli, None),
    "regression": ((3,), lambda z: F.mse_loss(z, LABELS), gaussian, None),
    "one number": ((), lambda z: F.l1_loss(z, LABELS[:, 0]), gaussian, None),
    "huber": ((2,), lambda z: F.huber_loss(z, LABELS[:, :2]), gaussian, None),
    "flattened": ((4, 3), lambda z: F.cross_entropy(z.reshape(-1, 3), T.reshape(-1)), softmax, COUNTS),
    "transposed": ((4, 3), lambda z: F.cross_entropy(z.transpose(1, 2), T), softmax, COUNTS),
    "smoothed positions": ((4, 3), smoothed, softmax, COUNTS),
    "padding filled": ((4, 3), lambda z: soft(z).masked_fill(~COUNTS, 0.0).mean(), softmax, COUNTS),
    "padding filled, flat": (
        (4, 3),
        lambda z: soft(z).view(-1).masked_fill(~COUNTS.view(-1), 0.0).mean(),
        softmax,
        COUNTS,
    ),
    "classes second": ((3, 4), lambda z: F.cross_entropy(z, T), softmax, COUNTS),
    "classes second, square": ((3, 3), lambda z: F.cross_entropy(z, T[:, :3]), softmax, COUNTS[:, :3]),
    "transposed, square": ((3, 3), lambda z: F.cross_entropy(z.transpose(1, 2), T[:, :3]), softmax, COUNTS[:, :3]),
}


def agreement(shape: tuple[int, ...], loss, mask: Tensor | None = None, **options) -> tuple[Tensor, list[Tensor]]:
    """R-Drop's term with α = 1, and the logits of the two forwards."""
    torch.manual_seed(0)
    outputs = torch.Size(shape).numel()
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, outputs)).double()
    x, seen = torch.randn(3, 4).double(), []

    def forward():
        logits = model(x).view(3, *shape)
        seen.append(logits.detach())
        return Output(loss(logits), logits, mask)

    losses = RDrop(model, **options).backward(forward)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    return losses.total - (losses.clean + losses.adversarial[0]) / 2, seen


def by_hand(kind, seen: list[Tensor], counts: Tensor | None, class_dim: int = -1) -> Tensor:
    a, b = (z.movedim(class_dim, -1) if z.dim() > 1 else z.unsqueeze(-1) for z in seen)
    each = kind(a, b)
    return each.mean() if counts is None else each[counts].mean()


@pytest.mark.parametrize(("shape", "loss", "kind", "counts"), CASES.values(), ids=CASES.keys())
def test_the_loss_says_what_its_logits_are(request, shape, loss, kind, counts):
    found, seen = agreement(shape, loss)
    class_dim = 1 if "classes second" in request.node.name else -1
    torch.testing.assert_close(found, by_hand(kind, seen, counts, class_dim))


def test_an_auxiliary_loss_beside_the_logits_says_nothing():
    torch.manual_seed(0)
    model, seen = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 6)).double(), []

    def forward():
        out = model(torch.ones(3, 4).double())
        seen.append(out[:, :3].detach())
        logits = out[:, :3]
        return Output(F.cross_entropy(logits, Y) + F.mse_loss(out[:, 3:], LABELS), logits)

    losses = RDrop(model).backward(forward)
    found = losses.total - (losses.clean + losses.adversarial[0]) / 2
    torch.testing.assert_close(found, by_hand(softmax, seen, None))


@pytest.mark.parametrize("copied", ["cast", "sink"])
def test_outputs_that_were_copied_on_their_way_out(copied):
    """As mixed precision (a cast of loss and logits) and DDP (a function through which all outputs go) do."""

    class Sink(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *outputs):
            return tuple(x.clone() for x in outputs)

        @staticmethod
        def backward(ctx, *gradients):
            return gradients

    torch.manual_seed(0)
    model, seen = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3)), []

    def forward():
        logits = model(torch.ones(3, 4))
        loss = F.binary_cross_entropy_with_logits(logits, LABELS.float())
        loss, logits = (loss.double(), logits.double()) if copied == "cast" else Sink.apply(loss, logits)
        seen.append(logits.detach())
        return Output(loss, logits)

    losses = RDrop(model).backward(forward)
    found = losses.total - (losses.clean + losses.adversarial[0]) / 2
    torch.testing.assert_close(found, by_hand(bernoulli, seen, None))


@pytest.mark.parametrize("divergence", ["softmax", "bernoulli", "gaussian"])
def test_what_is_said_counts(divergence):
    found, seen = agreement((3,), lambda z: z.square().sum() + F.cross_entropy(z, Y), divergence=divergence)
    kind = {"softmax": softmax, "bernoulli": bernoulli, "gaussian": gaussian}[divergence]
    torch.testing.assert_close(found, by_hand(kind, seen, None))


KINDS = {"softmax": softmax, "bernoulli": bernoulli, "gaussian": gaussian}


def kl(kind: str, p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) of each position, by the definition."""
    if kind == "gaussian":
        return gaussian(p, q)
    if kind == "bernoulli":
        p, q = (torch.stack([x.sigmoid(), (-x).sigmoid()], -1).log() for x in (p, q))
    p, q = p.softmax(-1), q.softmax(-1)
    return (p * (p / q).log()).sum(-1) if kind == "softmax" else (p * (p / q).log()).sum((-1, -2))


@pytest.mark.parametrize("divergence", [None, *KINDS])
@pytest.mark.parametrize("method", [RAT, VAT, SMART])
def test_other_methods_compare_by_the_same_divergence(method, divergence):
    """Given, or else what the loss makes of the logits: here a softmax."""
    torch.manual_seed(0)
    model, x, seen = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3)).double(), torch.ones(3, 4), []

    def forward():
        logits = model(x.double())
        seen.append(logits.detach())
        loss = F.cross_entropy(logits, Y)
        return Output(loss if divergence is None else loss + logits.square().sum(), logits)

    options = {"alpha": 2.0, "divergence": divergence}
    losses = method(model, "0.weight" if method is RAT else "0", **options).backward(forward)
    kind = divergence or "softmax"
    assert len(seen) == 3
    if method is RAT:
        wanted = losses.clean + (losses.adversarial[0] + losses.adversarial[1]) / 2
        wanted += 2.0 * KINDS[kind](seen[1], seen[2]).mean()
    else:
        wanted = losses.clean + 2.0 * kl(kind, seen[0], seen[2]).mean()
        wanted += 2.0 * kl(kind, seen[2], seen[0]).mean() if method is SMART else 0.0
    torch.testing.assert_close(losses.total, wanted)
    with pytest.raises(ValueError, match="divergence must be one of None, 'softmax', 'bernoulli', 'gaussian'"):
        method(model, "0", divergence="kl")


@pytest.mark.parametrize("method", [RDrop, RAT, VAT, SMART])
def test_tasks_may_take_turns(method):
    """Each step reads its own loss, not the first one's: tags with ignored positions, labels, a mask, a regression."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    x, positions = torch.randn(3, 4).double(), torch.randn(3, 4, 4).double()

    def tags(mask: Tensor | None = None) -> Output:
        z = model(positions)
        return Output(F.cross_entropy(z.reshape(-1, 3), T.reshape(-1)), z, mask)

    tasks = [
        lambda: Output(F.cross_entropy(z := model(x), Y), z),
        tags,
        lambda: Output(F.binary_cross_entropy_with_logits(z := model(x), LABELS), z),
        lambda: tags(mask=COUNTS.roll(1, 0)),
        tags,
        lambda: Output(F.mse_loss(z := model(x), LABELS), z),
    ]
    targets = [] if method is RDrop else ["0.weight" if method is RAT else "0"]
    used = method(model, *targets, seed=0)
    for task in tasks:
        fresh = method(model, *targets, seed=0)
        fresh.load_state_dict(used.state_dict())
        totals = []
        for regularizer in (used, fresh):
            torch.manual_seed(1)
            totals.append(regularizer.backward(task).total)
        assert torch.equal(*totals)


def test_the_search_for_the_logits_stays_out_of_what_was_made_before_them(monkeypatch):
    """A penalty reaches the model beside the logits, and the model may be as long as its sequences."""
    weight = torch.ones(4, 4, requires_grad=True)
    hidden = torch.ones(3, 4)
    for _ in range(50):
        hidden = hidden @ weight
    logits = hidden * 2
    loss = F.cross_entropy(logits.square(), Y) + hidden.mean()
    seen = []

    class Looking(agreement_module._Behind):
        def __contains__(self, node):
            seen.append(node)
            return super().__contains__(node)

    monkeypatch.setattr(agreement_module, "_Behind", Looking)
    found = agreement_module.nodes_between(loss, logits)
    names = {type(node).__name__ for node in found}
    assert names == {"AddBackward0", "NllLossBackward0", "LogSoftmaxBackward0", "PowBackward0"}
    assert len(seen) < 10


def test_logits_that_are_a_leaf():
    logits = torch.ones(3, 3, requires_grad=True)
    loss = F.cross_entropy(logits, Y)
    assert len(agreement_module.nodes_between(loss, logits)) == 2
    copied = logits.clone()
    assert len(agreement_module.nodes_between(F.cross_entropy(copied, Y), copied)) == 2


def test_a_mask_counts():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    for loss in (
        lambda z: F.cross_entropy(z.reshape(-1, 3), T.reshape(-1)),
        lambda z: F.cross_entropy(z[:, :-1].reshape(-1, 3), T[:, 1:].reshape(-1)),
        lambda z: soft(z)[mask.bool()].mean(),
    ):
        found, seen = agreement((4, 3), loss, mask)
        torch.testing.assert_close(found, by_hand(softmax, seen, mask.bool()))


@pytest.mark.parametrize(
    ("shape", "loss", "mask", "message"),
    [
        (
            (3,), lambda z: F.cross_entropy(z, Y) + F.binary_cross_entropy_with_logits(z, LABELS), None,
            "both softmax and",
        ),
        ((3,), lambda z: (z * LABELS).mean(), None, "does not show it: say divergence='softmax'"),
        ((1,), lambda z: F.cross_entropy(z, 0 * Y), None, r"logits of shape \(3, 1\) leave no choice between classes"),
        (
            (4, 3), lambda z: F.cross_entropy(z[:, :-1].reshape(-1, 3), T[:, 1:].reshape(-1)), None,
            r"a label for each position .*Output\(loss, logits, mask\)",
        ),
        ((4, 3), lambda z: F.cross_entropy(z.reshape(-1, 3), T.reshape(-1)), COUNTS[:, :2], r"mask has shape \(3, 2\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_asked_for(shape, loss, mask, message):
    with pytest.raises(ValueError, match=message):
        agreement(shape, loss, mask)
    with pytest.raises(ValueError, match="divergence must be one of None, 'softmax', 'bernoulli', 'gaussian'"):
        RDrop(nn.Linear(2, 2), divergence="kl")


@pytest.mark.parametrize("divergence", [None, "softmax"])
def test_a_loss_that_does_not_show_its_positions_asks_for_a_mask(divergence):
    for loss in (lambda z: soft(z)[COUNTS].mean(), lambda z: (soft(z) * COUNTS).mean()):
        with pytest.raises(ValueError, match=r"a label for each position .*Output\(loss, logits, mask\)"):
            agreement((4, 3), loss, divergence=divergence)
    ruled_out = torch.tensor([False] * 11 + [True])  # as long as there are positions
    with pytest.raises(ValueError, match=r"a label for each position"):
        agreement((4, 12), lambda z: z.masked_fill(ruled_out, -9.0).log_softmax(-1)[..., :3].mean())


def test_classes_that_are_ruled_out_count_as_nothing():
    out = torch.tensor([False, True, False])
    _, seen = agreement((3,), lambda z: F.cross_entropy(z.masked_fill(out, -torch.inf), 0 * Y))
    logits, other = (z[:, ~out] for z in seen)
    p, q = (z.masked_fill(out, -torch.inf).requires_grad_() for z in seen)
    kl = functional.symmetric_kl(p, q)
    torch.testing.assert_close(kl, softmax(logits, other).mean())
    kl.backward()
    p2 = logits.clone().requires_grad_()
    softmax(p2, other).mean().backward()
    torch.testing.assert_close(p.grad[:, ~out], p2.grad)
    assert not p.grad[:, out].any()
    assert functional.symmetric_bernoulli_kl(p, q).isfinite()


@pytest.mark.parametrize("why", ["no dropout", "eval mode"])
def test_two_forwards_that_are_one_are_an_error(why):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0 if why == "no dropout" else 0.5), nn.Linear(4, 3))

    def forward():
        logits = model(torch.ones(3, 4))
        return Output(F.cross_entropy(logits, Y), logits)

    reg = RDrop(model)
    if why == "eval mode":
        reg.backward(forward)
        model.eval()
    with pytest.raises(RuntimeError, match="call train" if why == "eval mode" else "give the model some"):
        reg.backward(forward)


@pytest.mark.parametrize("result", [lambda z, loss: (loss, z), lambda z, loss: {"loss": loss, "logits": z}])
def test_a_tuple_or_a_dict_says_what_to_return(result):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"not (tuple|dict): return dropattack.Output\(loss, logits\)"):
        RDrop(model).backward(lambda: result(z := model(torch.ones(3, 4)), F.cross_entropy(z, Y)))


@pytest.mark.parametrize("shape", [(1, 4, 16), (1, 8, 8), (1, 16, 4)])
def test_images_of_labels_have_one_output_per_pixel(shape):
    labels = (torch.arange(3 * 64) % 3 == 0).double().view(3, *shape)
    found, seen = agreement(shape, lambda z: F.binary_cross_entropy_with_logits(z, labels))
    torch.testing.assert_close(found, by_hand(bernoulli, seen, None, 1))


def test_a_time_major_loss_has_its_positions_in_another_order():
    def flat(z):
        return F.cross_entropy(z.transpose(0, 1).reshape(-1, 3), T.t().reshape(-1))

    with pytest.raises(ValueError, match=r"return dropattack.Output\(loss, logits, mask\)"):
        agreement((4, 3), flat)
    found, seen = agreement((4, 3), flat, COUNTS)
    torch.testing.assert_close(found, by_hand(softmax, seen, COUNTS))


@pytest.mark.parametrize("method", [RDrop, VAT, SMART, RAT])
@pytest.mark.parametrize(("end", "loss"), [
    (torch.sigmoid, lambda p: F.binary_cross_entropy(p, LABELS)),
    (lambda z: z.softmax(-1), lambda p: F.nll_loss(p.log(), Y) / 4),
    (lambda z: z.softmax(-1), lambda p: F.nll_loss((p + 1e-9).log(), Y)),
])  # fmt: skip
def test_probabilities_are_not_taken_for_logits(method, end, loss):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double()
    options = {} if method is RDrop else {"targets": "0"}

    def forward() -> Output:
        made = end(model(torch.ones(3, 4).double()))
        return Output(loss(made), made)

    with pytest.raises(ValueError, match="before the sigmoid or softmax"):
        method(model, **options).backward(forward)
