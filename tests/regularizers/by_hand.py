"""Objectives of one batch by hand, with autograd and in float64, for any loss of any modules.

The oracles of oracles/ move nothing in place, but know only the networks of networks.py. These move weights in place.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]


def weights(*modules: nn.Module) -> list[Tensor]:
    return [p for module in modules for p in module.parameters()]


def taken(ps: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients (dense; zeros for none), and clear them."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense().clone() for p in ps]
    for p in ps:
        p.grad = None
    return found


def plain(loss: Loss, ps: Sequence[Tensor]) -> list[Tensor]:
    loss().backward()
    return taken(ps)


def at(loss: Loss, ps: Sequence[Tensor], moves: dict[Tensor, Tensor]) -> list[Tensor]:
    """Return the gradient with each of some weights moved by its r."""
    before = {p: p.detach().clone() for p in moves}
    with torch.no_grad():
        for p, r in moves.items():
            p.add_(r)
    found = plain(loss, ps)
    with torch.no_grad():
        for p, w in before.items():
            p.copy_(w)
    return found


def step(ps: Sequence[Tensor], gradient: Sequence[Tensor], target: Tensor, length: float) -> Tensor:
    g = next(g for p, g in zip(ps, gradient, strict=True) if p is target)
    return length * g / g.norm()


def fgm(loss: Loss, ps: Sequence[Tensor], targets: Sequence[Tensor], epsilon: float) -> list[Tensor]:
    clean = plain(loss, ps)
    moved = at(loss, ps, {t: step(ps, clean, t, epsilon) for t in targets})
    return [a + b for a, b in zip(clean, moved, strict=True)]


def pgd(loss: Loss, ps: Sequence[Tensor], target: Tensor, alpha: float, steps: int) -> list[Tensor]:
    """Inside a ball that no step leaves."""
    clean = gradient = plain(loss, ps)
    r = torch.zeros_like(target)
    for _ in range(steps):
        r = r + step(ps, gradient, target, alpha)
        gradient = at(loss, ps, {target: r})
    return [a + b for a, b in zip(clean, gradient, strict=True)]


def sam(loss: Loss, ps: Sequence[Tensor], rho: float, over: Sequence[Tensor] | None = None) -> list[Tensor]:
    over = ps if over is None else over
    clean = dict(zip(ps, plain(loss, ps), strict=True))
    norm = torch.stack([clean[p].norm() for p in over]).norm()
    return at(loss, ps, {p: rho * clean[p] / norm for p in over})


def assert_close(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
