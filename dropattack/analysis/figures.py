"""Figures made from records alone, with headless matplotlib and colour-blind-safe colours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dropattack.analysis.records import with_number
from dropattack.statistics import PairedDifference, estimate

# Okabe and Ito (2008)without the yellow, which is unreadable on white. A method has the same colour in every figure.
COLOURS = {
    "none": "#6b6b6b", "dropout": "#56b4e9", "fgm": "#009e73", "pgd": "#e69f00", "freelb": "#cc79a7",
    "dropattack": "#d55e00", "rdrop": "#0072b2", "sam": "#000000",
}  # fmt: skip
INK, FAINT = "#333333", "#d9d9d9"
STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "dropattack"}


def gain_against_cost(
    compared: pd.DataFrame, path: Path, *, title: str, note: str = "", baseline: str = "none"
) -> Path:
    """Plot each method's gain over the baseline against its cost: one panel per data set and model.

    A small dot is one seed's paired difference, the large dot the mean, the line its 95 % interval. If the interval
    crosses the grey line, these seeds show no difference. Overlapping marks are moved slightly apart horizontally.

    Args:
        compared: the result of `compare(…)`.
        path: output file; the suffix selects the format (png, pdf, svg).
        title: of the figure.
        note: printed below the figure.
        baseline: the method that the others are compared with.
    """
    import matplotlib

    panels = list(compared.groupby(["dataset_label", "model"], sort=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.3 * max(1, len(panels)), 4.4), dpi=200, layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for ax, ((dataset, model), rows) in zip(axes, panels, strict=False):
            _panel(ax, rows[rows["method"] != baseline], f"{dataset} · {model}", baseline)
        axes[0].set_ylabel(f"test accuracy, difference to {baseline}\n(percentage points, paired by seed)", color=INK)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#666666")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path


def accuracy_against(frame: pd.DataFrame, x: str, path: Path, *, title: str) -> Path:
    """Plot test accuracy against a setting: one line per method, one panel per data set and model.

    Args:
        frame: `read_records(…).frame`.
        x: the setting, such as `dataset.fraction`.
        path: output file; the suffix selects the format.
        title: of the figure.
    """
    import matplotlib

    frame = with_number(frame, x)
    panels = list(frame.groupby(["dataset", "model"], sort=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.6 * len(panels), 3.8), dpi=200, layout="constrained")
        for ax, ((dataset, model), rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            ax.set_title(f"{dataset} · {model}", loc="left", color=INK, fontsize=10)
            for method, runs in rows.groupby("method", sort=True):
                cells = [(value, estimate((100 * cell["test_accuracy"]).tolist())) for value, cell in runs.groupby("x")]
                places, means = [value for value, _ in cells], [e.mean for _, e in cells]
                colour = COLOURS.get(str(method), INK)
                ax.plot(places, means, marker="o", color=colour, lw=1.8, ms=5)
                lows, highs = [e.low for _, e in cells], [e.high for _, e in cells]
                if len(cells) > 1:
                    ax.fill_between(places, lows, highs, color=colour, alpha=0.15, lw=0)
                else:
                    ax.vlines(places, lows, highs, color=colour, alpha=0.5, lw=1.8)
                ax.annotate(str(method), (places[-1], means[-1]), (5, 0), textcoords="offset points", va="center",
                            color=colour, fontweight="bold", fontsize=8.5, annotation_clip=False)  # fmt: skip
            ax.set_xlabel(x.rpartition(".")[2], color=INK)
            ax.grid(axis="y", color=FAINT, lw=0.6)
            ax.spines[["top", "right", "left"]].set_visible(False)
            ax.tick_params(length=0, colors="#555555")
        figure.axes[0].set_ylabel("test accuracy, %", color=INK)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel(
            "line: mean over seeds · band: 95 % interval", x=0.01, ha="left", fontsize=7.5, color="#666666"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis 0.1, 0.2, 0.5, 1, … in digits instead of powers of ten."""
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    for formatted in (axis.set_major_formatter, axis.set_minor_formatter):
        formatted(lambda value, _: f"{value:g}")


def no_date(path: Path) -> dict[str, None] | None:
    """Return the metadata that leaves out date and program, so that the same records give the same bytes."""
    return {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}.get(path.suffix)


def _panel(ax: Axes, rows: pd.DataFrame, title: str, baseline: str) -> None:
    rows = rows[rows["pairs"] > 0].sort_values("cost", kind="stable")
    ax.set_title(title, loc="left", color=INK, fontsize=10)
    ax.axhline(0, color="#999999", lw=1, zorder=1)
    marks = [_Mark(x, row) for x, row in zip(_spread(rows["cost"].tolist()), rows.itertuples(), strict=True)]
    for mark in marks:
        d, colour = mark.difference, mark.colour
        if not math.isnan(d.low):
            ax.plot([mark.x, mark.x], [d.low, d.high], color=colour, lw=2, solid_capstyle="round", alpha=0.55, zorder=2)
        ax.scatter([mark.x], [d.mean], s=70, color=colour, edgecolors="white", linewidths=1, zorder=3)
        ax.scatter([mark.x] * d.n, d.values, s=14, color="white", edgecolors=colour, linewidths=1, zorder=4)
    left, right = min([1.0, *(m.x for m in marks)]), max([1.0, *(m.x for m in marks)])
    margin = 0.12 * max(right - left, 0.5)
    ax.set_xlim(left - margin, right + margin)
    low, high = min([0.0, *(m.low for m in marks)]), max([0.0, *(m.high for m in marks)])
    ax.set_ylim(low - 0.12 * max(high - low, 0.1), high + 0.12 * max(high - low, 0.1))
    _label(ax, marks)
    ax.annotate(baseline, (1, 0), (0.01, -9), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", color="#777777", fontsize=8)  # fmt: skip
    ax.set_xlabel(f"time of a training step, relative to {baseline}", color=INK)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    ax.grid(axis="y", color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(length=0, colors="#555555")


class _Mark:
    """One method in a panel: its position and extent."""

    def __init__(self, x: float, row: Any) -> None:
        self.x, self.name, self.colour = x, row.method_label, COLOURS.get(row.method, INK)
        self.difference: PairedDifference = row.difference
        reach = [v for v in (*row.difference.values, row.difference.low, row.difference.high) if not math.isnan(v)]
        self.low, self.high = min(reach), max(reach)


def _label(ax: Axes, marks: Sequence[_Mark]) -> None:
    """Put each name at an end of its own line, where it covers no other line or name."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    height, gap = 0.055 * (top - bottom), 0.01 * (top - bottom)
    taken = [(m.x, m.x, m.low, m.high) for m in marks]
    for own, mark in enumerate(marks):
        width = 0.021 * len(mark.name) * (right - left)
        boxes = {}
        for y, va in ((mark.high + gap, "bottom"), (mark.low - gap - height, "top")):
            for start, ha in ((mark.x - width / 2, "center"), (mark.x - width, "right"), (mark.x, "left")):
                boxes[ha, va] = (start, start + width, y, y + height)
        others = [box for i, box in enumerate(taken) if i != own]
        inside = {k: b for k, b in boxes.items() if b[0] >= left and b[1] <= right} or boxes
        ha, va = min(inside, key=lambda k: sum(_overlap(inside[k], box) for box in others))
        taken.append(inside[ha, va])
        y, shift = (mark.high, 4) if va == "bottom" else (mark.low, -4)
        ax.annotate(mark.name, (mark.x, y), (0, shift), textcoords="offset points", ha=ha, va=va, color=mark.colour,
                    fontweight="bold", fontsize=8.5, zorder=5)  # fmt: skip


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
