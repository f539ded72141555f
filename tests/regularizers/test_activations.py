"""Activations as targets: which dimension the examples are in, copies, checkpoints, modules that are left out."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropattack import (
    FGM,
    INPUT,
    PGD,
    RAT,
    SMART,
    VAT,
    Compose,
    DropAttack,
    FreeLB,
    NEFTune,
    Output,
    RandomAttack,
    RDrop,
)  # fmt: skip
from tests.regularizers.by_hand import assert_close, taken, weights

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double()
IDS, Y = torch.tensor([[3, 1, 3, 0, 4], [2, 2, 9, 5, 0], [7, 8, 5, 0, 0]]), torch.tensor([0, 2, 1])


class Reader(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 6, padding_idx=0)
        self.rnn = nn.GRU(6, 6, batch_first=batch_first)
        self.out = nn.Linear(6, 3)
        self.batch_first = batch_first
        self.double()

    def forward(self, ids):
        states, _ = self.rnn(self.embed(ids if self.batch_first else ids.t()))
        return self.out(states.mean(1 if self.batch_first else 0))


METHODS = {
    "fgm": lambda m, **k: FGM(m, "embed", **k),
    "pgd": lambda m, **k: PGD(m, "embed", epsilon=0.5, **k),
    "freelb": lambda m, **k: FreeLB(m, "embed.weight", init=0.0, epsilon=0.2, **k),
    "dropattack": lambda m, **k: DropAttack(m, "embed", epsilon=0.1, p=1.0, steps=2, relative=True, **k),
    "joint": lambda m, **k: DropAttack(m, ["embed", "out.weight"], p=1.0, grouping="joint", projection="l2", **k),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
def test_time_first_is_batch_first(make):
    found = []
    for batch_first in (True, False):
        model = Reader(batch_first)
        make(model, **({} if batch_first else {"batch_dim": 1})).backward(
            lambda model=model: F.cross_entropy(model(IDS), Y)
        )
        found.append(taken(weights(model)))
    assert_close(*found)


def test_starts_keep_off_the_padding_and_inside_their_radius():
    model, seen = Reader(batch_first=False), []
    model.rnn.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    FreeLB(model, "embed", steps=1, init=0.5, batch_dim=1).backward(lambda: F.cross_entropy(model(IDS), Y))
    delta = seen[0] - model.embed(IDS.t()).detach()
    assert not delta[IDS.t() == 0].any()
    assert (delta.norm(dim=(0, 2)) <= 0.5).all()


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
def test_a_model_that_takes_sequences_first_asks(make):
    model = Reader(batch_first=False)
    with pytest.raises(RuntimeError, match=r"'embed' has the shape \(5, 3, 6\), and 'rnn' takes .* batch_dim=1"):
        make(model).backward(lambda: F.cross_entropy(model(IDS), Y))
    make(model, batch_dim=0).backward(lambda: F.cross_entropy(model(IDS), Y))


def test_images_and_vectors_of_such_a_model_do_not_ask():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Unflatten(1, (2, 3)), nn.LSTM(3, 3))
    x = torch.randn(3, 3, 2, 2)
    for name in (INPUT, "1"):
        FGM(model, name).backward(lambda: model(x)[0].square().mean())


def test_a_batch_dim_that_the_activation_does_not_have():
    model = Reader(True)
    for batch_dim in (3, -4):
        with pytest.raises(
            RuntimeError, match=rf"'embed' has the shape \(3, 5, 6\), which has no .* batch_dim={batch_dim}"
        ):
            FGM(model, "embed", batch_dim=batch_dim).backward(lambda: F.cross_entropy(model(IDS), Y))


# Copies, recomputed forwards, and modules that are left out.


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    "make", [*METHODS.values(), lambda m, **_: NEFTune(m, "embed", seed=0)], ids=[*METHODS, "neftune"]
)
def test_a_copy_of_a_regularizer_and_its_model_attacks_too(make, used, copied):
    model = Reader(True)
    reg = make(model, **({"seed": 0} if make is METHODS["freelb"] else {}))
    if used:
        reg.backward(lambda: F.cross_entropy(model(IDS), Y))
    model.zero_grad()
    other, again = copied((model, reg))
    found = []
    for one, its in ((model, reg), (other, again)):
        losses = its.backward(lambda one=one: F.cross_entropy(one(IDS), Y))
        found.append([losses.clean, *losses.adversarial, *taken(weights(one))])
    assert_close(*found)


class Blocks(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.a, self.b, self.out, self.drop = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3), nn.Dropout(0.3)
        self.reentrant = reentrant
        self.double()

    def block(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x))))

    def forward(self, x):
        states = self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.out(self.drop(states))


RECOMPUTED = {
    "fgm": lambda m: FGM(m, "a"),
    "dropattack": lambda m: DropAttack(m, ["a", "b"], seed=0),
    "vat": lambda m: VAT(m, "a", seed=0),
    "rat": lambda m: RAT(m, "a"),
    "smart": lambda m: SMART(m, "a", eta=0.5, sigma=0.1, seed=0),
    "fgm and rdrop": lambda m: Compose(FGM(m, "a"), RDrop(m)),
}
REFUSED = {("smart", False), ("smart", True), ("fgm and rdrop", True)}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", RECOMPUTED)
def test_an_attack_inside_a_checkpointed_block_is_exact_or_refused(name, reentrant):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()

    def gradients(how: bool | None):
        torch.manual_seed(0)
        model = Blocks(how)
        torch.manual_seed(3)
        RECOMPUTED[name](model).backward(lambda: Output(F.cross_entropy(logits := model(x), Y), logits))
        return taken(weights(model))

    if (name, reentrant) in REFUSED:
        with pytest.raises(RuntimeError, match="'a' is inside a checkpointed block"):
            gradients(reentrant)
    else:
        assert_close(gradients(reentrant), gradients(None))


@pytest.mark.parametrize("make", [NEFTune, RandomAttack, FGM, FreeLB, SMART])
def test_a_module_that_is_left_out_of_a_step_is_counted(make):
    torch.manual_seed(0)
    model, skip = nn.ModuleDict({"a": nn.Linear(4, 4), "out": nn.Linear(4, 3)}), []
    x = torch.randn(3, 4)

    def forward():
        logits = model["out"](x if skip else model["a"](x))
        return Output(F.cross_entropy(logits, Y), logits)

    reg = make(model, "a")
    reg.backward(forward)
    assert reg.skipped == 0
    skip.append(True)
    reg.backward(forward)
    assert reg.skipped > 0


class Shortcut(nn.Module):
    """The attacked module hands on a tensor that is also used beside it: r moves the one use and not the other."""

    def __init__(self, point: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.point, self.f, self.g = nn.Linear(4, 4), point, nn.Linear(4, 3), nn.Linear(4, 3)
        self.double()

    def forward(self, x, r=0.0):
        h = self.a(x)
        moved = self.point(h) + r
        return self.f(moved) + self.g(h)


@pytest.mark.parametrize(
    "point",
    [nn.Identity(), nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.Flatten(), nn.ReLU(inplace=True)],
    ids=["identity", "no dropout", "dropout in eval mode", "flatten", "relu in place"],
)
def test_direction_is_that_of_the_attacked_use_alone(point):
    model, x = Shortcut(point), torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    r = torch.zeros(3, 4).double().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(x, r), Y), [r])
    moved = 0.5 * g / g.norm(dim=1, keepdim=True)
    (F.cross_entropy(model(x), Y) + F.cross_entropy(model(x, moved), Y)).backward()
    wanted = taken(weights(model))
    FGM(model, "point", epsilon=0.5).backward(lambda: F.cross_entropy(model(x), Y))
    assert_close(taken(weights(model)), wanted)


def test_direction_of_an_input_that_the_loss_reads_too():
    model, x = nn.Linear(4, 3).double(), torch.randn(3, 4).double().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(x), Y), [x])
    moved = x.detach() + 0.5 * g / g.norm(dim=1, keepdim=True)
    (F.cross_entropy(model(x.detach()), Y) + F.cross_entropy(model(moved), Y)).backward()
    wanted = taken(weights(model))
    FGM(model, INPUT, epsilon=0.5).backward(lambda: F.cross_entropy(model(x), Y) + (x**3).sum())
    assert_close(taken(weights(model)), wanted)


class Prompt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(1, 4).double())

    def forward(self):
        return self.p


def test_an_attacked_parameter_keeps_no_hooks():
    model = nn.ModuleDict({"prompt": Prompt(), "linear": nn.Linear(4, 3).double()})
    reg = FGM(model, "prompt", epsilon=0.5)
    for _ in range(3):
        reg.backward(lambda: F.cross_entropy(model["linear"](X + model["prompt"]()), Y))
    assert not model["prompt"].p._backward_hooks


def test_a_gradient_inside_the_objective_is_not_read_by_the_other_method(monkeypatch):
    """SMART's ascent differentiates its KL: FGM's direction is that of the objective alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    asked = []
    smart = SMART(model, "1", eta=0.5, sigma=0.3, seed=1)
    inner = smart._ascended
    monkeypatch.setattr(smart, "_ascended", lambda run, p: (asked.append(len(smart.targets[0]._parts)), inner(run, p),
                        asked.append(len(smart.targets[0]._parts)))[1])  # fmt: skip
    Compose(smart, FGM(model, "1", epsilon=0.5)).backward(lambda: Output(F.cross_entropy(z := model(X), Y), z))
    assert asked == [0, 0]


