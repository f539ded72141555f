"""Figures of a table: gain against cost, accuracy against a setting, or gain over two settings."""

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from dropattack.analysis.heatmap import same_settings, shown_reach
from dropattack.analysis.records import with_number
from dropattack.analysis.tables import difference_and_interval
from dropattack.analysis.tables import signed as two_digits
from dropattack.report.colours import contrast, diverging
from dropattack.report.elements import Facets, Figure, Key, rank
from dropattack.report.history import curve_panel
from dropattack.report.intervals import reach
from dropattack.report.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, Panel, around, signed, times
from dropattack.statistics import BETTER, WORSE, estimate


def gain_against_cost(compared: pd.DataFrame, baseline: str = "none") -> list[Figure]:
    """Draw each method's gain against its cost per step, one figure per data set and model with several seeds."""
    figures = []
    for (dataset, model), rows in compared.groupby(["dataset_label", "model"], sort=False):
        pairs = rows[(rows["method"] != baseline) & (rows["pairs"] > 1) & rows["cost"].notna()]
        if pairs.empty:
            continue
        keys = tuple(Key(row.method, str(row.method_label)) for row in pairs.itertuples())
        note = "Small mark: one seed; large mark: mean; line: 95 % interval, clipped at the edge of the figure."
        figures.append(
            Figure(f"{dataset} · {model}: gain against cost", (_costs(pairs, baseline),), keys,
                   Facets(rows.iloc[0]["dataset"], model), note)
        )  # fmt: skip
    return figures


def _costs(rows: pd.DataFrame, baseline: str) -> Markup:
    differences = list(rows["difference"])
    seeds = [value for d in differences for value in d.values]
    room = reach(differences)
    ends = [min(max(end, -room), room) for d in differences for end in (d.low, d.high) if math.isfinite(end)]
    y = around([0.0, *seeds, *ends], form=signed)
    x = around([1.0, *rows["cost"]], margin=0.1, label=f"time of a step, relative to {baseline}", form=times)
    panel = Panel(f"test accuracy, difference to {baseline}, points", x, y, width=440, height=280)
    panel.rule(0.0)
    taken: list[tuple[float, float]] = []
    for row in rows.itertuples():
        d, method = row.difference, row.method
        if math.isfinite(d.low):
            panel.interval(row.cost, max(d.low, y.low), min(d.high, y.high), method)
        panel.mark(row.cost, d.mean, method, size=5, says=f"{row.method_label}: {difference_and_interval(d)}")
        for value in d.values:
            panel.mark(row.cost, value, method, size=1.9, hollow=True, shift=-9)
        _name(panel, row, taken)
    said = "; ".join(f"{r.method_label} {difference_and_interval(r.difference)} at {r.cost:.1f}×"
                     for r in rows.itertuples())  # fmt: skip
    return panel.svg(said)


def _name(panel: Panel, row: Any, taken: list[tuple[float, float]]) -> None:
    """Put the name beside its mark, moved down until it covers no other name."""
    x, y = panel.px(row.cost) + 9, panel.py(row.difference.mean) - 5
    left = x + 6.6 * len(row.method_label) > panel.width
    while any(abs(y - other) < 12 and abs(x - place) < 80 for place, other in taken):
        y += 12
    taken.append((x, y))
    panel.words(x - 18 if left else x, y, row.method_label, method=row.method, anchor="end" if left else "start")


