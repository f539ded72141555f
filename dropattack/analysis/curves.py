"""Curves over the epochs, from the histories of records: accuracy, loss, and the norms of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from dropattack.analysis.compare import compare
from dropattack.analysis.drawing import COLOURS, INK, Key, Panel, curves, keys, last_points, save
from dropattack.analysis.figures import by_data
from dropattack.analysis.history import NORMS, over_seeds, read_history
from dropattack.analysis.svg import tag
from dropattack.statistics import Estimate

NOTE = "line: mean over seeds, at epochs that all of them reached · band: 95 % interval, cut where it is wide"
Line = tuple[Key, "list[tuple[float, Estimate]]"]


def learning_curves(frame: pd.DataFrame, compared: pd.DataFrame, path: Path, *, title: str) -> Path:
    """Plot validation accuracy, and below it the loss, against the epoch: one column per data set and model.

    The training loss is dashed, and a cross marks the epoch whose weights were tested, if there is a single seed.

    Args:
        frame: `read_records(…).frame`.
        compared: the result of `compare(frame)`, whose names the lines have.
        path: output file; the suffix selects the format.
        title: of the figure.

    Returns:
        `path`.
    """
    columns = [learning_panels(frame, rows)[0] for _, rows in by_data(compared)]
    panels = [one for row in zip(*columns, strict=True) for one in row]
    return save(panels, path, title=title, note=f"{NOTE} · dashed loss: training", columns=len(columns))


def learning_panels(frame: pd.DataFrame, compared: pd.DataFrame) -> tuple[list[Panel], tuple[Key, ...]]:
    """Describe the two charts of `learning_curves` for one data set and model, and return them with their lines."""
    runs = _runs(frame, compared)
    title = f"{compared.iloc[0]['dataset_label']} · {compared.iloc[0]['model']}"
    accuracy = _lines(runs, "validation.accuracy", factor=100.0)
    loss, training = _lines(runs, "validation.loss"), _lines(runs, "train.loss")

    def draw(ax: Axes, lines: Sequence[Line], dashed: Sequence[Line]) -> None:
        curves(ax, lines, "epoch")
        for key, points in dashed:
            tag(ax.plot([p for p, _ in points], [e.mean for _, e in points], "--", lw=1,
                        color=COLOURS.get(key.method, INK))[0], key.method)  # fmt: skip
        for key, own in runs:
            best = int(own["validation_epoch"].iloc[0])
            tested = [e.mean for other, curve in lines if other == key for p, e in curve if p == best]
            if len(own) == 1 and tested:
                tag(ax.plot([best], tested, "+", color=INK, ms=10, zorder=5)[0], key.method)

    panels = [
        Panel(title, name, partial(draw, lines=lines, dashed=dashed), last_points(lines, "epoch"))
        for name, lines, dashed in (("validation accuracy, %", accuracy, []), ("loss", loss, training))
    ]
    return panels, tuple(key for key, _ in runs)


def norm_panels(frame: pd.DataFrame, compared: pd.DataFrame) -> tuple[list[Panel], tuple[Key, ...]]:
    """Return one chart per norm of the gradients for one data set and model, and the keys of their lines.

    Args:
        frame: the result of `with_norms`.
        compared: the rows of `compare(frame)` for one data set and model.
    """
    runs = _runs(frame, compared)
    title = f"{compared.iloc[0]['dataset_label']} · {compared.iloc[0]['model']}"
    found = [(label, _lines(runs, norm)) for norm, label in NORMS.items()]
    return [
        Panel(
            f"{title}: {label}", label, partial(curves, lines=lines, x="epoch", log=True), last_points(lines, "epoch")
        )
        for label, lines in found
    ], tuple(key for key, _ in runs)


def gradient_figure(frame: pd.DataFrame, path: Path, *, title: str) -> Path:
    """Plot norms on a log scale against the epoch: one row per data set and model, one panel per norm.

    Args:
        frame: the result of `with_norms`.
        path: output file; the suffix selects the format.
        title: of the figure.

    Returns:
        `path`.
    """
    panels = [panel for _, rows in by_data(compare(frame)) for panel in norm_panels(frame, rows)[0]]
    return save(panels, path, title=title, note=NOTE, columns=len(NORMS))


def _runs(frame: pd.DataFrame, compared: pd.DataFrame) -> list[tuple[Key, pd.DataFrame]]:
    names = keys((row.method, str(row.method_label)) for row in compared.itertuples())
    return [
        (key, frame[(frame["context"] == row.context) & (frame["variant"] == row.variant)])
        for key, row in zip(names, compared.itertuples(), strict=True)
    ]


def _lines(runs: Sequence[tuple[Key, pd.DataFrame]], what: str, factor: float = 1.0) -> list[Line]:
    found = [(key, over_seeds([read_history(one)[what] for one in own["epochs"]], factor)) for key, own in runs]
    return [(key, [(float(epoch), e) for epoch, e in points]) for key, points in found if points]
