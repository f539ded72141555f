"""Loss and accuracy around a network: along random directions, and between two networks. Resumable.

    L(θ + a·d₁ + b·d₂) on a grid of (a, b); L(θ + a·d_k) for several d_k; L(θ₁ + t·(θ₂ − θ₁))

The line is from Goodfellow, Vinyals and Saxe (2015), the plane and the normalisation of directions (see
`directions.py`) from Li, Xu, Taylor, Studer and Goldstein (2018). Networks are evaluated in eval mode and float32, with
the BatchNorm statistics of the network at the centre.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dropattack.errors import UserError
from dropattack.probes import store
from dropattack.probes.directions import Normalise, between, normalised, random_direction
from dropattack.probes.scratch import Crew, Offset

SAVE_EVERY = 20.0  # seconds


@dataclass(frozen=True)
class Points:
    """Points around a network.

    Attributes:
        kind: `plane`, `rays` or `line`.
        axes: coordinates along each dimension.
        offsets: one per point, in C order over `shape`.
    """

    kind: str
    axes: tuple[tuple[float, ...], ...]
    offsets: tuple[Offset, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)


def plane(
    model: nn.Module, *, grid: int = 51, span: float = 1.5, seed: int = 0, normalise: Normalise = "filter"
) -> Points:
    """Return the grid θ + a·d₁ + b·d₂ for a, b in [−span, span]; [i, j] is the point a = axes[1][j], b = axes[0][i].

    Raises:
        UserError: `grid` is even, so that no point is the network itself, or the span is negative.
    """
    if grid % 2 == 0:
        raise UserError(f"a plane needs an odd number of points per side, one of which is the network; not {grid}")
    axis = _axis(grid, -span, span)
    first, second = (_direction(model, seed, number, normalise) for number in (0, 1))
    offsets = tuple(((a, first), (b, second)) for b in axis for a in axis)
    return Points("plane", (axis, axis), offsets)


def rays(
    model: nn.Module, *, grid: int = 51, span: float = 1.5, seed: int = 0, normalise: Normalise = "filter",
    count: int = 5,
) -> Points:  # fmt: skip
    """Return θ + a·d_k for a in [−span, span] and `count` directions; [k, j] is the point a = axes[1][j] along d_k."""
    axis = _axis(grid, -span, span)
    directions = [_direction(model, seed, number, normalise) for number in range(count)]
    offsets = tuple(((a, direction),) for direction in directions for a in axis)
    return Points("rays", (tuple(map(float, range(count))), axis), offsets)


def line(first: nn.Module, second: nn.Module, *, grid: int = 51, low: float = -0.5, high: float = 1.5) -> Points:
    """Return the line θ₁ + t·(θ₂ − θ₁) for t in [low, high]: `first` is at t = 0, `second` at t = 1.

    Raises:
        UserError: the architectures differ.
    """
    axis = _axis(grid, low, high)
    try:
        direction = between(first, second)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Points("line", (axis,), tuple(((t, direction),) for t in axis))


def _direction(model: nn.Module, seed: int, number: int, normalise: Normalise) -> dict[str, Any]:
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return normalised(random_direction(parameters, seed=seed, number=number), parameters, normalise)


def _axis(grid: int, low: float, high: float) -> tuple[float, ...]:
    if grid < 1 or not low <= high:
        raise UserError(f"cannot make a grid of {grid} points from {low:g} to {high:g}")
    return tuple(float(round(value, 12)) for value in np.linspace(low, high, grid))


def measure(
    grid: Points, crew: Callable[[], Crew], path: Path, run: str, description: Mapping[str, Any], *,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure loss and accuracy at every point of `grid`, saving to the store `path`; resume an unfinished landscape.

    Args:
        grid: the points.
        crew: factory of the crew that measures; called only if points are missing.
        path: the store.
        run: the name of the run, or of both runs of a line.
        description: JSON metadata of the values: run, split, rows, seed of the directions, …
        step: called after each point with the number of points done and in total.

    Returns:
        The content of the line: `run`, `description`, `kind`, `axes`, `loss` and `accuracy` (nested lists in the grid's
        shape; a non-finite loss is the string "nan" or "inf"), `done`, `seconds`.

    Raises:
        UserError: the store has another landscape of this run and kind, is damaged, or cannot be written.
    """
    content = _begun(grid, path, run, description)
    total = len(grid.offsets)
    missing = [i for i in range(total) if content["accuracy"][i] is None]
    if not missing:
        return _shaped(content)
    started = saved = time.monotonic()
    before = content["seconds"]
    points = crew().measure(grid.offsets[i] for i in missing)
    try:
        for number, (i, (loss, accuracy)) in enumerate(zip(missing, points, strict=True), 1):
            content["loss"][i], content["accuracy"][i] = _number(loss), round(accuracy, 6)
            content["seconds"] = round(before + time.monotonic() - started, 3)
            step(total - len(missing) + number, total)
            if time.monotonic() - saved > SAVE_EVERY:
                store.put(path, _shaped(content))
                saved = time.monotonic()
    finally:  # also when interrupted
        content["done"] = None not in content["accuracy"]
        store.put(path, _shaped(content))
    return _shaped(content)


def values(content: Mapping[str, Any], what: str = "loss") -> np.ndarray:
    """Return `loss` or `accuracy` as a float64 array in the grid's shape; NaN where a point is missing."""
    shape = [len(axis) for axis in content["axes"]]
    flat = [math.nan if value is None else float(value) for value in _flat(content[what])]
    return np.array(flat, dtype=np.float64).reshape(shape)


def _begun(grid: Points, path: Path, run: str, description: Mapping[str, Any]) -> dict[str, Any]:
    asked = {"schema": store.SCHEMA, "run": run, "kind": grid.kind, "description": dict(description),
             "axes": [list(axis) for axis in grid.axes]}  # fmt: skip
    content = store.of_kind(path, grid.kind).get(run)
    if content is None:
        nothing: list[Any] = [None] * len(grid.offsets)
        return {**asked, "done": False, "seconds": 0.0, "loss": nothing, "accuracy": list(nothing)}
    known = {**description, **content.get("description", {})}  # an older line lacks some
    before = {**content, "description": known}
    for key, value in asked.items():
        if before.get(key) != value:
            raise UserError(
                f"{path} has another {grid.kind} of {run} (its {key} differs); remove that line, or choose another "
                "--store"
            )
    return {**content, "loss": _flat(content["loss"]), "accuracy": _flat(content["accuracy"])}


def _shaped(content: Mapping[str, Any]) -> dict[str, Any]:
    width = len(content["axes"][-1])
    rows = {
        key: [content[key][i : i + width] for i in range(0, len(content[key]), width)] for key in ("loss", "accuracy")
    }
    if len(content["axes"]) == 1:
        rows = {key: value[0] for key, value in rows.items()}
    return {**content, **rows}


def _flat(nested: Sequence[Any]) -> list[Any]:
    return [v for row in nested for v in row] if nested and isinstance(nested[0], list) else list(nested)


def _number(value: float) -> float | str:
    """Round to nine digits; non-finite numbers become strings, which JSON can hold."""
    return float(f"{value:.9g}") if math.isfinite(value) else str(value)
