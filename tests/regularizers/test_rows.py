"""An embedding attacked on its rows gets the gradient of one attacked whole, whatever a model does with its output."""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint

from dropattack import FGM, INPUT, PGD, SAM, DropAttack
from tests.regularizers import by_hand
from tests.regularizers.by_hand import assert_close, taken, weights

IDS = torch.tensor([[3, 1, 3, 0], [2, 2, 9, 5], [7, 0, 0, 1]])
Y = torch.tensor([0, 2, 1])


def scaled_in_place(x, model):
    return x.mul_(6**0.5)


def moved_in_place(x, model):
    x += model.position
    return x


def first_cleared(x, model):
    x[:, 0] = 0
    return x


def unchanged(x, model):
    return x


USES = {f.__name__: f for f in (scaled_in_place, moved_in_place, first_cleared, unchanged)} | {
    "rectified in place": lambda x, model: F.relu_(x),
    "scaled": lambda x, model: x * 6**0.5,
    "detached in part": lambda x, model: x * 0.1 + x.detach() * 0.9,
}


class Reader(nn.Module):
    def __init__(self, use: Callable = unchanged, calls: str = "once", **options) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6, **options)
        self.position = nn.Parameter(torch.randn(4, 6))
        self.out = nn.Linear(6, 3)
        self.use, self.calls = use, calls
        self.double()

    def look_up(self, ids):
        if self.calls == "checkpointed":
            return checkpoint(self.embed, ids, use_reentrant=False)
        if self.calls == "reentrant":
            anchor = torch.zeros((), dtype=torch.float64, requires_grad=True)
            return checkpoint(lambda i, a: self.embed(i) + a, ids, anchor, use_reentrant=True)
        if self.calls == "functional":
            return F.embedding(ids, self.embed.weight)
        if self.calls == "twice":
            return self.embed(ids) + self.embed(ids.flip(1))
        if self.calls == "with a reader beside":
            return self.embed(ids) + self.embed.weight[:4]
        if self.calls == "with a frozen teacher":
            with torch.no_grad():
                teacher = self.embed(ids.flip(1))
            return self.embed(ids) - 0.5 * teacher  # not the difference, whose gradients can cancel to rounding
        return self.embed(ids)

    def forward(self, ids):
        x = self.use(self.look_up(ids), self)
        return self.out(torch.tanh(x).mean(1))


def loss_of(model: nn.Module, around: Callable = nullcontext, ids: torch.Tensor = IDS):
    def loss():
        with around():
            return F.cross_entropy(model(ids), Y)

    return loss


CALLS = ("once", "twice", "functional", "with a reader beside", "with a frozen teacher", "checkpointed", "reentrant")


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("calls", CALLS)
def test_every_use_of_the_output_is_exact(use, calls):
    torch.manual_seed(0)
    model = Reader(use, calls)
    ps, loss = weights(model), loss_of(model)
    wanted = by_hand.fgm(loss, ps, [model.embed.weight], 1.0)
    FGM(model, "embed.weight").backward(loss)
    assert_close(taken(ps), wanted)


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("frozen", [False, True])
def test_an_attacked_output_may_be_changed_in_place(use, frozen):
    """By hand: r is what is added to the output, before the model uses it."""
    torch.manual_seed(0)
    model = Reader(use)
    model.embed.weight.requires_grad_(not frozen)
    ps, r = [p for p in weights(model) if p.requires_grad], torch.zeros(3, 4, 6).double().requires_grad_()
    hook = model.embed.register_forward_hook(lambda module, args, output: output + r)
    clean = by_hand.plain(loss_of(model), [*ps, r])
    step = clean[-1] / clean[-1].flatten(1).norm(dim=1)[:, None, None]
    moved = by_hand.at(loss_of(model), [*ps, r], {r: step})
    hook.remove()
    FGM(model, "embed").backward(loss_of(model))
    assert_close(taken(ps), [a + b for a, b in zip(clean[:-1], moved[:-1], strict=True)])


def test_an_input_may_be_changed_in_place():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), torch.randn(3, 4)
    losses = FGM(model, INPUT).backward(lambda: F.cross_entropy(model(x.clone()), Y))
    assert losses.adversarial[0] > losses.clean


def shift_ids(model):
    model.embed.register_forward_pre_hook(lambda module, args: ((args[0] + 1) % 10,))


def scale_by_hook(model):
    model.embed.register_forward_hook(lambda module, args, output: output * 2)


def scale_by_hook_in_place(model):
    model.embed.register_forward_hook(lambda module, args, output: output.mul_(2), prepend=True)


def patch_output(model):
    forward = model.embed.forward
    model.embed.forward = lambda ids: forward(ids) * 6**0.5


def patch_ids(model):
    forward = model.embed.forward
    model.embed.forward = lambda ids: forward((ids + 3) % 10)


def patch_padding(model):
    model.embed.forward = lambda ids: F.embedding(ids, model.embed.weight, padding_idx=3)


def subclass(model):
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 2

    model.embed.__class__ = Scaled


