"""Per-epoch values from the histories of records, and their means over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dropattack.statistics import Estimate, estimate

Series = dict[int, float]  # by epoch
VALIDATION = ("validation.accuracy", "validation.loss")
TRAINING = ("train.loss",)
NORMS = {"gradients.input": "‖∂L/∂x‖", "gradients.hidden": "‖∂L/∂W‖, hidden", "gradients.weights": "‖∂L/∂W‖, all"}


def read_history(entries: Sequence[Any]) -> dict[str, Series]:
    """Return {"validation.accuracy": {epoch: value}, …, "train.loss": …, …}, leaving out non-finite values.

    Gradient norms are present if the run had `trainer.probe_gradients`.

    Args:
        entries: a record's `history`.
    """
    found: dict[str, Series] = {what: {} for what in (*VALIDATION, *TRAINING, *NORMS)}
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
    """Average over seeds at each epoch that every seed reached, so that all points are means over the same seeds."""
    epochs = set.intersection(*(set(series) for series in seeds)) if seeds else set()
    return [(epoch, estimate([factor * series[epoch] for series in seeds])) for epoch in sorted(epochs)]
