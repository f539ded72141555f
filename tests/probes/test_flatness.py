"""Flatness against closed forms: on a quadratic, everything has one."""

import numpy as np
import pytest
import torch
from torch import nn

from dropattack.batch import Batch
from dropattack.data.types import DataSpec
from dropattack.models.bert import Bert
from dropattack.models.rnn import RNNClassifier
from dropattack.probes.flatness import flatness, noise_rise, sharpness, summary
from dropattack.probes.hessian import Hessian, double_backward
from dropattack.probes.scratch import Scratch


class Quadratic(Scratch):
    """L(w) = ½ wᵀAw over one weight [n]."""

    def __init__(self, matrix: torch.Tensor, at: torch.Tensor) -> None:
        model = nn.Module()
        model.w = nn.Parameter(at.clone())
        super().__init__(model)
        self.matrix = matrix

    def loss(self, batch, reduction="mean"):
        w = self.parameters["w"]
        return w @ self.matrix @ w / 2

    def measure(self, batches):
        return float(self.loss({}).detach()), 0.0


@pytest.fixture
def matrix():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(30, 30, generator=generator)
    return half @ half.T / 30 - 0.5 * torch.eye(30)  # indefinite, as at a saddle


def test_largest_eigenvalue_and_trace_of_a_quadratic(matrix):
    hessian = Hessian(Quadratic(matrix, torch.ones(30)), {})
    exact = np.linalg.eigvalsh(matrix.numpy())
    assert hessian.largest_eigenvalue() == pytest.approx(exact[-1], rel=1e-3)
    # Hutchinson's variance is 2 (‖A‖² − Σ A_ii²): three standard errors of 2,000 probes.
    error = 3 * (2 * float((matrix**2).sum() - (matrix.diagonal() ** 2).sum()) / 2000) ** 0.5
    assert hessian.trace(probes=2000) == pytest.approx(float(matrix.trace()), abs=error)
    diagonal = Hessian(Quadratic(torch.diag(torch.arange(5.0)), torch.ones(5)), {})
    assert diagonal.trace(probes=1) == 10.0  # random signs are exact on a diagonal
    assert diagonal.largest_eigenvalue() == pytest.approx(4.0, rel=1e-3)
    small = Hessian(Quadratic(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.ones(2)), {})
    assert small.largest_eigenvalue() == pytest.approx(3.0)


def test_a_linear_loss_has_no_curvature():
    class Slope(Quadratic):
        def loss(self, batch, reduction="mean"):
            return self.parameters["w"].sum()

    assert Hessian(Slope(torch.eye(4), torch.ones(4)), {}).trace() == 0.0


def test_sharpness_of_a_quadratic():
    scales = torch.tensor([1.0, 4.0, 9.0])
    scratch = Quadratic(torch.diag(scales), torch.tensor([0.3, 0.2, 0.1]))
    w, rho = scratch.home["w"], 0.5
    gradient = scales * w
    step = rho * gradient / gradient.norm()
    rise = lambda r: float(((w + r) @ (scales * (w + r)) - w @ (scales * w)) / 2)  # noqa: E731
    one, best = sharpness(scratch, {}, rho=rho, steps=20)
    assert one == pytest.approx(rise(step), rel=1e-5)
    angles = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    ball = rho * angles / angles.norm(dim=1, keepdim=True)
    true = float((((w + ball) ** 2 * scales).sum(1) - (w**2 * scales).sum()).max() / 2)
    assert one < best <= true * 1.001
    assert best == pytest.approx(true, rel=1e-2)
    assert torch.equal(scratch.parameters["w"], w)  # home again