def clamp_gradient(model):
    model.embed.weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))


def train_new_words_only(model):
    model.embed.weight.register_hook(lambda gradient: gradient * (torch.arange(10) > 4).unsqueeze(1))


def watch_backward(model):
    model.embed.register_full_backward_hook(lambda module, into, out: None)


@pytest.mark.parametrize(
    "change",
    [
        shift_ids, scale_by_hook, scale_by_hook_in_place, patch_output, patch_ids, patch_padding, subclass,
        clamp_gradient, train_new_words_only, watch_backward,
    ],
)  # fmt: skip
def test_hooks_and_patches_of_the_user_are_exact(change):
    torch.manual_seed(0)
    model = Reader()
    reg = FGM(model, "embed.weight")
    change(model)
    ps, loss = weights(model), loss_of(model)
    wanted = by_hand.fgm(loss, ps, [model.embed.weight], 1.0)
    reg.backward(loss)
    assert_close(taken(ps), wanted)


def test_a_global_hook_and_saved_tensors_elsewhere_and_functional_calls():
    torch.manual_seed(0)
    model = Reader()
    ps, loss = weights(model), loss_of(model)
    hook = register_module_forward_hook(lambda m, _, output: output * 2 if isinstance(m, nn.Embedding) else None)
    try:
        wanted = by_hand.fgm(loss, ps, [model.embed.weight], 1.0)
        FGM(model, "embed.weight").backward(loss)
    finally:
        hook.remove()
    assert_close(taken(ps), wanted)
    loss = loss_of(model, torch.autograd.graph.save_on_cpu)
    wanted = by_hand.fgm(loss, ps, [model.embed.weight], 1.0)
    FGM(model, "embed.weight").backward(loss)
    assert_close(taken(ps), wanted)

    def derived():
        doubled = {name: 2 * p for name, p in model.named_parameters()}
        return F.cross_entropy(torch.func.functional_call(model, doubled, (IDS,)), Y)

    wanted = by_hand.fgm(derived, ps, [model.embed.weight], 1.0)
    FGM(model, "embed.weight").backward(derived)
    assert_close(taken(ps), wanted)


@pytest.mark.parametrize("name", ["embed.weight", "out.weight"])
def test_a_penalty_on_the_gradient_of_the_matrix(name):
    torch.manual_seed(0)
    model = Reader()
    ps = weights(model)

    def loss():
        value = F.cross_entropy(model(IDS), Y)
        (gradient,) = torch.autograd.grad(value, model.embed.weight, create_graph=True)
        return value + 10 * gradient.square().sum()

    target = model.get_parameter(name)
    for reg, wanted in (
        (FGM(model, name), by_hand.fgm(loss, ps, [target], 1.0)),
        (PGD(model, name, alpha=0.1), by_hand.pgd(loss, ps, target, 0.1, 3)),
        (SAM(model, rho=0.5), by_hand.sam(loss, ps, 0.5)),
    ):
        reg.backward(loss)
        assert_close(taken(ps), wanted)


@pytest.mark.parametrize("inputs", ["grad", "inputs="])
def test_a_backward_that_asks_for_some_gradients(inputs):
    torch.manual_seed(0)
    model = Reader()
    ps, loss = weights(model), loss_of(model)

    def backward(value):
        if inputs == "inputs=":
            value.backward(inputs=ps)
            return
        for p, g in zip(ps, torch.autograd.grad(value, ps, allow_unused=True), strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g

    for reg, wanted in (
        (FGM(model, "embed.weight"), by_hand.fgm(loss, ps, [model.embed.weight], 1.0)),
        (PGD(model, "embed.weight", alpha=0.1), by_hand.pgd(loss, ps, model.embed.weight, 0.1, 3)),
    ):
        reg.backward(loss, backward=backward)
        assert_close(taken(ps), wanted)


METHODS = {
    "fgm": lambda m: FGM(m, "embed.weight"),
    "pgd": lambda m: PGD(m, ["embed.weight", "out.weight"]),
    "sam": lambda m: SAM(m, rho=0.3),
    "dropattack": lambda m: DropAttack(m, ["embed.weight", "out.weight"], epsilon=1.0, p=1.0, steps=3),
    "notebook": lambda m: DropAttack(m, "embed.weight", epsilon=1.0, p=1.0, steps=2, mode="notebook"),
    "joint": lambda m: DropAttack(
        m, ["embed.weight", "out.weight"], epsilon=1.0, p=1.0, grouping="joint", projection="l2", steps=2
    ),
}


@settings(max_examples=60)
@given(
    method=st.sampled_from(sorted(METHODS)),
    use=st.sampled_from(sorted(USES)),
    calls=st.sampled_from(CALLS),
    change=st.sampled_from([None, shift_ids, scale_by_hook, patch_output, patch_ids, clamp_gradient]),
    sparse=st.booleans(),
    padding=st.sampled_from([None, 0, 3]),
    views=st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=7, max_size=7),
    fresh=st.booleans(),
    micro_batches=st.integers(1, 2),
)
def test_rows_are_the_whole_matrix(method, use, calls, change, sparse, padding, views, fresh, micro_batches):
    # The direction of a second step is that of the rows of the first pass; there is one step only where ids change.
    fresh = fresh and method in ("fgm", "sam")
    torch.manual_seed(0)
    rows = Reader(USES[use], calls, sparse=sparse and change is not clamp_gradient, padding_idx=padding)
    whole = copy.deepcopy(rows)
    found = []
    for model in (rows, whole):
        if change is not None:
            change(model)
        reg = METHODS[method](model)
        target = next(t for t in reg.targets if t.name == "embed.weight")
        before = copy.deepcopy(model.state_dict())
        for _ in range(micro_batches):
            seen = iter(views)

            def forward(model=model, seen=seen):
                ids = torch.tensor(next(seen)).view(3, 4) if fresh else torch.tensor(views[0]).view(3, 4)
                return F.cross_entropy(model(ids), Y)

            target._dense = model is whole
            reg.backward(forward)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        found.append(taken(weights(model)))
    assert_close(*found)


