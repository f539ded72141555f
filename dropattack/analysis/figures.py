"""Charts of a table: gain against cost, and accuracy against a setting."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dropattack.analysis.along import by_context, with_number
from dropattack.analysis.drawing import (
    COLOURS,
    INK,
    Key,
    Panel,
    curves,
    draw_interval,
    last_points,
    mark,
    rank,
    save,
    signed_ticks,
)  # fmt: skip
from dropattack.analysis.formats import difference_and_interval
from dropattack.analysis.settings import differences, is_chosen
from dropattack.analysis.svg import tag
from dropattack.statistics import PairedDifference, estimate

NOTE = "line: mean over seeds · band: 95 % interval, cut where it is wide"
COLUMNS = 4  # panels side by side
MANY = 10  # methods in a panel, from which on each has a row of its own
Curve = tuple[Key, list[tuple[float, Any]]]


def gain_against_cost(
    compared: pd.DataFrame, path: Path, *, title: str, note: str = "", baseline: str = "none"
) -> Path:
    """Plot each method's gain over the baseline against its cost: one panel per data set and model with a pair of runs.

    The cost is the time of a step, or its passes where a run has no time of its own.

    A small mark is one seed's paired difference, the large mark the mean, the line its 95 % interval. If the interval
    crosses the grey line, these seeds show no difference. Overlapping marks are moved slightly apart horizontally.

    Args:
        compared: the result of `compare(…)`.
        path: output file; the suffix selects the format (png, pdf, svg).
        title: of the figure.
        note: printed below the figure.
        baseline: the method that the others are compared with.

    Returns:
        `path`.
    """
    every = [rows for _, rows in by_data(compared)]
    panels = [gain_panel(rows, baseline) for rows in [one for one in every if one["pairs"].any()] or every[:1]]
    return save(panels, path, title=title, note=note, columns=min(len(panels), COLUMNS))


def by_data(compared: pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    """Group the rows of `compare(…)` by data set and model."""
    return list(compared.groupby(["dataset_label", "model"], sort=False))


def gain_panel(compared: pd.DataFrame, baseline: str = "none") -> Panel:
    """Describe the chart of `gain_against_cost` for one data set and model."""
    first = compared.iloc[0]
    rows = compared[(compared["method"] != baseline) & (compared["pairs"] > 0)]
    # Runs that shared a GPU have no time of their own: one axis for all, so the passes of all.
    timed = bool(rows["cost"].notna().all())
    rows = rows.assign(x=rows["cost" if timed else "passes"]).sort_values("x", kind="stable")
    said = "; ".join(
        f"{row.method_label} {difference_and_interval(row.difference)} at "
        f"{f'{row.x:.1f}×' if timed else f'{row.x:.3g} passes'}"
        for row in rows.itertuples()
    )
    if len(rows) >= MANY:
        rows = rows.iloc[::-1]  # the cheapest at the top
        return Panel(
            f"{first['dataset_label']} · {first['model']}, with the {'time' if timed else 'passes'} of a step", "",
            partial(_gain_rows, rows=rows, baseline=baseline, timed=timed), said, width=5.2,
            height=0.6 + 0.22 * len(rows), left=1.9, grid="x",
        )  # fmt: skip
    return Panel(
        f"{first['dataset_label']} · {first['model']}", f"test accuracy, difference to {baseline}, points",
        partial(_gains, rows=rows, baseline=baseline, timed=timed), said or "no pair of runs", width=4.4, height=3.0,
    )  # fmt: skip


def accuracy_against(frame: pd.DataFrame, x: str, path: Path, *, title: str) -> Path:
    """Plot test accuracy against a setting: one line per method, one panel per data set and model.

    Args:
        frame: `read_records(…).frame`.
        x: the setting, such as `dataset.fraction`.
        path: output file; the suffix selects the format.
        title: of the figure.

    Returns:
        `path`.
    """
    groups = by_context(with_number(frame, x), x)
    panels = [accuracy_panel(rows, x, f"{dataset} · {model}")[0] for dataset, model, rows in groups]
    return save(panels, path, title=title, note=NOTE)


def accuracy_panel(frame: pd.DataFrame, x: str, title: str) -> tuple[Panel, tuple[Key, ...]]:
    """Return the chart of `accuracy_against` for one data set and model, and the keys of its lines.

    Args:
        frame: the runs of one group of `by_context(with_number(frame, x), x)`.
        x: the setting.
        title: of the panel.
    """
    lines: list[Curve] = []
    for key, runs in by_settings(frame, x):
        cells = runs.groupby("x")
        lines.append((key, [(float(at), estimate((100 * cell["test_accuracy"]).tolist())) for at, cell in cells]))
    name = x.rpartition(".")[2]
    panel = Panel(title, "test accuracy, %", partial(curves, lines=lines, x=name),
                  last_points(lines, name))  # fmt: skip
    return panel, tuple(key for key, _ in lines)


def by_settings(frame: pd.DataFrame, without: str = "") -> Iterator[tuple[Key, pd.DataFrame]]:
    """Yield the key and the runs of each method with the same settings, `without` aside, in the usual order."""
    for method in sorted(frame["method"].unique(), key=rank):
        runs = frame[frame["method"] == method]
        chosen = [{k: v for k, v in own.items() if is_chosen(k) and k != without} for own in runs["settings"]]
        kinds = list({str(sorted(one.items(), key=str)): one for one in chosen}.values())
        for dash, (kind, apart) in enumerate(zip(kinds, differences(kinds), strict=True)):
            said = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in apart.items())
            yield Key(method, f"{method} ({said})" if said else method, dash), runs[[one == kind for one in chosen]]


def reach(differences: Sequence[PairedDifference]) -> float:
    """Return how far the scale extends on both sides of zero: all intervals, but at most four times the largest mean.

    With two seeds, an interval can be a hundred times as wide as the difference; it is cut.
    """
    shown = [d for d in differences if d.n]
    means = max([abs(d.mean) for d in shown], default=0.0)
    ends = [abs(end) for d in shown for end in (d.low, d.high) if math.isfinite(end)]
    return max(min(max([means, *ends]), 4 * means if means else math.inf), 1e-9)


def _gains(ax: Axes, rows: pd.DataFrame, baseline: str, timed: bool) -> None:
    ax.axhline(0, color="#999999", lw=1, zorder=1)
    farthest = reach(list(rows["difference"]))
    marks = [_Mark(x, row, farthest) for x, row in zip(_spread(rows["x"].tolist()), rows.itertuples(), strict=True)]
    for one in marks:
        d = one.difference
        if not math.isnan(d.low):
            draw_interval(ax, [one.x, one.x], [max(d.low, -farthest), min(d.high, farthest)], one.method)
        mark(ax, one.x, d.mean, one.method, size=70, says=f"{one.name}: {difference_and_interval(d)}")
        for value in d.values:
            mark(ax, one.x, value, one.method, size=14, hollow=True)
    left, right = min([1.0, *(m.x for m in marks)]), max([1.0, *(m.x for m in marks)])
    margin = 0.12 * max(right - left, 0.5)
    ax.set_xlim(left - margin, right + margin)
    low, high = min([0.0, *(m.low for m in marks)]), max([0.0, *(m.high for m in marks)])
    ax.set_ylim(low - 0.12 * max(high - low, 0.1), high + 0.12 * max(high - low, 0.1))
    _label(ax, marks)
    ax.annotate(baseline, (1, 0), (0.01, -9), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", color="#777777", fontsize=8)  # fmt: skip
    ax.set_xlabel(f"time of a training step, relative to {baseline}" if timed else "passes per step", color=INK)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}{'×' if timed else ''}")
    signed_ticks(ax.yaxis)


def _gain_rows(ax: Axes, rows: pd.DataFrame, baseline: str, timed: bool) -> None:
    ax.axvline(0, color="#999999", lw=1, zorder=1)
    farthest = reach(list(rows["difference"]))
    names = []
    for y, row in enumerate(rows.itertuples()):
        d: PairedDifference = row.difference
        if not math.isnan(d.low):
            draw_interval(ax, [max(d.low, -farthest), min(d.high, farthest)], [y, y], row.method)
        mark(ax, d.mean, y, row.method, size=45, says=f"{row.method_label}: {difference_and_interval(d)}")
        for value in d.values:
            mark(ax, value, y, row.method, size=10, hollow=True)
        names.append(f"{row.method_label}, {f'{row.x:.1f}×' if timed else f'{row.x:.3g} passes'}")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.7, len(names) - 0.3)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_xlabel(f"test accuracy, difference to {baseline}, points", color=INK)
    signed_ticks(ax.xaxis)


class _Mark:
    """One method in a panel: its position and extent."""

    def __init__(self, x: float, row: Any, farthest: float) -> None:
        self.x, self.name, self.method = x, str(row.method_label), row.method
        self.difference: PairedDifference = row.difference
        ends = [end for end in (self.difference.low, self.difference.high) if not math.isnan(end)]
        reached = [*self.difference.values, *(max(-farthest, min(farthest, end)) for end in ends)]
        self.low, self.high = min(reached), max(reached)


def _label(ax: Axes, marks: Sequence[_Mark]) -> None:
    """Put each name at an end of its own line, where it covers no other line or name."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    height, gap = 0.055 * (top - bottom), 0.01 * (top - bottom)
    taken = [(m.x, m.x, m.low, m.high) for m in marks]
    for own, one in enumerate(marks):
        width = 0.021 * len(one.name) * (right - left)
        boxes = {}
        for y, va in ((one.high + gap, "bottom"), (one.low - gap - height, "top")):
            for start, ha in ((one.x - width / 2, "center"), (one.x - width, "right"), (one.x, "left")):
                boxes[ha, va] = (start, start + width, y, y + height)
        others = [box for i, box in enumerate(taken) if i != own]
        inside = {k: b for k, b in boxes.items() if b[0] >= left and b[1] <= right} or boxes
        ha, va = min(inside, key=lambda k: sum(_overlap(inside[k], box) for box in others))
        taken.append(inside[ha, va])
        y, shift = (one.high, 4) if va == "bottom" else (one.low, -4)
        tag(ax.annotate(one.name, (one.x, y), (0, shift), textcoords="offset points", ha=ha, va=va,
                        color=COLOURS.get(one.method, INK), fontweight="bold", fontsize=8.5, zorder=5),
            one.method)  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1] and a[2] <= b[3] and b[2] <= a[3]


def _spread(costs: Sequence[float], least: float = 0.06) -> list[float]:
    """Move overlapping marks apart to at least `least` of the range, keeping their order and centre."""
    if len(costs) < 2:
        return list(costs)
    gap = least * max(max(costs) - min(costs), 0.5)
    placed = list(costs)
    for _ in range(100):
        moved = False
        for i in range(len(placed) - 1):
            overlap = gap - (placed[i + 1] - placed[i])
            if overlap > 1e-9:
                placed[i], placed[i + 1], moved = placed[i] - overlap / 2, placed[i + 1] + overlap / 2, True
        if not moved:
            break
    return placed
