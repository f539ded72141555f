"""Figures made from records alone. Matplotlib without a display; colours that the colour-blind can tell apart."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dropattack.analysis.statistics import estimate

# Okabe and Ito (2008), less the yellow that no one can read on white. A method has one colour in every figure.
COLOURS = {
    "none": "#6b6b6b", "dropout": "#56b4e9", "fgm": "#009e73", "pgd": "#e69f00", "freelb": "#cc79a7",
    "dropattack": "#d55e00", "rdrop": "#0072b2", "sam": "#000000",
}  # fmt: skip
INK, FAINT = "#333333", "#d9d9d9"
STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "dropattack"}


def gain_against_cost(
    compared: pd.DataFrame, path: Path, *, title: str, note: str = "", baseline: str = "none"
) -> Path:
    """What each method gains over the baseline against what it costs: one panel a data set and model.

    A small dot is one seed's paired difference, the large dot their mean, the line its 95 % interval. An interval that
    crosses the grey line says that these seeds show no difference. Marks that would cover each other stand a little
    beside their cost.

    Args:
        compared: the result of `compare(…)`.
        path: where to write; the suffix chooses the format (png, pdf, svg).
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
        figure.savefig(path, facecolor="white", metadata=_no_date(path))
    return path


def accuracy_against(frame: pd.DataFrame, x: str, path: Path, *, title: str) -> Path:
    """Test accuracy against a setting, one line a method, one panel a data set and model.

    Args:
        frame: `read_records(…).frame`.
        x: the setting, such as `dataset.fraction`.
        path: where to write; the suffix chooses the format.
    """
    import matplotlib

    frame = frame.assign(x=[settings[x] for settings in frame["settings"]])
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
                ax.fill_between(
                    places, [e.low for _, e in cells], [e.high for _, e in cells], color=colour, alpha=0.15, lw=0
                )
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
        figure.savefig(path, facecolor="white", metadata=_no_date(path))
    return path


def _no_date(path: Path) -> dict[str, None] | None:
    """The same records give the same bytes: no date, no name of the program in the file."""
    return {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}.get(path.suffix)


def _panel(ax: Axes, rows: pd.DataFrame, title: str, baseline: str) -> None:
    rows = rows[rows["pairs"] > 0].sort_values("cost", kind="stable")
    ax.set_title(title, loc="left", color=INK, fontsize=10)
    ax.axhline(0, color="#999999", lw=1, zorder=1)
    places = _spread(rows["cost"].tolist())
    tops: list[tuple[float, float, str, str]] = []
    for x, row in zip(places, rows.itertuples(), strict=True):
        colour, d = COLOURS.get(row.method, INK), row.difference
        if not math.isnan(d.low):
            ax.plot([x, x], [d.low, d.high], color=colour, lw=2, solid_capstyle="round", alpha=0.55, zorder=2)
        ax.scatter([x] * len(d.values), d.values, s=16, color="white", edgecolors=colour, linewidths=1, zorder=3)
        ax.scatter([x], [d.mean], s=64, color=colour, edgecolors="white", linewidths=1, zorder=4)
        tops.append((x, max([d.mean, *d.values, *([] if math.isnan(d.high) else [d.high])]), row.method_label, colour))
    for (x, top, label, colour), side in zip(tops, _sides(places), strict=True):
        ax.annotate(label, (x, top), (0, 5), textcoords="offset points", ha=side, va="bottom", color=colour,
                    fontweight="bold", fontsize=8.5)  # fmt: skip
    left, right = (min([1.0, *places]), max([1.0, *places])) if places else (1.0, 2.0)
    margin = 0.12 * max(right - left, 0.5)
    ax.set_xlim(left - margin, right + margin)
    ax.margins(y=0.12)
    ax.annotate(baseline, (1, 0), (0.01, -9), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", color="#777777", fontsize=8)  # fmt: skip
    ax.set_xlabel(f"time of a training step, relative to {baseline}", color=INK)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    ax.grid(axis="y", color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(length=0, colors="#555555")


def _sides(places: Sequence[float], near: float = 0.2) -> list[str]:
    """Labels of close neighbours grow apart: the left one ends at its mark, the right one begins there."""
    reach = near * max(places[-1] - places[0], 0.5) if places else 0.0
    sides = []
    for i, x in enumerate(places):
        on_left = i > 0 and x - places[i - 1] < reach
        on_right = i + 1 < len(places) and places[i + 1] - x < reach
        sides.append("center" if on_left == on_right else "left" if on_left else "right")
    return sides


def _spread(costs: Sequence[float], least: float = 0.06) -> list[float]:
    """Move marks that would cover each other apart, to `least` of the range, keeping their order and centre."""
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
