"""Charts, drawn by matplotlib: several side by side in a file, or each alone on the report's page.

Colours are Okabe and Ito's (2008) without the yellow, which is unreadable on white. A method has the same colour and
mark in every figure.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator

from dropattack.analysis.compare import ORDER
from dropattack.analysis.formats import MINUS
from dropattack.analysis.svg import tag, tidy
from dropattack.statistics import Estimate

COLOURS = {
    "none": "#6b6b6b", "dropout": "#56b4e9", "fgm": "#009e73", "pgd": "#e69f00", "freelb": "#cc79a7",
    "dropattack": "#d55e00", "rdrop": "#0072b2", "sam": "#000000",
}  # fmt: skip
MARKS = {
    "none": "o",
    "dropout": "s",
    "fgm": "^",
    "pgd": "D",
    "freelb": "v",
    "dropattack": "p",
    "rdrop": "P",
    "sam": "X",
}
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)))
INK, QUIET, FAINT, PAGE = "#333333", "#666666", "#d9d9d9", "#ffffff"
WHITE = "#fffffe"  # on a dark field: it stays white where the page is dark
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "axes.edgecolor": QUIET, "text.color": INK,
}  # fmt: skip
FONTS = "font-family: 'DejaVu Sans', Verdana, sans-serif"


@dataclass(frozen=True)
class Key:
    """A line of a figure: its method, its name, and its dash pattern, which tells variants of one method apart."""

    method: str
    label: str
    dash: int = 0

    @property
    def variant(self) -> str:
        return ("", "dashed", "dotted", "dash-dotted")[self.dash % len(DASHES)]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: what distinguishes it from the other panels of its figure.
        y: the quantity on the vertical axis.
        draw: draws on empty axes.
        says: the numbers in words, for readers who do not see them.
        width: in inches.
        height: in inches.
        grid: the axis whose values have lines, x or y; a map has none.
        left: room for the labels of the vertical axis, in inches.
        method: if the whole chart is of one method.
        solid: whether the axes have three dimensions.
    """

    title: str
    y: str
    draw: Callable[[Axes], None]
    says: str
    width: float = 4.0
    height: float = 2.7
    grid: str = "y"
    left: float = 0.5
    method: str = ""
    solid: bool = False

    def onto(self, ax: Axes) -> None:
        """Draw on `ax`, with the common grid and ticks."""
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
        self.draw(ax)
        ax.tick_params(length=0, which="both", colors="#555555")
        if self.grid:
            ax.grid(axis=self.grid, color=FAINT, lw=0.6)  # type: ignore[arg-type]
            ax.set_axisbelow(True)
            ax.spines[["top", "right", "left"]].set_visible(False)