def test_a_second_step_follows_the_rows_of_the_first_pass():
    """Where a forward looks up other rows in each pass: a row that it did not look up has no gradient in that pass."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 2)).double()
    views = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 5], [6, 4]]), torch.tensor([[7, 2], [2, 7]])]
    y, ps, matrix = torch.tensor([0, 1]), weights(model), model[0].weight

    def loss(ids):
        return F.cross_entropy(model(ids), y)

    clean = by_hand.plain(lambda: loss(views[0]), ps)
    r = by_hand.step(ps, clean, matrix, 0.5)
    first = by_hand.at(lambda: loss(views[1]), ps, {matrix: r})
    known = torch.zeros(10, 1, dtype=torch.double).index_fill(0, views[0].flatten(), 1.0)
    r = r + by_hand.step(ps, [known * first[0], *first[1:]], matrix, 0.5)
    second = by_hand.at(lambda: loss(views[2]), ps, {matrix: r})

    seen = iter(views)
    DropAttack(model, "0.weight", epsilon=0.5, p=1.0, steps=2).backward(lambda: loss(next(seen)))
    assert_close(taken(ps), [a + (b + c) / 2 for a, b, c in zip(clean, first, second, strict=True)])


def test_a_published_model_that_scales_its_embeddings_in_place():
    from transformers import CTRLConfig, CTRLForSequenceClassification

    torch.manual_seed(0)
    config = CTRLConfig(
        vocab_size=20, n_positions=8, n_embd=8, dff=8, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        num_labels=3, pad_token_id=0,
    )  # fmt: skip
    model = CTRLForSequenceClassification(config).double()
    ps = weights(model)

    def loss():
        return model(input_ids=IDS, labels=Y).loss

    wanted = by_hand.fgm(loss, ps, [model.transformer.w.weight], 0.5)
    FGM(model, "transformer.w.weight", epsilon=0.5).backward(loss)
    assert_close(taken(ps), wanted)


@pytest.mark.parametrize(
    "make", [lambda m: DropAttack(m, "embed.weight", p=0.0, steps=2), lambda m: PGD(m, "embed.weight")]
)
def test_ids_that_a_forward_writes_into_the_same_tensor(make):
    torch.manual_seed(0)
    start, views = Reader(), [IDS, IDS.flip(1), IDS.roll(1, 0) * 2 % 10, (IDS + 3) % 10]
    found = []
    for in_place in (False, True):
        model, buffer, drawn = copy.deepcopy(start), torch.empty_like(IDS), iter(views)

        def loss(model=model, buffer=buffer, drawn=drawn, in_place=in_place):
            ids = next(drawn)
            return F.cross_entropy(model(buffer.copy_(ids) if in_place else ids), Y)

        make(model).backward(loss)
        found.append(taken(weights(model)))
    assert_close(*found)


@pytest.mark.parametrize("make", [FGM, SAM, lambda m: PGD(m, steps=2), lambda m: DropAttack(m, "0.weight", p=1.0)])
def test_ids_of_32_bits_are_those_of_64(make):
    def gradients(ids):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(16, 3)).double()
        before = [w.detach().clone() for w in weights(model)]
        make(model).backward(lambda: F.cross_entropy(model(ids), Y))
        assert all(map(torch.equal, weights(model), before))
        return taken(weights(model))

    assert_close(gradients(IDS.int()), gradients(IDS))


def test_an_id_without_a_dimension():
    torch.manual_seed(0)
    kind, head = nn.Embedding(3, 4), nn.Linear(4, 3)
    model = nn.ModuleDict({"kind": kind, "head": head}).double()
    loss = lambda: F.cross_entropy(head(torch.ones(3, 4).double() + kind(torch.tensor(1))), Y)  # noqa: E731
    wanted = by_hand.fgm(loss, weights(model), [kind.weight], 0.5)
    FGM(model, "kind.weight", epsilon=0.5).backward(loss)
    assert_close(taken(weights(model)), wanted)