@pytest.mark.parametrize(("main", "attacked"), [(None, "image"), ("sound", "sound")])
def test_labels_and_masks_are_no_input(main, attacked):
    class Regression(nn.Module):
        main_input_name = main

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1).double()
            self.seen = []

        def forward(self, image, sound, pixel_mask, labels):
            self.seen.append({"image": image, "sound": sound, "pixel_mask": pixel_mask, "labels": labels})
            return (self.linear(image + sound * pixel_mask).squeeze(-1) - labels).square().mean()

    model = Regression()
    inputs = ("labels", (3,)), ("pixel_mask", (3, 4)), ("sound", (3, 4)), ("image", (3, 4))
    batch = {name: torch.ones(shape).double() for name, shape in inputs}  # the labels come first, as collators put them
    FGM(model, INPUT).backward(lambda: model(**batch))
    clean, moved = model.seen
    assert [name for name in batch if not torch.equal(clean[name], moved[name])] == [attacked]
    ids = {"image": torch.ones(3, 4, dtype=torch.long), "sound": torch.ones(3, 4, dtype=torch.long)}
    with pytest.raises(RuntimeError, match="no floating-point tensor to attack"):
        FGM(model, INPUT).backward(lambda: model(**ids, pixel_mask=torch.ones(3, 4), labels=torch.ones(3)))
