"""Heat map of two settings of a method: one square per pair, coloured by the gain over the baseline."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle

from dropattack.analysis.drawing import INK, PAGE, WHITE, Panel, save
from dropattack.analysis.formats import difference_and_interval, signed
from dropattack.analysis.settings import is_chosen
from dropattack.errors import UserError
from dropattack.statistics import BETTER, WORSE

NOTE = "mean paired difference to {baseline} in points · framed: significant after Holm's correction over the table"


def heatmap(compared: pd.DataFrame, x: str, y: str, path: Path, *, title: str, baseline: str = "none") -> Path:
    """Draw the mean paired difference to the baseline over two settings, such as `reg.epsilon` and `reg.p`.

    The runs shown agree in every other setting of the method; if there are several such groups, the largest is shown. A
    frame around a square means that its difference is significant after correction over the whole table.

    Args:
        compared: the result of `compare(…)`; each data set and model has a panel.
        x: the setting on the horizontal axis.
        y: the setting on the vertical axis.
        path: output file; the suffix selects the format.
        title: of the figure.
        baseline: the method that the others are compared with.

    Returns:
        `path`.

    Raises:
        UserError: no method has both settings.
    """
    rows = compared[compared["method"] != baseline]
    rows = rows[[x in settings and y in settings for settings in rows["settings"]]]
    if rows.empty:
        raise UserError(f"cannot draw a heat map: no finished run of a method has both {x} and {y}")
    groups = [(f"{data} · {model}", same_settings(own, x, y)) for (data, model), own in rows.groupby(
        ["dataset_label", "model"], sort=True)]  # fmt: skip
    panels = [square_panel(own, x, y, name if len(groups) > 1 else "") for name, own in groups]
    return save(panels, path, title=title, note=NOTE.format(baseline=baseline))


def square_panel(rows: pd.DataFrame, x: str, y: str, title: str = "") -> Panel:
    """Describe a panel of `heatmap`; `rows` are those of `same_settings`."""
    cells = {(float(row.settings[x]), float(row.settings[y])): row for row in rows.itertuples()}
    xs, ys = (sorted({key[i] for key in cells}) for i in (0, 1))
    names = x.rpartition(".")[2], y.rpartition(".")[2]
    farthest = shown_reach([row.difference.mean for row in cells.values() if row.difference.n])

    def draw(ax: Axes) -> None:
        means = [[cells[a, b].difference.mean if (a, b) in cells else float("nan") for a in xs] for b in ys]
        ax.pcolormesh(means, cmap="RdBu", norm=TwoSlopeNorm(0, -farthest, farthest), edgecolors=PAGE, linewidth=2)
        for (a, b), row in sorted(cells.items()):
            _square(ax, xs.index(a), ys.index(b), row, farthest)
        ax.set_xticks([i + 0.5 for i in range(len(xs))], [f"{a:g}" for a in xs])
        ax.set_yticks([i + 0.5 for i in range(len(ys))], [f"{b:g}" for b in ys])
        ax.set_xlabel(names[0], color=INK)
        ax.spines[:].set_visible(False)

    said = "; ".join(
        f"{names[0]} {a:g}, {names[1]} {b:g}: {difference_and_interval(row.difference)}"
        for (a, b), row in sorted(cells.items())
    )
    width, height = 0.62 + 0.9 * len(xs), 0.78 + 0.55 * len(ys)
    return Panel(title, names[1], draw, said, width, height, grid="")


def shown_reach(means: Sequence[float]) -> float:
    """Return the largest difference on the colour scale, such that a few collapsed squares do not flatten the rest."""
    sizes = sorted(map(abs, means)) or [0.0]
    return max(0.01, min(sizes[-1], 3 * sizes[len(sizes) // 2]))


def same_settings(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the largest group of rows, which have both, that agree in every setting of the method but `x` and `y`."""
    other = [str({k: v for k, v in s.items() if is_chosen(k) and k not in (x, y)}) for s in rows["settings"]]
    most = Counter(other).most_common(1)[0][0]
    return rows[[text == most for text in other]]


def _square(ax: Axes, i: int, j: int, row: Any, farthest: float) -> None:
    d = row.difference
    colour = WHITE if d.n and abs(d.mean) > 0.6 * farthest else "#1a1a1a"
    ax.text(i + 0.5, j + 0.5, f"{signed(d.mean)}\nn = {d.n}" if d.n else "no pair", ha="center", va="center",
            color=colour, fontsize=8.5)  # fmt: skip
    if row.verdict in (BETTER, WORSE):
        ax.add_patch(Rectangle((i + 0.03, j + 0.03), 0.94, 0.94, fill=False, ec=INK, lw=2))
