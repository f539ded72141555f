"""Every pass starts from the state that the step found; the step leaves the state that one clean pass leaves."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack import FGM, INPUT, PGD, SAM, DropAttack, Identity, Output, RDrop
from dropattack.regularizers import state
from tests.regularizers import by_hand
from tests.regularizers.by_hand import assert_close, taken, weights

X, Y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 2, 1])


def loss_of(model: nn.Module):
    return lambda: F.cross_entropy(model(X), Y)


class Counting(nn.Module):
    """Its output depends on everything that a forward of it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()
        self.calls, self.mean, self.plain = 0, None, torch.zeros(())
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.in_place += 1
        self.plain += 1
        self.replaced = self.replaced + 1
        self.made = self.calls
        self.mean = x.mean() if self.mean is None else 0.5 * self.mean + x.mean()
        return self.linear(x) * (self.calls + self.in_place + 2 * self.replaced + self.mean + 3 * self.plain)


def left(model: Counting) -> list[float]:
    return [float(v) for v in (model.calls, model.in_place, model.replaced, model.made, model.mean, model.plain)]


def test_buffers_counters_and_attributes_see_one_pass():
    model = Counting()
    reg, plain = DropAttack(model, "linear.weight", p=0.0, steps=3), copy.deepcopy(model)
    for _ in range(3):
        losses = reg.backward(loss_of(model))
        assert losses.clean == loss_of(plain)().detach()
        assert all(loss == losses.clean for loss in losses.adversarial), "ε = 0: each pass is the first once more"
        assert left(model) == left(plain)


def test_a_plain_step_changes_nothing_about_state():
    model = Counting()
    reg = DropAttack(model, "linear.weight", every=2)
    for _ in range(4):
        reg.backward(loss_of(model))
    assert model.calls == 4


NORMS = {
    "spectral": (nn.utils.parametrizations.spectral_norm, "parametrizations.weight.original"),
    "weight": (nn.utils.parametrizations.weight_norm, "parametrizations.weight.original1"),
    "old spectral": (nn.utils.spectral_norm, "weight_orig"),
    "old weight": (nn.utils.weight_norm, "weight_v"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("norm", "name"), NORMS.values(), ids=NORMS.keys())
@pytest.mark.parametrize("training", [True, False])
def test_norms_that_compute_a_weight(norm, name, training):
    def build():
        torch.manual_seed(0)
        model = norm(nn.Linear(4, 3).double()).train(training)
        model(X)
        return model

    by_hands, plain, model = build(), build(), build()
    start = {key: buffer.clone() for key, buffer in by_hands.named_buffers()}

    def loss():  # each pass from the same start
        with torch.no_grad():
            for key, buffer in by_hands.named_buffers():
                buffer.copy_(start[key])
        return loss_of(by_hands)()

    wanted = by_hand.fgm(loss, weights(by_hands), [by_hands.get_parameter(name)], 1.0)
    FGM(model, name).backward(loss_of(model))
    assert_close(taken(weights(model)), wanted)
    plain(X)
    buffers = dict(plain.named_buffers())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in model.named_buffers())
    assert torch.equal(model.weight, plain.weight), "not at θ + r"


