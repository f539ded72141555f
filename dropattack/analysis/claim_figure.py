"""The picture of the claims: one difference per data set with the pooled one, and mean ranks of the methods."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dropattack.analysis.figures import COLOURS, FAINT, INK, STYLE, no_date
from dropattack.statistics import PairedDifference
from dropattack.statistics.pooled import Pooled, Ranks

COLOUR = COLOURS["dropattack"]


def draw(
    cells: Sequence[tuple[str, PairedDifference]], pooled: Pooled | None, methods: Sequence[str], ranks: Ranks | None,
    path: Path, *, scale: str, datasets: int,
) -> Path:  # fmt: skip
    """Draw the forest plot and, if there are mean ranks, these with their critical difference beside it.

    Args:
        cells: name and difference, in points, of each data set and model.
        pooled: their pooled difference.
        methods: the names of the ranks.
        ranks: mean ranks.
        path: output file; the suffix selects the format.
        scale: for the title.
        datasets: number of data sets and models that the ranks cover.
    """
    import matplotlib

    count = 1 + (ranks is not None)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * count, 1.6 + 0.36 * (len(cells) + 1)), dpi=200, layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        _forest(axes[0], cells, pooled, scale)
        if ranks is not None:
            title = f"Mean rank at {scale} over {datasets} data sets and models (1 is best)"
            _ranks(axes[1], methods, ranks, title)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path


def _forest(ax: Axes, cells: Sequence[tuple[str, PairedDifference]], pooled: Pooled | None, scale: str) -> None:
    ax.axvline(0, color="#999999", lw=1)
    names = [f"{name} (n = {d.n})" for name, d in cells]
    for i, (_, d) in enumerate(cells):
        ax.plot([d.low, d.high], [i, i], color=COLOUR, lw=2, alpha=0.55, solid_capstyle="round")
        ax.scatter([d.mean], [i], s=40, color=COLOUR, edgecolors="white", zorder=3)
    if pooled is not None:
        y = len(cells)
        names.append(f"pooled ({pooled.k} data sets)")
        ax.fill([pooled.low, pooled.mean, pooled.high, pooled.mean], [y, y - 0.25, y, y + 0.25], color=INK, lw=0)
        ax.axhline(y - 0.5, color=FAINT, lw=0.8)
    _frame(ax, names, f"DropAttack − plain training at {scale}, points", "line: 95 % interval, not corrected")


def _ranks(ax: Axes, methods: Sequence[str], ranks: Ranks, title: str) -> None:
    """Draw each method at its mean rank, with a line as long as Nemenyi's critical difference."""
    order = sorted(zip(ranks.mean, methods, strict=True))
    for i, (mean, method) in enumerate(order):
        colour = COLOURS.get(method, INK)
        ends = [mean - ranks.critical / 2, mean + ranks.critical / 2]
        ax.plot(ends, [i, i], color=colour, lw=2, alpha=0.55, solid_capstyle="butt")
        ax.scatter([mean], [i], s=40, color=colour, edgecolors="white", zorder=3)
    note = f"line: critical difference, {ranks.critical:.2f}; methods whose lines overlap are not shown to differ"
    _frame(ax, [method for _, method in order], title, note)


def _frame(ax: Axes, names: Sequence[str], title: str, note: str) -> None:
    ax.set_title(title, loc="left", color=INK, fontsize=9.5)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="x", color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(length=0, colors="#555555")
    ax.set_xlabel(note, color="#666666", fontsize=7.5)
