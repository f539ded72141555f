"""The model is not what it was when the regularizer was made, or not all of what the loss depends on."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack import AWP, FGM, FSAM, PGD, SAM, CreAT, DropAttack, FreeLB, RandomAttack
from dropattack.regularizers.rows import EmbeddingRows
from dropattack.regularizers.targets import Weight
from tests.regularizers import by_hand
from tests.regularizers.by_hand import assert_close, taken, weights

Y = torch.tensor([0, 1, 2, 0])


@pytest.fixture(autouse=True)
def doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def loss_of(*modules: nn.Module):
    x = torch.randn(4, 4)

    def loss():
        out = x
        for module in modules:
            out = module(out)
        return F.cross_entropy(out, Y)

    return loss


@pytest.mark.parametrize("backward", [torch.Tensor.backward, lambda loss: (2 * loss).backward()])
def test_a_head_outside_the_model_gets_its_gradient_from_the_right_passes(backward):
    body, head = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3)
    ps, loss = weights(body, head), loss_of(body, head)
    factor = 1 if backward is torch.Tensor.backward else 2
    for reg, wanted in (
        (SAM(body, rho=0.5), by_hand.sam(loss, ps, 0.5, over=weights(body))),
        (PGD(body, "0.weight", alpha=0.1, steps=3), by_hand.pgd(loss, ps, body[0].weight, 0.1, 3)),
    ):
        head.weight.grad = torch.ones_like(head.weight)  # of an earlier micro-batch
        reg.backward(loss, backward=backward)
        head.weight.grad -= 1
        assert_close(taken(ps), [factor * w for w in wanted])


def test_a_head_outside_that_is_unfrozen_later():
    body, head = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3).requires_grad_(False)
    ps, loss = weights(body, head), loss_of(body, head)
    reg = SAM(body, rho=0.5)
    reg.backward(loss)
    taken(ps)
    head.requires_grad_(True)
    wanted = by_hand.sam(loss, ps, 0.5, over=weights(body))
    reg.backward(loss)
    assert_close(taken(ps), wanted)


class Adapter(nn.Module):
    """A low-rank adapter around a layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, 2))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


def unfreeze(model):
    model[0].requires_grad_(True)


def replace(model):
    model[2] = nn.Linear(6, 3)


def adapt(model):
    model[2] = Adapter(model[2])


def freeze(model):
    model[2].requires_grad_(False)


@pytest.mark.parametrize("change", [unfreeze, replace, adapt, freeze])
def test_all_weights_are_those_of_now(change):
    model = layers()
    if change is unfreeze:
        model[0].requires_grad_(False)
    loss = loss_of(model)
    reg = SAM(model, rho=0.5)
    reg.backward(loss)
    model.zero_grad()
    change(model)
    ps = [p for p in weights(model) if p.requires_grad]
    wanted = by_hand.sam(loss, ps, 0.5)
    reg.backward(loss)
    assert_close(taken(ps), wanted)
    assert len(reg.targets) == len(ps)


@pytest.mark.parametrize("change", [unfreeze, replace, adapt, freeze])
def test_awp_moves_the_matrices_of_now(change):
    model = layers()
    if change is unfreeze:
        model[0].requires_grad_(False)
    loss, reg = loss_of(model), AWP(model, gamma=0.3)
    reg.backward(loss)
    model.zero_grad()
    change(model)
    ps = [p for p in weights(model) if p.requires_grad]
    moved = [p for n, p in model.named_parameters() if p.requires_grad and "weight" in n and p.dim() > 1]
    clean = dict(zip(ps, by_hand.plain(loss, ps), strict=True))
    reg.backward(loss)
    found = taken(ps)
    wanted = by_hand.at(loss, ps, {p: 0.3 * p.detach().norm() * clean[p] / clean[p].norm() for p in moved})
    assert_close(found, wanted)


@pytest.mark.parametrize("change", [unfreeze, replace, adapt, freeze])
def test_fsam_keeps_the_means_of_the_weights_that_stay(change):
    model = layers()
    if change is unfreeze:
        model[0].requires_grad_(False)
    loss, reg = loss_of(model), FSAM(model, rho=0.5, sigma=0.7)
    first = {n: p for n, p in model.named_parameters() if p.requires_grad}
    means = dict(zip(first, by_hand.plain(loss, list(first.values())), strict=True))
    reg.backward(loss)
    model.zero_grad()
    change(model)
    with torch.no_grad():  # else the second gradient is the mean itself
        model[0].bias += 1.0
    now = {n: p for n, p in model.named_parameters() if p.requires_grad}
    ps = list(now.values())
    clean = dict(zip(now, by_hand.plain(loss, ps), strict=True))
    d = {n: clean[n] - (0.7 * means[n] if first.get(n) is p else 0.0) for n, p in now.items()}
    norm = torch.stack([x.norm() for x in d.values()]).norm()
    reg.backward(loss)
    assert_close(taken(ps), by_hand.at(loss, ps, {p: 0.5 * d[n] / norm for n, p in now.items()}))


def test_creat_follows_a_replaced_encoder_and_refuses_one_that_is_gone():
    model = layers()
    reg = CreAT(model, "1", encoder="2", alpha=0.5, epsilon=0.5, sigma=0.1, seed=0)
    loss, state = loss_of(model), reg.state_dict()
    reg.backward(loss)
    model.zero_grad()
    replace(model)
    reg.load_state_dict(state)  # the same draws again
    reg.backward(loss)
    found = taken(weights(model))
    CreAT(model, "1", encoder="2", alpha=0.5, epsilon=0.5, sigma=0.1, seed=0).backward(loss)
    assert_close(found, taken(weights(model)))
    model[2] = nn.Sequential(model[2])
    reg.backward(loss)  # still there, and another module
    assert reg._encoder is model[2]
    del model[2]
    with pytest.raises(ValueError, match="encoder '2' is not a module of this model"):
        reg.backward(loss)


