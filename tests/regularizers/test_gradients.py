"""`.grad`, and who else writes and reads it: checkpoints, sparse gradients, hooks, optimizers inside the backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropattack import FGM, MSAM, PGD, SAM, DropAttack, FreeLB, Identity, RDrop
from tests.regularizers import by_hand
from tests.regularizers.by_hand import assert_close, taken, weights

IDS, Y = torch.tensor([[3, 1, 3, 0], [2, 2, 9, 5], [7, 0, 0, 1]]), torch.tensor([0, 2, 1])


def loss_of(model: nn.Module, *more: nn.Module):
    def loss():
        out = model(IDS)
        for module in more:
            out = module(out)
        return F.cross_entropy(out, Y)

    return loss


# Nothing is toggled that a forward may depend on.


class Layers(nn.Module):
    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.embed, self.one, self.two = nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.out, self.how = nn.Linear(6, 3), how
        self.double()

    def forward(self, ids):
        x = self.embed(ids).mean(1)
        for layer in (self.one, self.two):
            if self.how == "reentrant":
                x = checkpoint(lambda z, layer=layer: torch.tanh(layer(z)), x, use_reentrant=True)
            elif self.how == "asks":  # no graph for what is frozen
                with torch.set_grad_enabled(layer.weight.requires_grad):
                    x = torch.tanh(layer(x))
            else:
                x = torch.tanh(layer(x))
        return self.out(x)


METHODS = {
    "fgm": lambda m: FGM(m, "two.weight"),
    "pgd": lambda m: PGD(m, "two.weight"),
    "pgd-rows": lambda m: PGD(m, "embed.weight"),
    "sam": lambda m: SAM(m, ["one.*", "two.*"]),
    "sam-all": SAM,
    "dropattack": lambda m: DropAttack(m, ["one.weight", "embed.weight"], p=1.0, steps=2),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("how", ["reentrant", "asks"])
def test_a_forward_that_depends_on_requires_grad(make, how):
    found = []
    for model in (Layers(), Layers(how)):
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p)
        make(model).backward(loss_of(model))
        found.append(taken(weights(model)))
    assert_close(*found)


# Sparse gradients.

LAYERS = {
    "embedding": lambda sparse: nn.Embedding(10, 6, sparse=sparse),
    "padded": lambda sparse: nn.Embedding(10, 6, sparse=sparse, padding_idx=0),
    "bag": lambda sparse: nn.EmbeddingBag(10, 6, sparse=sparse),
    "max norm": lambda sparse: nn.Embedding(10, 6, sparse=sparse, max_norm=1.0),
}
SPARSE = {
    "fgm": lambda m: FGM(m, "0.weight"),
    "pgd": lambda m: PGD(m, "0.weight"),
    "sam": lambda m: SAM(m, ["0.weight"]),
    "sam-all": lambda m: SAM(m, rho=0.5),
    "dropattack": lambda m: DropAttack(m, "0.weight", p=1.0, steps=2),
    "not attacked": lambda m: PGD(m, "2.weight"),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE.keys())
def test_sparse_gradients_stay_sparse_and_are_the_dense_ones(layer, make):
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = layer(sparse)
        model = nn.Sequential(table, nn.Flatten(), nn.Linear(6 if isinstance(table, nn.EmbeddingBag) else 24, 3))
        model.double()
        loss, reg = loss_of(model), make(model)
        loss().backward()  # a plain micro-batch before two that are attacked
        for _ in range(2):
            reg.backward(loss)
        assert table.weight.grad.is_sparse is sparse
        found.append([p.grad.to_dense() for p in model.parameters()])
        if sparse:
            torch.optim.SparseAdam([table.weight]).step()
    assert_close(*found)


# Hooks on finished gradients.


def stepping(ps, lr=0.5):
    """Give each parameter an optimizer that steps as soon as its gradient exists."""
    optimizers = {p: torch.optim.SGD([p], lr=lr) for p in ps}
    calls = []

    def hook(p):
        calls.append(p)
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in ps:
        p.register_post_accumulate_grad_hook(hook)
    return calls


@pytest.mark.parametrize(
    "make",
    [
        lambda m: FGM(m, "0.weight"),
        lambda m: PGD(m, "2.weight"),
        lambda m: SAM(m, rho=0.5),
        lambda m: DropAttack(m, ["0.weight", "2.weight"], p=1.0, steps=2),
        lambda m: FreeLB(m, "0", init=0.0),
        Identity,
    ],
)
def test_an_optimizer_inside_the_backward_steps_once_with_the_whole_gradient(make):
    torch.manual_seed(0)
    model, head = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3)).double(), nn.Linear(3, 3).double()
    ps, loss = weights(model, head), loss_of(model, head)
    make(model).backward(loss)
    wanted, before = taken(ps), [p.detach().clone() for p in ps]
    calls = stepping(ps)
    make(model).backward(loss)
    assert_close([b - p.detach() for b, p in zip(before, ps, strict=True)], [0.5 * w for w in wanted])
    assert len(calls) == len(ps)
    assert all(p.grad is None for p in ps)
    loss().backward()
    assert len(calls) == 2 * len(ps), "the hooks are in their places again"


def test_an_optimizer_inside_the_backward_of_msam_moves_the_weights_and_not_the_moved_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3)).double()
    momentum = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    reg = MSAM(model, rho=0.3)
    reg.follow(momentum)
    reg.backward(loss_of(model))
    momentum.step()
    momentum.zero_grad()
    reg.backward(loss_of(model))
    ps = weights(model)
    wanted, before = taken(ps), [p.detach().clone() for p in ps]
    stepping(ps)
    reg.backward(loss_of(model))
    assert_close([b - p.detach() for b, p in zip(before, ps, strict=True)], [0.5 * w for w in wanted])


def test_no_optimizer_steps_after_an_exception():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3))
    calls, passes = stepping(weights(model)), []

    def loss():
        passes.append(1)
        if len(passes) == 2:
            raise torch.OutOfMemoryError
        return loss_of(model)()

    with pytest.raises(torch.OutOfMemoryError):
        FGM(model, "0.weight").backward(loss)
    assert not calls
    loss_of(model)().backward()
    assert len(calls) == 3


def test_a_matrix_that_only_earlier_passes_used_still_calls_its_hook():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3)).double()
    calls, passes = [], []
    model[0].weight.register_post_accumulate_grad_hook(calls.append)

    def loss():
        passes.append(1)
        return F.cross_entropy(model(IDS) if len(passes) == 1 else model[2](torch.ones(3, 24).double()), Y)

    FGM(model, "0.weight").backward(loss)
    assert len(calls) == 1
    assert model[0].weight.grad.any()


def test_a_backward_that_divides_in_place_reports_the_same_losses():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3)).double()

    def divided_in_place(loss):
        loss /= 4
        loss.backward()

    for make in (lambda m: FGM(m, "0.weight"), lambda m: PGD(m, "2.weight"), Identity):
        one = make(model).backward(loss_of(model), backward=lambda loss: (loss / 4).backward())
        gradients = taken(weights(model))
        assert make(model).backward(loss_of(model), backward=divided_in_place) == one
        assert_close(taken(weights(model)), gradients)


# Gradients of gradients.


@pytest.mark.parametrize(
    "make", [lambda m: FGM(m, "embed.weight"), lambda m: DropAttack(m, "one.weight"), lambda m: SAM(m)]
)
def test_a_graph_of_the_gradient_is_refused(make):
    model = Layers()
    with pytest.raises(RuntimeError, match="create_graph=True"):
        make(model).backward(loss_of(model), backward=lambda loss: loss.backward(create_graph=True))
    assert all(p.requires_grad for p in model.parameters())


def test_methods_of_one_backward_may_keep_the_graph():
    model = nn.Sequential(Layers(), nn.Dropout(0.5))
    for reg in (Identity(model), RDrop(model)):

        def forward():
            logits = model(IDS)
            return type("Output", (), {"loss": F.cross_entropy(logits, Y), "logits": logits})

        reg.backward(forward, backward=lambda loss: loss.backward(create_graph=True))
        assert model[0].one.weight.grad.requires_grad
        model.zero_grad()


def test_parametrizations_that_are_cached_around_the_step_are_named():
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model = nn.Linear(4, 3)
    nn.utils.parametrize.register_parametrization(model, "weight", Double())
    x, reg = torch.randn(3, 4), FGM(model, "parametrizations.weight.original")

    def loss():
        return F.cross_entropy(model(x), Y)

    def cached():
        with nn.utils.parametrize.cached():
            return loss()

    losses = reg.backward(cached)
    assert losses.adversarial[0] > losses.clean
    with nn.utils.parametrize.cached(), pytest.raises(RuntimeError, match=r"parametrize.cached\(\).* into forward"):
        reg.backward(loss)
    with nn.utils.parametrize.cached():
        Identity(model).backward(loss)


def test_the_hand_is_the_oracle_of_a_plain_case():
    torch.manual_seed(0)
    model = Layers()
    ps, loss = weights(model), loss_of(model)
    wanted = by_hand.sam(loss, ps, 0.5)
    SAM(model, rho=0.5).backward(loss)
    assert_close(taken(ps), wanted)
