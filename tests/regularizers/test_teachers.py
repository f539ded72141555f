"""Weights that the forward itself writes (a teacher's average), and tensors that a later step begins to write."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack import FGM, SAM, DropAttack, Identity
from dropattack.regularizers import state
from tests.regularizers import by_hand
from tests.regularizers.by_hand import assert_close, taken, weights

X, Y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 2, 1])


def loss_of(model: nn.Module):
    return lambda: F.cross_entropy(model(X), Y)


class Teacher(nn.Module):
    """A student beside the moving average of its weights, which `write` updates in the forward."""

    def __init__(self, write) -> None:
        super().__init__()
        self.student = nn.Linear(4, 3).double()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.write = write

    def forward(self, x):
        with torch.no_grad():
            for p, q in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                self.write(p, q)
        return self.student(x) - 0.5 * self.teacher(x)


def in_place(p, q):
    p.mul_(0.9).add_(q, alpha=0.1)


def by_data(p, q):
    p.data.mul_(0.9).add_(q.data, alpha=0.1)


def by_a_new_tensor(p, q):
    p.data = 0.9 * p.data + 0.1 * q.data


@pytest.mark.parametrize("write", [in_place, by_data])
@pytest.mark.parametrize("mode", [True, False])
def test_a_teacher_with_batch_normalisation_averages_what_a_plain_step_would(write, mode):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.student = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)
            self.seen = []

        def forward(self, x):
            self.teacher.train(mode)
            pairs = [*zip(self.teacher.parameters(), self.student.parameters(), strict=True)]
            if not mode:  # its statistics are averages too
                pairs += [
                    (p, q) for p, q in zip(self.teacher.buffers(), self.student.buffers(), strict=True) if p.dim()
                ]
            with torch.no_grad():
                for p, q in pairs:
                    write(p, q)
            self.seen.append(self.teacher(x))
            return self.student(x) - 0.5 * self.seen[-1]

    model, plain = Normed(), Normed()
    with torch.no_grad():
        for p, q in zip(model.student.parameters(), plain.student.parameters(), strict=True):
            p.add_(1.0), q.add_(1.0)
    reg = FGM(model, "student.2.bias", epsilon=1e-12)
    for _ in range(4):
        reg.backward(loss_of(model))
        loss_of(plain)()
        torch.testing.assert_close(model.seen[-1], model.seen[-2], rtol=0, atol=1e-9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-9)


def test_a_teacher_of_embeddings_with_a_largest_norm_is_updated_once():
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.student = nn.Embedding(5, 3).double()
            self.teacher = nn.Embedding(5, 3, max_norm=5.0).double().requires_grad_(False)

        def forward(self, ids):
            with torch.no_grad():
                self.teacher.weight.lerp_(self.student.weight, 0.1)
            return self.student(ids) - self.teacher(ids)

    model, plain = Bounded(), Bounded()
    reg = FGM(model, "student.weight")
    for _ in range(4):
        reg.backward(lambda: model(torch.arange(5)).square().mean())
        plain(torch.arange(5))
    torch.testing.assert_close(model.teacher.weight, plain.teacher.weight, rtol=0, atol=0)


@pytest.mark.parametrize("write", [in_place, by_data, by_a_new_tensor])
@pytest.mark.parametrize(
    "make", [lambda m: FGM(m, "student.weight"), lambda m: SAM(m, rho=0.5), lambda m: DropAttack(m, "student.*", p=1.0)]
)
def test_a_teacher_that_the_forward_updates_averages_what_a_plain_step_would(write, make):
    torch.manual_seed(0)
    model = Teacher(write)
    plain, reg = copy.deepcopy(model), make(model)
    for _ in range(3):
        reg.backward(loss_of(model))
        loss_of(plain)()
        assert_close(weights(model.teacher), weights(plain.teacher))


@pytest.mark.parametrize("write", [in_place, by_data, by_a_new_tensor])
def test_a_teacher_too_large_to_copy_is_known_by_its_sums(write, monkeypatch):
    monkeypatch.setattr(state, "_LARGE", 0)
    monkeypatch.setattr(state, "_SMALL", 0)
    torch.manual_seed(0)
    model = Teacher(write)
    model.student.weight.data += 0.1
    plain, reg = copy.deepcopy(model), FGM(model, "student.weight")
    for _ in range(3):
        reg.backward(loss_of(model))
        loss_of(plain)()
        assert_close(weights(model.teacher), weights(plain.teacher))


@pytest.mark.parametrize("write", [in_place, by_data, by_a_new_tensor])
def test_every_pass_starts_with_the_teacher_that_the_step_found(write):
    torch.manual_seed(0)
    model = Teacher(write)
    reg = FGM(model, "student.weight")
    for _ in range(2):  # only the first step in which it changes does not know of it
        reg.backward(loss_of(model))
        taken(weights(model))
        model.student.weight.data += 0.1
    hand = copy.deepcopy(model)
    start = copy.deepcopy(hand.teacher.state_dict())

    def loss():
        hand.teacher.load_state_dict(start)
        return loss_of(hand)()

    wanted = by_hand.fgm(loss, weights(hand.student), [hand.student.weight], 1.0)
    reg.backward(loss_of(model))
    assert_close(taken(weights(model.student)), wanted)


class Starting(nn.Module):
    """ActNorm: its first forward sets a weight by the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.shift = nn.Linear(4, 3), nn.Parameter(torch.zeros(3))
        self.register_buffer("ready", torch.tensor(False))
        self.double()

    def forward(self, x):
        z = self.linear(x)
        if not self.ready:
            self.shift.data.copy_(-z.detach().mean(0))
            self.ready.fill_(True)
        return z + self.shift


