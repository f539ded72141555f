"""What a record's history says of each epoch, over the seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dropattack.statistics import Estimate, estimate

Series = dict[int, float]  # by epoch
VALIDATION = ("validation.accuracy", "validation.loss")
NORMS = {"gradients.input": "‖∂L/∂x‖", "gradients.hidden": "‖∂L/∂W‖, hidden", "gradients.weights": "‖∂L/∂W‖, all"}


def read_history(entries: Sequence[Any]) -> dict[str, Series]:
    """{"validation.accuracy": {epoch: value}, …, "gradients.input": …}; what is no finite number is left out.

    Args:
        entries: a record's `history`.

    Gradient norms are there where the run had `trainer.probe_gradients`.
    """
    found: dict[str, Series] = {what: {} for what in (*VALIDATION, *NORMS)}
    for entry in entries:
        if not isinstance(entry, Mapping) or type(entry.get("epoch")) is not int:
            continue
        for what, series in found.items():
            group, _, name = what.partition(".")
            values = entry.get(group)
            value: Any = values.get(name) if isinstance(values, Mapping) else None
            if type(value) in (int, float) and math.isfinite(value):
                series[entry["epoch"]] = float(value)
    return found


def over_seeds(seeds: Sequence[Series], factor: float = 1.0) -> list[tuple[int, Estimate]]:
    """The mean at each epoch that every seed reached: a mean over those that went on would be another thing."""
    epochs = set.intersection(*(set(series) for series in seeds)) if seeds else set()
    return [(epoch, estimate([factor * series[epoch] for series in seeds])) for epoch in sorted(epochs)]