def test_a_state_outlives_an_unfreezing():
    model = layers()
    model[0].requires_grad_(False)
    reg = SAM(model)
    unfreeze(model)
    reg.backward(loss_of(model))
    SAM(layers()).load_state_dict(reg.state_dict())


def test_a_target_that_is_gone_or_frozen_is_an_error_and_no_other_target():
    model = layers()
    reg = FGM(model, "2.weight")
    adapt(model)
    with pytest.raises(ValueError, match=r"has changed since FGM was made of it: .*'2.weight' matches no parameter"):
        reg.backward(loss_of(model))
    model = layers()
    reg = FGM(model, "2.weight")
    freeze(model)
    with pytest.raises(ValueError, match=r"has changed since FGM was made of it: .*'2.weight' is frozen"):
        reg.backward(loss_of(model))


def test_passes_are_counted_anew():
    model = layers()
    model[0].requires_grad_(False)
    reg = DropAttack(model, "*.weight")
    assert reg.passes == 2
    unfreeze(model)
    assert len(reg.backward(loss_of(model)).adversarial) == 2
    assert reg.passes == 3


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)

    def forward(self, ids):
        return self.out(self.embed(ids).mean(1))


@pytest.mark.parametrize("change", ["tied", "resized"])
def test_an_embedding_that_is_tied_or_resized_later(change):
    model, ids = Words(), torch.randint(10, (4, 5))

    def loss():
        return F.cross_entropy(model(ids), Y)

    reg = FGM(model, "embed.weight")
    reg.backward(loss)
    model.zero_grad()
    if change == "tied":
        model.out.weight = model.embed.weight
    else:
        model.embed = nn.Embedding(12, 6)
    ps = weights(model)
    wanted = by_hand.fgm(loss, ps, [model.embed.weight], 1.0)
    reg.backward(loss)
    assert_close(taken(ps), wanted)
    assert type(reg.targets[0]) is (Weight if change == "tied" else EmbeddingRows)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: SAM(m),
        lambda m: SAM(m, "0.*"),
        lambda m: FGM(m, "0.weight"),
        lambda m: PGD(m, "*.weight"),
        lambda m: DropAttack(m, ["0.weight", "2.weight"]),
    ],
)
@pytest.mark.parametrize("when", ["first", "later"])
def test_another_model_is_an_error(make, when):
    model = layers()
    average = copy.deepcopy(model)
    reg = make(model)
    if when == "later":
        reg.backward(loss_of(model))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="no trainable weight of the model that this regularizer was made of"):
        reg.backward(loss_of(average))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Stochastic(nn.Module):
    """Leaves layers out: those that `dropped` names, of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.out = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 3)
        self.dropped: list[set[int]] = []

    def forward(self, x):
        dropped = self.dropped.pop(0) if self.dropped else set()
        for i, layer in enumerate(self.layers):
            x = x if i in dropped else torch.tanh(layer(x))
        return self.out(x)


@pytest.mark.parametrize("names", ["layers.*.weight", ["layers.0.weight", "layers.1.weight", "layers.2.weight"]])
def test_a_layer_that_is_left_out_of_a_step_is_not_attacked_in_it(names):
    model = Stochastic()
    ps, loss = weights(model), loss_of(model)
    reg = FGM(model, names)
    if not isinstance(names, str):  # named by itself, it has to be there at first
        reg.backward(loss)
        taken(ps)
    model.dropped = [{1}, set()]
    wanted = by_hand.fgm(loss, ps, [model.layers[0].weight, model.layers[2].weight], 1.0)
    model.dropped = [{1}, set()]
    reg.backward(loss)
    assert_close(taken(ps), wanted)
    assert reg.skipped == 1


def dropped_at_random(make):
    model = Stochastic()
    loss, reg = loss_of(model), make(model)
    generator = torch.Generator().manual_seed(0)
    reg.backward(loss)
    for _ in range(20):
        model.dropped = [
            {i for i in range(3) if torch.rand((), generator=generator) < 0.5} for _ in range(int(reg.passes))
        ]
        before = copy.deepcopy(model.state_dict())
        reg.backward(loss)
        assert not model.dropped
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(p.grad.isfinite().all() for p in model.parameters())
    return reg


@pytest.mark.parametrize(
    "make",
    [
        SAM,
        lambda m: SAM(m, adaptive=True),
        lambda m: FGM(m, "layers.*.weight"),
        lambda m: PGD(m, ["layers.*.weight", "layers.1"]),
        lambda m: DropAttack(m, "layers.*", steps=3, projection="l2", relative=True),
        lambda m: DropAttack(m, ["layers.0.weight", "layers.1"], steps=3, mode="notebook"),
        lambda m: DropAttack(m, ["layers.0.weight", "layers.1"], grouping="joint", relative=True),
        lambda m: FreeLB(m, ["layers.0", "layers.1"], epsilon=0.1),
        lambda m: RandomAttack(m, ["layers.*.weight", "layers.1"]),
    ],
)
def test_layers_may_come_and_go_between_passes(make):
    reg = dropped_at_random(make)
    assert reg.skipped > 0 or isinstance(reg, SAM)


def test_a_named_layer_that_is_absent_at_first_says_how_to_name_it():
    model = Stochastic()
    model.dropped = [{1}]
    with pytest.raises(RuntimeError, match=r"'layers.1.weight' got no gradient: .* name it by a glob"):
        FGM(model, ["layers.0.weight", "layers.1.weight"]).backward(loss_of(model))
    model.unused = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"'unused.weight' got no gradient"):
        FGM(model, "unused.*").backward(loss_of(model))
