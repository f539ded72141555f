"""Methods that add the loss at moved weights or activations, along the gradient or at random."""

import torch
from torch import Tensor

from tests.regularizers.networks import PADDING
from tests.regularizers.oracles.landscape import Expected, Landscape, add, attacked_at, largest, spread


def identity(land: Landscape, draws: list[Tensor]) -> Expected:
    clean = land.at({})
    return Expected(clean.weights, clean.loss, (), clean.loss)


def fgm(
    land: Landscape, draws: list[Tensor], epsilon: float, relative: bool = False, norm: str = "l2", weight: float = 1.0
) -> Expected:
    clean = land.at({})
    measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
    shift = {}
    for name in land.targets:
        size = measure(name, attacked_at(land, name, clean)) if relative else 1.0
        g = clean.attacked[name]
        shift[name] = epsilon * size * (land.unit(name, g) if norm == "l2" else g.sign())
    moved = land.at(shift)
    total = clean.loss + weight * moved.loss
    return Expected(add((1, clean.weights), (weight, moved.weights)), clean.loss, (moved.loss,), total)


def pgd(
    land: Landscape, draws: list[Tensor], epsilon: float, alpha: float, steps: int, relative: bool = False,
    norm: str = "l2", weight: float = 1.0,
) -> Expected:  # fmt: skip
    clean = point = land.at({})
    shift = {name: torch.zeros_like(clean.attacked[name]) for name in land.targets}
    measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
    losses = []
    for _ in range(steps):
        for name in land.targets:
            size = measure(name, attacked_at(land, name, clean)) if relative else torch.ones((), dtype=torch.float64)
            g = point.attacked[name]
            if norm == "l2":
                step = shift[name] + alpha * size * land.unit(name, g)
                shift[name] = land.project(name, step, epsilon * size)
            else:
                bound = (epsilon * size).expand_as(g)
                shift[name] = (shift[name] + alpha * size * g.sign()).clamp(-bound, bound)
        point = land.at(shift)
        losses.append(point.loss)
    total = clean.loss + weight * losses[-1]
    return Expected(add((1, clean.weights), (weight, point.weights)), clean.loss, tuple(losses), total)


def freelb(
    land: Landscape, draws: list[Tensor], alpha: float, steps: int, epsilon: float | None = None, init: float = 0.1
) -> Expected:
    delta = dict(zip(land.targets, draws, strict=True))
    points = []
    for _ in range(steps):
        points.append(land.at(dict(delta)))
        for name in land.targets:
            delta[name] = delta[name] + alpha * land.unit(name, points[-1].attacked[name])
            if epsilon is not None:
                delta[name] = land.project(name, delta[name], epsilon)
    gradient = add(*[(1 / steps, point.weights) for point in points])
    losses = [point.loss for point in points]
    return Expected(gradient, losses[0], tuple(losses[1:]), sum(losses) / steps)


def dropattack(
    land: Landscape, draws: list[Tensor], epsilon: float | None, p: float, steps: int = 1, mode: str = "paper",
    projection: str | None = None, grouping: str = "sequential", relative: bool = False, attack: bool = True,
    norm: str = "l2", weight: float = 1.0,
) -> Expected:  # fmt: skip
    clean = land.at({})
    if not attack:
        return Expected(clean.weights, clean.loss, (), clean.loss)
    gradients, losses, total = [(1.0, clean.weights)], [], clean.loss
    recorded = iter(draws)
    masks, radii = {}, {}
    for name in land.targets:
        like = clean.attacked[name]
        masks[name] = torch.full_like(like, p) if p in (0, 1) else spread(land, name, next(recorded), like)
        radii[name] = torch.tensor(0.1 if epsilon is None else epsilon, dtype=torch.float64)
        if relative or epsilon is None:
            measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
            radii[name] = radii[name] * measure(name, attacked_at(land, name, clean))
    assert not list(recorded), "more masks were drawn than there are targets"

    groups = [land.targets] if grouping == "joint" else [(name,) for name in land.targets]
    direction = dict(clean.attacked)
    shift = {name: torch.zeros_like(like) for name, like in clean.attacked.items()}
    for group in [group for group in groups for _ in range(steps)]:
        for name in group:
            unit = land.unit(name, direction[name]) if norm == "l2" else direction[name].sign()
            shift[name] = shift[name] + masks[name] * radii[name] * unit
            if projection == "l2":
                shift[name] = land.project(name, shift[name], radii[name])
            elif projection == "linf":
                shift[name] = shift[name].clamp(-radii[name], radii[name])
        point = land.at({name: shift[name] for name in group})
        gradients.append((weight / steps, point.weights))
        losses.append(point.loss)
        total = total + weight * point.loss / steps
        for name in group:
            before = direction[name] if mode == "notebook" else 0.0
            direction[name] = before + point.attacked[name] / (steps if mode == "notebook" else 1)
    return Expected(add(*gradients), clean.loss, tuple(losses), total)


def randomattack(
    land: Landscape, draws: list[Tensor], epsilon: float | None = None, p: float = 1.0, grouping: str = "sequential",
    relative: bool = False,
) -> Expected:  # fmt: skip
    """Draws: each target's direction, then its mask (none for p = 1); jointly, weights come before activations."""
    clean = land.at({})
    fraction, is_relative = (0.1, True) if epsilon is None else (epsilon, relative)
    recorded, shift = iter(draws), {}
    weights_first = sorted(land.targets, key=lambda name: name in land.activations)
    for name in weights_first if grouping == "joint" else land.targets:
        like, rows = clean.attacked[name], land.rows(name)
        direction = spread(land, name, next(recorded), like)
        if rows is not None:
            direction[PADDING] = 0.0
        elif name == land.network.embedding:
            direction = direction * (land.batch[0] != PADDING)[:, :, None]
        radius = land.norm(name, attacked_at(land, name, clean)) if is_relative else 1.0
        shift[name] = fraction * radius * land.unit(name, direction)
        if p != 1:
            shift[name] = shift[name] * spread(land, name, next(recorded), like)
    assert not list(recorded), "more was drawn than a direction and a mask for each target"
    groups = [shift] if grouping == "joint" else [{name: shift[name]} for name in land.targets]
    points = [land.at(group) for group in groups]
    gradient = add((1, clean.weights), *[(1, point.weights) for point in points])
    losses = tuple(point.loss for point in points)
    return Expected(gradient, clean.loss, losses, clean.loss + sum(losses))


def neftune(land: Landscape, draws: list[Tensor], alpha: float = 5.0) -> Expected:
    """Take draws that are uniform in (−1, 1) · α/√d already: another test checks `uniform_start`."""
    moved = land.at(dict(zip(land.targets, draws, strict=True)))
    return Expected(moved.weights, moved.loss, (), moved.loss)
