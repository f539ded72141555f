"""Methods that replace the gradient by one at weights nearby."""

import torch
from torch import Tensor

from tests.regularizers.oracles.landscape import Expected, Landscape, add, attacked_at


def sam(land: Landscape, draws: list[Tensor], rho: float, adaptive: bool = False) -> Expected:
    clean = land.at({})
    scale = {name: land.theta[name].detach().abs() if adaptive else 1.0 for name in land.targets}
    norm = sum((scale[name] * clean.attacked[name]).pow(2).sum() for name in land.targets).sqrt()
    moved = land.at({name: rho * scale[name] ** 2 * clean.attacked[name] / norm for name in land.targets})
    return Expected(moved.weights, clean.loss, (moved.loss,), moved.loss)


def fsam(
    land: Landscape, draws: list[Tensor], rho: float, sigma: float = 1.0, decay: float = 0.95, adaptive: bool = False
) -> Expected:
    """Compute the first step: the average starts as the gradient, which is also the direction."""
    return sam(land, draws, rho, adaptive)


def msam(land: Landscape, draws: list[Tensor], rho: float) -> Expected:
    """Use the momenta that `following` hands to the library, drawn for all parameters in their order."""
    generator = torch.Generator().manual_seed(0)
    momenta = {n: torch.randn(w.shape, dtype=w.dtype, generator=generator) for n, w in land.theta.items()}
    norm = torch.stack([momenta[name].norm() for name in land.targets]).norm()
    moved = land.at({name: -rho * momenta[name] / norm for name in land.targets})
    return Expected(moved.weights, moved.loss, (), moved.loss)


def awp(
    land: Landscape, draws: list[Tensor], gamma: float, relative: bool = True, inputs: str | None = None,
    epsilon: float = 1.0, alpha: float = 0.3, steps: int = 3,
) -> Expected:  # fmt: skip
    weights = [name for name in land.targets if name != inputs]
    shift, points = {}, []
    for _ in range(steps if inputs else 0):
        points.append(land.at(dict(shift)))
        step = shift.get(inputs, 0.0) + alpha * land.unit(inputs, points[-1].attacked[inputs])
        shift[inputs] = land.project(inputs, step, epsilon)
    points.append(land.at(dict(shift)))
    for name in weights:
        size = land.norm(name, attacked_at(land, name, points[-1])) if relative else 1.0
        shift[name] = gamma * size * land.unit(name, points[-1].attacked[name])
    points.append(land.at(shift))
    losses = [point.loss for point in points]
    return Expected(points[-1].weights, losses[0], tuple(losses[1:]), losses[-1])


def rwp(land: Landscape, draws: list[Tensor], gamma: float, alpha: float = 0.5, relative: bool = True) -> Expected:
    clean, shift = land.at({}), {}
    for name, noise in zip(land.targets, draws, strict=True):
        w, rows = land.theta[name].detach(), land.rows(name)
        if rows is None and len(noise) < len(w):  # BERT looks up only the first positions and token types
            rows = torch.arange(len(noise))
        noise = noise if rows is None else torch.zeros_like(w).index_copy(0, rows, noise)
        size = w.norm() if w.dim() == 1 else w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1))
        shift[name] = gamma * noise * (size if relative else 1.0)
    moved = land.at(shift)
    gradient = add((1 - alpha, clean.weights), (alpha, moved.weights))
    return Expected(gradient, clean.loss, (moved.loss,), (1 - alpha) * clean.loss + alpha * moved.loss)