class Remembering(nn.Module):
    """Keeps views of its weights, which are moved in place: putting these back must not move the weights back."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, x):
        self.seen, self.itself = self.linear.weight.detach(), self.linear.weight
        return self.linear(x)


def test_views_of_an_attacked_weight():
    model = Remembering()
    ps, loss, reg = weights(model), loss_of(model), FGM(model, "linear.weight")
    wanted, before = by_hand.fgm(loss, ps, [model.linear.weight], 1.0), model.linear.weight.detach().clone()
    for _ in range(3):
        reg.backward(loss)
        assert_close(taken(ps), wanted)
        assert torch.equal(model.linear.weight, before)
        assert torch.equal(model.seen, before)


def seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (its global numbers are what a model may take)
    torch.manual_seed(0)


def draw() -> tuple[float, float, torch.Tensor]:
    return random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002


def test_shared_masks_repeat_pythons_and_numpys_random_numbers_too():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.linear(x) * sum(draw())

    model = Noisy()
    for masks in ("shared", "fresh"):
        reg = DropAttack(model, "linear.weight", p=0.0, steps=2, dropout_masks=masks)
        losses = reg.backward(loss_of(model))
        assert all((loss == losses.clean) == (masks == "shared") for loss in losses.adversarial)
    seed_everything()
    model(X)
    wanted = draw()
    seed_everything()
    DropAttack(model, "linear.weight", dropout_masks="shared").backward(loss_of(model))
    assert draw() == wanted


def test_r_drops_second_forward_starts_where_the_first_did():
    model = nn.Sequential(Counting(), nn.Dropout(0.5))

    def forward():
        logits = model(X)
        return Output(F.cross_entropy(logits, Y), logits)

    reg = RDrop(model)
    for calls in (1, 2):
        reg.backward(forward)
        assert model[0].calls == calls


def test_what_stays_is_copied_in_two_steps(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    model.register_buffer("large", torch.zeros(100_000))
    copied = []
    original = state._Snapshot

    class Snapshot(original):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            copied.append({name for _, name in self.copies})

    monkeypatch.setattr(state, "_Snapshot", Snapshot)
    reg = FGM(model, "0.weight")
    for _ in range(3):
        reg.backward(loss_of(model))
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    everything = {"large", "weight", "bias"} | statistics
    assert copied == [everything, statistics, everything, statistics, statistics, statistics]


@pytest.mark.parametrize("relative", [0.1, 0.3])
def test_a_relative_radius_is_that_of_the_output_before_it_is_changed_in_place(relative):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head, self.seen = nn.BatchNorm1d(4).double(), nn.Linear(4, 3).double(), []

        def forward(self, x):
            out = self.norm(x)
            self.seen.append(out.detach().clone())
            out += 10 * x
            return self.head(torch.relu(out))

    model = Residual()
    DropAttack(model, "norm", epsilon=relative, p=1.0, relative=True).backward(loss_of(model))
    clean, moved = model.seen
    torch.testing.assert_close((moved - clean).norm(dim=1) / clean.norm(dim=1), torch.full((3,), relative).double())


class Renormalised(nn.BatchNorm1d):
    """Reads its statistics while it trains."""

    def forward(self, x):
        out = (x - self.running_mean) / self.running_var.sqrt()
        super().forward(x)
        return out


def test_a_batchnorm_of_the_users_own_may_read_its_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Renormalised(3)).double()
    reg = FGM(model, "0.weight")
    for _ in range(2):
        start, hand = copy.deepcopy(model[1].state_dict()), copy.deepcopy(model)

        def loss(start=start, hand=hand):
            hand[1].load_state_dict(start)
            return F.cross_entropy(hand(X), Y)

        reg.backward(loss_of(model))
        assert_close(taken(weights(model)), by_hand.fgm(loss, weights(hand), [hand[0].weight], 1.0))
        assert model[1].num_batches_tracked == start["num_batches_tracked"] + 1


class Observed(nn.Module):
    """Resizes a buffer to the first batch, as observers of quantisation do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()
        self.register_buffer("largest", torch.zeros(0).double())

    def forward(self, x):
        out = self.linear(x)
        if not self.largest.numel():
            self.largest.resize_(3).zero_()
        self.largest.copy_(torch.maximum(self.largest, out.detach().abs().amax(0)))
        return out


def test_a_buffer_that_takes_its_size_from_the_first_batch():
    model = Observed()
    plain = copy.deepcopy(model)
    FGM(model, "linear.weight").backward(loss_of(model))
    plain(X)
    assert torch.equal(model.largest, plain.largest)


@pytest.mark.parametrize("make", [lambda m: FGM(m, "linear.weight", epsilon=0.5), SAM, lambda m: PGD(m, INPUT)])
def test_what_a_backward_hook_keeps_is_that_of_the_first_pass(make):
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()
            self.last, self.seen = None, 0
            self.register_buffer("total", torch.zeros(()).double())
            self.register_full_backward_hook(type(self).watch)

        def watch(self, given, gradients):
            self.last = gradients[0].norm()
            self.seen += 1
            self.total += self.last

        def forward(self, x):
            return self.linear(x)

    def kept(make):
        torch.manual_seed(0)
        model = Watched()
        reg = make(model)
        for _ in range(5):
            reg.backward(lambda: F.cross_entropy(model(X.clone().requires_grad_()), Y))
        return model.seen, model.last, model.total

    seen, *norms = kept(make)
    once, *wanted = kept(Identity)
    assert seen == once == 5
    assert_close(norms, wanted)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_model_with_a_sparse_buffer(layout):
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()
            self.register_buffer("edges", getattr(torch.eye(3).double(), layout)())

        def forward(self, x):
            return self.edges @ self.linear(x)

    torch.manual_seed(0)
    model = Graph()
    wanted = by_hand.sam(loss_of(model), weights(model), 0.1)
    reg = SAM(model, rho=0.1)
    for _ in range(3):
        reg.backward(loss_of(model))
        assert_close(taken(weights(model)), wanted)


def test_pseudo_labels_read_the_statistics_of_the_start():
    class PseudoLabels(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).double()
            self.seen = []

        def forward(self, x):
            self.body.eval()
            with torch.no_grad():
                labels = self.body(x).softmax(-1)
            self.body.train()
            self.seen.append(labels)
            return F.cross_entropy(self.body(x), labels)

    torch.manual_seed(0)
    model = PseudoLabels()
    reg = FGM(model, "body.2.bias", epsilon=1e-12)
    for _ in range(3):
        reg.backward(lambda: model(torch.randn(6, 4, dtype=torch.float64, generator=torch.manual_seed(1))))
        first, second = model.seen[-2:]
        torch.testing.assert_close(first, second, rtol=0, atol=1e-10)