def test_adaptive_sharpness_takes_the_steps_of_asam():
    scales = torch.tensor([1.0, 4.0, 9.0])
    scratch = Quadratic(torch.diag(scales), torch.tensor([0.3, -0.2, 0.1]))
    w, g = scratch.home["w"], scales * scratch.home["w"]
    r = 0.5 * w**2 * g / (w.abs() * g).norm()
    expected = float(((w + r) @ (scales * (w + r)) - w @ (scales * w)) / 2)
    assert sharpness(scratch, {}, rho=0.5, steps=1, adaptive=True)[0] == pytest.approx(expected, rel=1e-5)


def test_zero_gradient_gives_zero_sharpness():
    assert sharpness(Quadratic(torch.eye(3), torch.zeros(3)), {}, rho=0.1) == (0.0, 0.0)


def test_noise_raises_a_quadratic_by_half_its_trace():
    scratch = Quadratic(torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3))
    rises = noise_rise(scratch, [], sigma=0.1, draws=3000)
    assert np.mean(rises) == pytest.approx(0.01 / 2 * 6, rel=0.1)
    same = noise_rise(scratch, [], sigma=0.1, draws=2)
    assert same == rises[:2]
    elsewhere = Quadratic(torch.eye(3), torch.tensor([0.0, 2.0, 0.0]))
    relative = noise_rise(elsewhere, [], sigma=0.1, kind="filter", draws=3000)  # only the second one moves, by 0.2
    assert np.mean(relative) == pytest.approx(0.04 / 2, rel=0.5)


def test_all_measures_leave_the_model_unchanged(restored):
    before = {name: value.clone() for name, value in restored.model.state_dict().items()}
    batches = restored.random_batches("train", count=2, rows=40)
    found = flatness(restored.model, batches, steps=2, probes=2, draws=2)
    assert {"sharpness", "adaptive_sharpness_one_step", "hessian_eigenvalue", "relative_noise_0.1"} <= set(found)
    assert all(entry["n"] == 2 and entry["low"] <= entry["mean"] <= entry["high"] for entry in found.values())
    assert found["sharpness"]["mean"] >= found["sharpness_one_step"]["mean"] > 0
    assert all(torch.equal(before[name], value) for name, value in restored.model.state_dict().items())
    assert all(p.grad is None for p in restored.model.parameters())


def test_unknown_values_are_null():
    assert summary([1.0]) == {"mean": 1.0, "sd": None, "low": None, "high": None, "n": 1}
    assert summary([1.0, float("nan")])["mean"] is None


@pytest.mark.parametrize("name", ["lstm", "gru", "bigru", "bert"])
def test_text_models_support_double_backward(name):
    spec = DataSpec("text", 3, tuple(f"w{i}" for i in range(12)), padding_id=0)
    torch.manual_seed(0)
    if name == "bert":
        model = Bert(spec=spec, pretrained=None, layers=1, hidden_size=8, heads=2)
    else:
        model = RNNClassifier(
            spec=spec, cell="lstm" if name == "lstm" else "gru", bidirectional=name == "bigru", hidden_size=4,
            embedding_size=4, embedding_std=1.0,
        )  # fmt: skip
    inputs = {"input_ids": torch.randint(1, 12, (5, 6)), "lengths": torch.tensor([6, 5, 3, 2, 1])}
    batch = Batch(inputs, torch.tensor([0, 1, 2, 0, 1]))
    scratch = Scratch(model)
    v = random_vector = torch.randn(sum(p.numel() for p in scratch.parameters.values()))
    with double_backward(model):
        product = Hessian(scratch, batch).product(v)
    parts = torch.split(random_vector, [p.numel() for p in scratch.parameters.values()])
    direction = {n: part.view_as(p) for (n, p), part in zip(scratch.parameters.items(), parts, strict=True)}
    ends = []
    for step in (1e-3, -1e-3):  # central differences of the gradient
        scratch.move([(step, direction)])
        ends.append(torch.cat([g.flatten() for g in scratch.gradient(batch).values()]))
    torch.testing.assert_close(product, (ends[0] - ends[1]) / 2e-3, rtol=0.02, atol=2e-3 * float(product.abs().max()))
