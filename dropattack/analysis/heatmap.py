"""Heat map of two settings of a method: one square per pair, coloured by the gain over the baseline."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from dropattack.analysis.figures import INK, STYLE, no_date
from dropattack.analysis.records import is_chosen
from dropattack.analysis.tables import signed
from dropattack.errors import UserError
from dropattack.statistics import BETTER, WORSE


def heatmap(compared: pd.DataFrame, x: str, y: str, path: Path, *, title: str, baseline: str = "none") -> Path:
    """Draw the mean paired difference to the baseline over two settings, such as `reg.epsilon` and `reg.p`.

    The runs shown agree in every other setting of the method; if there are several such groups, the largest is shown. A
    frame around a square means that its difference is significant after correction over the whole table.

    Args:
        compared: the result of `compare(…)` for one data set and model.
        x: the setting on the horizontal axis.
        y: the setting on the vertical axis.
        path: output file; the suffix selects the format.
        title: of the figure.
        baseline: the method that the others are compared with.

    Raises:
        UserError: no method has both settings.
    """
    rows = same_settings(compared[compared["method"] != baseline], x, y)
    values = {(_number(r.settings[x]), _number(r.settings[y])): r for r in rows.itertuples()}
    xs, ys = (sorted({key[i] for key in values}) for i in (0, 1))
    reach = shown_reach([r.difference.mean for r in values.values() if r.difference.n])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 1.05 * len(xs), 1.8 + 0.75 * len(ys)), dpi=200, layout="constrained")
        ax = figure.subplots()
        grid = [[values[a, b].difference.mean if (a, b) in values else float("nan") for a in xs] for b in ys]
        image = ax.imshow(grid, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach), origin="lower", aspect="auto")
        for i, a in enumerate(xs):
            for j, b in enumerate(ys):
                if (a, b) in values:
                    _square(ax, i, j, values[a, b], reach)
        ax.set_xticks(range(len(xs)), [f"{a:g}" for a in xs])
        ax.set_yticks(range(len(ys)), [f"{b:g}" for b in ys])
        ax.set_xlabel(x.rpartition(".")[2], color=INK)
        ax.set_ylabel(y.rpartition(".")[2], color=INK)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        bar = figure.colorbar(image, label=f"difference to {baseline}, points", extend="both", extendfrac=0.03)
        bar.outline.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel("framed: significant after Holm's correction over the table", x=0.01, ha="left", fontsize=7.5,
                         color="#666666")  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path


def shown_reach(means: Sequence[float]) -> float:
    """Return the largest difference on the colour scale, such that a few collapsed squares do not flatten the rest."""
    sizes = sorted(map(abs, means)) or [0.0]
    return max(0.01, min(sizes[-1], 3 * sizes[len(sizes) // 2]))


def same_settings(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the largest group of rows that agree in every setting of the method except `x` and `y`."""
    rows = rows[[x in settings and y in settings for settings in rows["settings"]]]
    if rows.empty:
        raise UserError(f"cannot draw a heat map: no finished run of a method has both {x} and {y}")
    other = [str({k: v for k, v in s.items() if is_chosen(k) and k not in (x, y)}) for s in rows["settings"]]
    most = Counter(other).most_common(1)[0][0]
    return rows[[text == most for text in other]]


def _number(value: Any) -> float:
    return float(value)


def _square(ax: Any, i: int, j: int, row: Any, reach: float) -> None:
    d = row.difference
    colour = "white" if d.n and abs(d.mean) > 0.6 * reach else INK
    ax.text(i, j, f"{signed(d.mean)}\nn = {d.n}" if d.n else "no pair", ha="center", va="center", color=colour,
            fontsize=8)  # fmt: skip
    if row.verdict in (BETTER, WORSE):
        ax.add_patch(matplotlib.patches.Rectangle((i - 0.46, j - 0.46), 0.92, 0.92, fill=False, ec=INK, lw=1.6))