def accuracy_against(frame: pd.DataFrame, setting: str) -> list[Figure]:
    """Draw test accuracy against a setting: one curve per method, one figure per data set and model."""
    frame = with_number(frame, setting)
    figures = []
    for (dataset, model), rows in frame.groupby(["dataset", "model"], sort=True):
        curves = []
        for method in sorted(rows["method"].unique(), key=rank):
            cells = rows[rows["method"] == method].groupby("x")
            curves.append((Key(method, method), [(x, estimate((100 * cell["test_accuracy"]).tolist()))
                                                 for x, cell in cells]))  # fmt: skip
        values = [v for _, curve in curves for _, e in curve for v in (e.mean, e.low, e.high)]
        x = around(rows["x"], label=setting.rpartition(".")[2], margin=0.04)
        panel = curve_panel("test accuracy, %", curves, x_label=x.label, y=around(values), x=x)
        keys, note = tuple(key for key, _ in curves), "Line: mean over the seeds; band: 95 % interval."
        caption = f"{dataset} · {model}: accuracy against {x.label}"
        figures.append(Figure(caption, (panel,), keys, Facets(dataset, model), note))
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def heat_map(compared: pd.DataFrame, x: str, y: str, baseline: str = "none") -> list[Figure]:
    """Draw the mean paired difference over two settings; a framed square is significant after Holm's correction."""
    figures = []
    for (dataset, model), rows in compared[compared["method"] != baseline].groupby(["dataset", "model"], sort=True):
        rows = rows[[_is_number(own.get(x)) and _is_number(own.get(y)) for own in rows["settings"]]]
        if rows.empty:
            continue
        cells = same_settings(rows, x, y)
        facets = Facets(dataset, model, cells.iloc[0]["method"] if cells["method"].nunique() == 1 else "")
        note = f"Difference to {baseline} in points, mean over n pairs. Framed: significant after Holm's correction."
        figures.append(
            Figure(f"{dataset} · {model}: gain over two settings", (_squares(cells, x, y),), (), facets, note)
        )
    return figures


def _squares(rows: pd.DataFrame, x: str, y: str) -> Markup:
    cells = {(float(row.settings[x]), float(row.settings[y])): row for row in rows.itertuples()}
    xs, ys = (sorted({key[i] for key in cells}) for i in (0, 1))
    farthest = shown_reach([row.difference.mean for row in cells.values() if row.difference.n])
    side, high = 78, 48
    panel = Panel(
        f"{y.rpartition('.')[2]}, upwards", _steps(xs, x.rpartition(".")[2]), _steps(ys, ""),
        width=LEFT + RIGHT + side * len(xs), height=TOP + BOTTOM + high * len(ys),
    )  # fmt: skip
    said = []
    for (a, b), row in sorted(cells.items()):
        place = LEFT + side * xs.index(a), TOP + high * (len(ys) - 1 - ys.index(b))
        _square(panel, row, place, (side, high), farthest)
        said.append(f"{panel.x.label} {a:g}, {y.rpartition('.')[2]} {b:g}: {difference_and_interval(row.difference)}")
    return panel.svg("; ".join(said))


def _square(panel: Panel, row: Any, place: tuple[float, float], size: tuple[float, float], farthest: float) -> None:
    (x, y), (width, height), d = place, size, row.difference
    colour = diverging(d.mean, farthest) if d.n else "#eeeeee"
    framed = " framed" if row.verdict in (BETTER, WORSE) else ""
    shape = Markup('<rect class="square{}" x="{}" y="{}" width="{}" height="{}" fill="{}"/>')
    panel.add(shape.format(framed, x + 1.5, y + 1.5, width - 3, height - 3, colour))
    ink = "dark" if contrast(colour, "#1a1a1a") > contrast(colour, "#ffffff") else "light"
    first, second = (two_digits(d.mean), f"n = {d.n}") if d.n else ("no pair", "")
    panel.words(x + width / 2, y + height / 2 - 1, first, kind=f"in-{ink} strong", anchor="middle")
    panel.words(x + width / 2, y + height / 2 + 13, second, kind=f"in-{ink}", anchor="middle")


def _steps(values: list[float], label: str) -> Axis:
    """Return an axis with one equal step per value, labelled in its middle."""
    count = len(values)
    return Axis(0, count, label, at=tuple(i + 0.5 for i in range(count)), names=tuple(f"{v:g}" for v in values))