@pytest.mark.parametrize("make", [lambda m: FGM(m, "linear.weight"), lambda m: SAM(m, rho=0.5)])
def test_a_weight_that_the_first_batch_sets_is_set_by_the_clean_pass(make):
    torch.manual_seed(0)
    model = Starting()
    plain = copy.deepcopy(model)
    make(model).backward(loss_of(model))
    loss_of(plain)()
    assert torch.equal(model.shift, plain.shift)
    assert model.ready


class Late(nn.Module):
    """Begins to write a buffer in its fourth forward, and reads it."""

    def __init__(self, through_data: bool) -> None:
        super().__init__()
        self.linear, self.through_data = nn.Linear(4, 3), through_data
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("calls", torch.tensor(0))
        self.double()

    def forward(self, x):
        z = self.linear(x)
        self.calls += 1
        if self.calls > 3:
            (self.mean.data if self.through_data else self.mean).lerp_(z.detach().mean(0), 0.1)
        return z - self.mean.clone()


@pytest.mark.parametrize("through_data", [False, True])
def test_a_buffer_that_a_later_step_begins_to_write(through_data):
    torch.manual_seed(0)
    model = Late(through_data)
    plain, reg = copy.deepcopy(model), FGM(model, "linear.weight", epsilon=0.5)
    for _ in range(5):
        start = copy.deepcopy(plain.state_dict())

        def loss(start=start):
            plain.load_state_dict({**plain.state_dict(), "mean": start["mean"], "calls": start["calls"]})
            return F.cross_entropy(plain(X), Y)

        wanted = by_hand.fgm(loss, weights(plain), [plain.linear.weight], 0.5)
        reg.backward(loss_of(model))
        assert_close(taken(weights(model)), wanted)
        plain.load_state_dict(start)
        plain(X)
        assert torch.equal(model.mean, plain.mean)


def test_a_teacher_that_begins_late_and_by_its_data_sees_one_pass():
    def run(make):
        torch.manual_seed(0)
        model = nn.ModuleDict({"student": nn.Linear(4, 3), "teacher": nn.Linear(4, 3).requires_grad_(False)}).double()
        reg = make(model)
        for step in range(5):

            def loss(step=step):
                for t, s in zip(weights(model["teacher"]), weights(model["student"]), strict=True):
                    if step >= 3:
                        t.data.mul_(0.5).add_(0.5 * s.data)
                return F.cross_entropy(model["student"](X), Y)

            reg.backward(loss)
        return weights(model["teacher"])

    assert_close(run(lambda m: FGM(m, "student.weight", epsilon=0.5)), run(lambda m: Identity(m)))
