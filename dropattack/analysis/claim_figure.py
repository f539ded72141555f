"""The picture of the claims: one difference per data set with the pooled one, and mean ranks of the methods."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from dropattack.analysis.drawing import INK, Panel, draw_interval, mark, save
from dropattack.analysis.formats import difference_and_interval, signed
from dropattack.statistics import PairedDifference
from dropattack.statistics.pooled import Pooled, Ranks

NOTE = "mark: mean over the seeds, paired with plain training · line: 95 % interval, not corrected"


def claim_figure(
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

    Returns:
        `path`.
    """
    panels, note = [forest_panel(cells, pooled, title=f"DropAttack − plain training at {scale}, points")], NOTE
    if ranks is not None:
        panels.append(_rank_panel(methods, ranks, f"Mean rank over {datasets} data sets and models (1 is best)"))
        note += f" · of a rank: critical difference, {ranks.critical:.2f}; lines that overlap show no difference"
    return save(panels, path, title=f"DropAttack at {scale} scale", note=note)


def forest_panel(cells: Sequence[tuple[str, PairedDifference]], pooled: Pooled | None, *, title: str) -> Panel:
    """Describe the chart of the difference on each data set and the pooled one."""
    rows = [(f"{name} (n = {d.n})", d.mean, d.low, d.high, "dropattack") for name, d in cells]
    said = [f"{name} {difference_and_interval(d)}" for name, d in cells]
    if pooled is not None:
        rows.append((f"pooled ({pooled.k} data sets)", pooled.mean, pooled.low, pooled.high, "none"))
        said.append(f"pooled {signed(pooled.mean)} [{signed(pooled.low)}, {signed(pooled.high)}]")
    return Panel(title, "", partial(_rows, rows=rows, said=said, zero=True), "; ".join(said), width=5.2,
                 height=0.9 + 0.36 * len(rows), left=1.7, grid="x")  # fmt: skip


def _rank_panel(methods: Sequence[str], ranks: Ranks, title: str) -> Panel:
    """Describe the chart of mean ranks, each with a line as long as Nemenyi's critical difference."""
    half = ranks.critical / 2
    order = sorted(zip(ranks.mean, methods, strict=True))
    rows = [(method, mean, mean - half, mean + half, method) for mean, method in order]
    said = [f"{method} {mean:.2f}" for mean, method in order]
    return Panel(title, "", partial(_rows, rows=rows, said=said), "; ".join(said), width=5.2,
                 height=0.9 + 0.36 * len(rows), left=1.7, grid="x")  # fmt: skip


def _rows(
    ax: Axes, rows: Sequence[tuple[str, float, float, float, str]], said: Sequence[str], zero: bool = False
) -> None:  # fmt: skip
    if zero:
        ax.axvline(0, color="#999999", lw=1)
    for i, ((_, mean, low, high, method), words) in enumerate(zip(rows, said, strict=True)):
        draw_interval(ax, [low, high], [i, i], method)
        mark(ax, mean, i, method, size=45, says=words)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", labelcolor=INK)