def save(panels: Sequence[Panel], path: Path, *, title: str, note: str = "", columns: int = 0, bar: Any = None) -> Path:
    """Write a figure of several panels.

    Args:
        panels: of one size.
        path: output file; the suffix selects the format (png, pdf, svg).
        title: of the figure.
        note: printed below the figure.
        columns: panels per row; 0 puts all in one row.
        bar: the colour scale of a loss, as a `ScalarMappable`.

    Returns:
        `path`.
    """
    columns = columns or max(1, len(panels))
    rows = -(-len(panels) // columns) or 1
    width, height = max((p.width for p in panels), default=4.0), max((p.height for p in panels), default=2.7)
    with matplotlib.rc_context(STYLE):
        size = (1.0 + (width + 0.2) * columns + 0.8 * (bar is not None), 0.9 + (height + 0.2) * rows)
        figure = Figure(figsize=size, dpi=200, layout="constrained", facecolor=PAGE)
        named: list[str] = []
        for number, panel in enumerate(panels):
            ax = figure.add_subplot(rows, columns, number + 1, projection="3d" if panel.solid else None)
            panel.onto(ax)
            ax.set_title(panel.title, loc="left", color=INK, fontsize=10)
            if number % columns == 0:
                ax.set_ylabel(panel.y, color=INK)
            if (labels := ax.get_legend_handles_labels()[1]) and labels != named:  # once for panels that share it
                ax.legend(frameon=False, fontsize=7.5, labelcolor="linecolor", handlelength=1.2)
                named = labels
        if bar is not None:
            scale_bar(figure, bar, ax=figure.axes, shrink=0.8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color=QUIET)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".svg":
            root = tidy(figure)
            root.set("style", FONTS)
            path.write_text(ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
        else:
            figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def scale_bar(figure: Figure | SubFigure, bar: Any, **place: Any) -> None:
    """Draw the colour scale `bar` of a logarithmic loss, labelled in digits."""
    low, high = bar.get_clim()
    ticks = [low * (high / low) ** (i / 5) for i in range(6)]
    drawn = figure.colorbar(bar, ticks=ticks, format=lambda value, _: f"{value:.2g}", **place)
    drawn.ax.minorticks_off()
    drawn.ax.tick_params(length=0, colors="#555555")
    drawn.outline.set_visible(False)


def alone(panel: Panel, colour: Callable[[str], str]) -> Element:
    """Return a panel as an SVG element without ids, so that a page can hold many.

    Args:
        panel: the panel; its quantity, or else its title, is written above it.
        colour: maps `#rrggbb` to any CSS colour, such as a variable of the page.
    """
    left, right, top, bottom = panel.left, 0.12, 0.32, 0.46
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(panel.width, panel.height), facecolor="none")
        width, height = panel.width - left - right, panel.height - top - bottom
        box = (left / panel.width, bottom / panel.height, width / panel.width, height / panel.height)
        ax = figure.add_axes(box, facecolor="none")
        panel.onto(ax)
        heading = panel.y or panel.title
        figure.text(0, 1 - 0.13 / panel.height, heading, va="center", color=INK, fontweight="bold", gid="heading")
        return tidy(figure, colour)


def curves(
    ax: Axes, lines: Sequence[tuple[Key, Sequence[tuple[float, Estimate]]]], x: str, *, log: bool = False,
    whole: bool = False,
) -> None:  # fmt: skip
    """Draw means with bands.

    Bands are cut half the range of the means away from them (on a log scale at 0.3 of the mean), because wide ones
    would hide the curves; `whole` cuts none.
    """
    ax.set_xlabel(x, color=INK)
    if all(p == int(p) for _, points in lines for p, _ in points):
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    means = [e.mean for _, points in lines for _, e in points]
    if not means:
        return
    room = math.inf if whole else 0.5 * (max(means) - min(means)) or 1.0
    lowest, highest = min(means) - room, max(means) + room
    for key, points in lines:
        band = [(p, e) for p, e in points if not math.isnan(e.low)]
        lows = [max(e.low, 0.3 * e.mean if log and not whole else lowest) for _, e in band]
        highs = [min(e.high, math.inf if log else highest) for _, e in band]
        if len(band) > 1:
            tag(
                ax.fill_between([p for p, _ in band], lows, highs, color=_colour(key.method), alpha=0.13, lw=0),
                key.method,
            )
    for key, points in lines:
        colour = _colour(key.method)
        tag(ax.plot([p for p, _ in points], [e.mean for _, e in points], ls=DASHES[key.dash % len(DASHES)], lw=1.6,
                    color=colour, label=key.label)[0], key.method)  # fmt: skip
        for p, e in points if len(points) <= 12 else points[-1:] if not whole else ():
            mark(ax, p, e.mean, key.method, size=22, says=f"{key.label}, {x} {p:g}: {estimate_text(e)}")
    if log:
        ax.set_yscale("log")
        plain_log_ticks(ax.yaxis)


def last_points(lines: Sequence[tuple[Key, Sequence[tuple[float, Estimate]]]], x: str) -> str:
    """Return the last point of each curve in words."""
    return "; ".join(f"{key.label} {estimate_text(points[-1][1])} at {x} {points[-1][0]:g}" for key, points in lines)


def mark(
    ax: Axes, x: float, y: float, method: str, *, size: float = 40.0, hollow: bool = False, says: str = ""
) -> None:  # fmt: skip
    """Draw the mark of a method; `size` is its area in square points."""
    colour = _colour(method)
    fill, edge = (PAGE, colour) if hollow else (colour, PAGE)
    tag(ax.scatter([x], [y], s=size, marker=marker(method), color=fill, edgecolors=edge, linewidths=0.8,
                   zorder=4 if hollow else 3), method, says)  # fmt: skip


def draw_interval(ax: Axes, xs: Sequence[float], ys: Sequence[float], method: str) -> None:
    """Draw the line of an interval."""
    tag(ax.plot(xs, ys, color=_colour(method), lw=2, solid_capstyle="round", alpha=0.6, zorder=2)[0], method)


def marker(method: str) -> str:
    return MARKS.get(method, "<")


def _colour(method: str) -> str:
    return COLOURS.get(method, INK)


def rank(method: str) -> tuple[int, str]:
    """Return a sort key for the order of methods used everywhere."""
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def keys(pairs: Iterable[tuple[str, str]]) -> tuple[Key, ...]:
    """Return one key per pair of method and label."""
    found: list[Key] = []
    for method, label in pairs:
        found.append(Key(method, label, sum(key.method == method for key in found)))
    return tuple(found)


def plain(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS)


def estimate_text(e: Estimate) -> str:
    return plain(e.mean) if math.isnan(e.low) else f"{plain(e.mean)} [{plain(e.low)}, {plain(e.high)}], n = {e.n}"


def signed_ticks(axis: Axis) -> None:
    """Label an axis with signs: −1, 0, +1."""
    axis.set_major_formatter(lambda value, _: f"{round(value, 9):+g}".replace("-", MINUS) if abs(value) > 1e-9 else "0")


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis 0.1, 0.2, 0.5, 1, … in digits instead of powers of ten."""
    axis.set_major_locator(LogLocator())
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    for formatted in (axis.set_major_formatter, axis.set_minor_formatter):
        formatted(lambda value, _: f"{value:g}")
