"""Gradients that are not finite give no direction, and perturbations of 16-bit weights are computed in 32 bits."""

import pytest
import torch
from torch import nn

from dropattack.regularizers import FGM, SAM
from dropattack.regularizers.functional import l2_norm, l2_step, usable
from dropattack.regularizers.rows import Rows

INF, NAN = float("inf"), float("nan")
each_bad = pytest.mark.parametrize("bad", [INF, -INF, NAN])


@each_bad
def test_step_along_nonfinite_gradient_is_zero(bad):
    gradient = torch.tensor([[bad, 1.0], [3.0, 4.0]])
    assert not usable(l2_norm(gradient))
    assert torch.equal(l2_step(gradient, 2.0), torch.zeros(2, 2))
    each = l2_step(gradient, 2.0, per_example=True)
    torch.testing.assert_close(each, torch.tensor([[0.0, 0.0], [1.2, 1.6]]))


@pytest.mark.parametrize("method", [FGM, SAM])
def test_nonfinite_gradient_moves_no_weight(method):
    """The clean gradient overflows to infinity, while both losses are finite."""
    layer = nn.Linear(2, 1, bias=False)
    before, seen = layer.weight.detach().clone(), []

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.full_like(gradient, INF)

    def forward():
        seen.append(layer.weight.detach().clone())
        return Overflow.apply(layer(torch.ones(1, 2))).sum()

    reg = method(layer, "weight")
    reg.backward(forward)
    assert reg.skipped == 1
    assert len(seen) == 2
    assert all(torch.equal(weight, before) for weight in seen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_rounded_once(dtype):
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8, bias=False).to(dtype), torch.randn(4, 64, dtype=dtype)
    before, seen = layer.weight.detach().clone(), []

    def forward():
        seen.append(layer.weight.detach().clone())
        return layer(x).square().mean()

    (gradient,) = torch.autograd.grad(forward(), [layer.weight])
    seen.clear()
    FGM(layer, "weight", epsilon=0.3).backward(forward)
    wide = gradient.float()
    assert torch.equal(seen[1], (before.float() + wide * (0.3 / wide.norm())).to(dtype))


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-23, 1e-19, 1e-17, 1e-12])
@pytest.mark.parametrize("n", [1, 100, 10_000])
def test_the_length_of_a_tiny_gradients_step_is_exact_or_zero(size, n):
    """Below 1e-18 a float32's square is rounded away, so such a norm says nothing."""
    for per_example in (False, True):
        r = l2_step(torch.full((1, n), size), 1.0, per_example)
        assert float(r.double().norm()) == pytest.approx(1.0 if size * n**0.5 > 2e-18 else 0.0, abs=0.01)


@pytest.mark.parametrize("rows", [Rows.of, Rows.without_waiting])
def test_moved_rows_of_16_bits_are_rounded_once(rows):
    torch.manual_seed(0)
    matrix, ids = torch.randn(20, 8).bfloat16(), torch.tensor([3, 5, 3, 19, 7, 7])
    found = rows(ids)
    r = 0.1 * torch.randn(len(found.index), 8)
    wanted, index = matrix.clone(), found.index[: len(ids.unique())]
    wanted[index] = (matrix[index].float() + r[: len(index)]).bfloat16()
    found.add(r, matrix, matrix.index_select(0, found.index))
    assert torch.equal(matrix, wanted)
