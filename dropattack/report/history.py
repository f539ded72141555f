"""Curves over epochs: validation and gradient norms, as mean and interval over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from dropattack.analysis.history import NORMS, Series, over_seeds, read_history
from dropattack.report.elements import Facets, Figure, Key
from dropattack.report.svg import Axis, Panel, around, plain
from dropattack.statistics import Estimate

# Figures and their panels: (key of the history, label, factor).
KINDS = {
    "learning curves": (
        ("validation.accuracy", "validation accuracy, %", 100.0),
        ("validation.loss", "validation loss", 1.0),
    ),
    "gradient norms while training": tuple((key, label, 1.0) for key, label in NORMS.items()),
}
NOTE = "Line: mean over the seeds; band: 95 % interval; epochs that all seeds of the method reached."


def learning_curves(frame: pd.DataFrame, compared: pd.DataFrame) -> list[Figure]:
    """Draw the figures of `KINDS` that the histories allow, for each data set and model in `compared`."""
    series = {path: read_history(epochs) for path, epochs in zip(frame["path"], frame["epochs"], strict=True)}
    figures = []
    for (dataset, model), rows in compared.groupby(["dataset_label", "model"], sort=False):
        keys: list[Key] = []
        runs = []
        for row in rows.itertuples():
            own = frame[(frame["context"] == row.context) & (frame["variant"] == row.variant)]
            keys.append(Key(row.method, str(row.method_label), sum(key.method == row.method for key in keys)))
            runs.append([series[path] for path in own["path"]])
        facets = Facets(rows.iloc[0]["dataset"], model)
        for kind, what in KINDS.items():
            panels = [_panel(label, factor, keys, [[one[key] for one in seeds] for seeds in runs])
                      for key, label, factor in what]  # fmt: skip
            if all(panels):
                figures.append(Figure(f"{dataset} · {model}: {kind}", tuple(panels), tuple(keys), facets, NOTE))
    return figures


def _panel(label: str, factor: float, keys: Sequence[Key], runs: Sequence[Sequence[Series]]) -> Markup:
    curves = [(key, curve) for key, seeds in zip(keys, runs, strict=True) if (curve := over_seeds(seeds, factor))]
    if not curves:
        return Markup()
    means = [e.mean for _, curve in curves for _, e in curve]
    return curve_panel(label, curves, x_label="epoch", y=_visible(means, [e for _, c in curves for _, e in c]))


def curve_panel(
    title: str, curves: Sequence[tuple[Key, Sequence[tuple[float, Estimate]]]], *, x_label: str, y: Axis,
    x: Axis | None = None,
) -> Markup:  # fmt: skip
    """Draw means with bands against `x`, one curve per key; each curve's last point is described in words."""
    places = [place for _, curve in curves for place, _ in curve]
    whole = all(float(place).is_integer() for place in places)
    x = x or around(places, label=x_label, margin=0.03, at=_epochs(places) if whole and x_label == "epoch" else ())
    panel = Panel(title, x, y)
    for key, curve in curves:
        band = [(p, max(e.low, y.low), min(e.high, y.high)) for p, e in curve if not math.isnan(e.low)]
        panel.band(band, key.method)
    for key, curve in curves:
        panel.line([(p, e.mean) for p, e in curve], key.method, dash=key.dash)
        for p, e in curve if len(curve) <= 12 else curve[-1:]:
            panel.mark(p, e.mean, key.method, size=3.4, says=f"{key.label}, {x_label} {p:g}: {say(e)}")
    last = "; ".join(f"{key.label} {say(curve[-1][1])} at {x_label} {curve[-1][0]:g}" for key, curve in curves)
    return panel.svg(last)


def say(e: Estimate) -> str:
    return plain(e.mean) if math.isnan(e.low) else f"{plain(e.mean)} [{plain(e.low)}, {plain(e.high)}], n = {e.n}"


def _visible(means: Sequence[float], estimates: Sequence[Estimate]) -> Axis:
    """Cover all means, and the intervals up to half the range of the means; wide bands would hide the curves."""
    room = 0.5 * (max(means) - min(means)) or 1.0
    low, high = min(means) - room, max(means) + room
    ends = [min(max(end, low), high) for e in estimates for end in (e.low, e.high) if not math.isnan(end)]
    return around([*means, *ends], margin=0.04)


def _epochs(places: Sequence[Any]) -> tuple[float, ...]:
    low, high = int(min(places)), int(max(places))
    return tuple(float(e) for e in range(low, high + 1, max(1, -(-(high - low) // 8))))
