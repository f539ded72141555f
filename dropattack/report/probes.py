"""Grids and figures of the probes of a table's runs."""

import math
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from dropattack.analysis.probe_figures import CLEAN, NAMES, NORMS
from dropattack.analysis.probes import QUANTITIES, compare_probes, probe_table, with_probes
from dropattack.report.elements import Cell, Facets, Figure, Grid, Group, Key, Row, rank
from dropattack.report.grids import interval_cell
from dropattack.report.history import curve_panel
from dropattack.report.svg import Axis, Panel, around
from dropattack.statistics import Estimate, estimate


def probes(frame: pd.DataFrame, folder: Path) -> tuple[list[Grid], list[Figure]]:
    """Return grids and figures of the runs in `frame` that have probes in `folder`, for each data set and model.

    Raises:
        UserError: a file is not a probe file.
    """
    frame = with_probes(frame, folder)
    grids: list[Grid] = []
    figures: list[Figure] = []
    if frame.empty:
        return grids, figures
    compared = compare_probes(frame)
    for (dataset, model), rows in compared.groupby(["dataset", "model"], sort=False):
        facets = Facets(dataset, model)
        grids.append(_grid(rows, facets))
        own = frame[(frame["dataset"] == dataset) & (frame["model"] == model)]
        figures += [figure for figure in (_robustness(own, facets), _gradients(own, facets)) if figure]
    return grids, figures


def _grid(rows: pd.DataFrame, facets: Facets) -> Grid:
    table = probe_table(rows)
    # Same rows and order as `probe_table`.
    order = [q.key for q in QUANTITIES]
    shown = sorted((r for r in rows.itertuples() if r.quantity.key in order), key=lambda r: order.index(r.quantity.key))
    groups: dict[str, list[Row]] = {}
    for row, texts in zip(shown, table.rows, strict=True):
        family = [r.difference for r in shown if r.quantity.key == row.quantity.key]
        picture = interval_cell(row.difference, family, row.method, texts[4])
        cells = (*(Cell(t, "text" if i == 0 else "number") for i, t in enumerate(texts[1:5])), picture, Cell(texts[5]),
                 Cell(texts[6], "verdict"))  # fmt: skip
        groups.setdefault(row.quantity.label, []).append(Row(cells, facets.of(row.method)))
    columns = (*table.columns[1:5], "", *table.columns[5:])
    made = tuple(Group(label, tuple(own), facets) for label, own in groups.items())
    return Grid(f"{facets.dataset} · {facets.model}: the numbers", columns, made, table.notes)


def _robustness(frame: pd.DataFrame, facets: Facets) -> Figure | None:
    panels, keys = [], _keys(frame)
    for kind in NAMES:
        prefix, clean = f"robustness.{kind}.", CLEAN.get(kind, 0.0)
        names = sorted({key for run in frame["probes"] for key in run if key.startswith(prefix)})
        if not names:
            continue
        curves: list[tuple[Key, list[tuple[float, Estimate]]]] = []
        for key in keys:
            runs = frame[frame["method"] == key.method]
            points = [(clean, _over_seeds(runs, "robustness.clean"))]
            points += [(float(name.removeprefix(prefix)), _over_seeds(runs, name)) for name in names]
            curve = [(x, e) for x, e in sorted(points, key=lambda p: p[0]) if e.n]
            if curve:
                curves.append((key, curve))
        panels.append(_corrupted(kind, curves))
    if not panels:
        return None
    note = "Accuracy in percent. Line: mean over the seeds; band: 95 % interval."
    return Figure(f"{facets.dataset} · {facets.model}: accuracy on spoilt inputs", tuple(panels), keys, facets, note)


def _corrupted(kind: str, curves: list[tuple[Key, list[tuple[float, Estimate]]]]) -> Markup:
    label, values = NAMES[kind], [e.mean for _, curve in curves for _, e in curve]
    x = around([p for _, curve in curves for p, _ in curve], margin=0.04)
    if kind in CLEAN:  # from clean to spoilt, like the other panels
        x = Axis(x.high, x.low, x.label, at=tuple(value for value, _ in x.ticks()))
    return curve_panel(label, curves, x_label=kind, y=around(values, margin=0.1), x=x)


def _gradients(frame: pd.DataFrame, facets: Facets) -> Figure | None:
    panels, keys = [], _keys(frame)
    for kind, label in NORMS.items():
        name = f"gradients.{kind}"
        found = [(key, [run[name] for run in frame[frame["method"] == key.method]["probes"] if name in run])
                 for key in keys]  # fmt: skip
        found = [(key, seeds) for key, seeds in found if seeds]
        if found:
            panels.append(_norms(label, found))
    if not panels:
        return None
    note = "Small mark: one seed; large mark: mean; line: 95 % interval, clipped at the edge of the figure."
    return Figure(f"{facets.dataset} · {facets.model}: gradient norms", tuple(panels), keys, facets, note)


def _norms(label: str, found: list[tuple[Key, list[float]]]) -> Markup:
    highest = 1.25 * max(value for _, seeds in found for value in seeds) or 1.0
    count = len(found)
    x = Axis(-0.5, count - 0.5, at=tuple(float(i) for i in range(count)), names=tuple(key.label for key, _ in found))
    panel = Panel(label, x, Axis(0.0, highest), width=max(300, 70 + 62 * count))
    said = []
    for i, (key, seeds) in enumerate(found):
        e = estimate(seeds)
        if not math.isnan(e.low):
            panel.interval(i, max(e.low, 0.0), min(e.high, highest), key.method)
        panel.mark(i, e.mean, key.method, size=4.6)
        for value in seeds:
            panel.mark(i, value, key.method, size=1.9, hollow=True, shift=-9)
        said.append(f"{key.label} {e.mean:.4g}")
    return panel.svg("; ".join(said))


def _over_seeds(runs: pd.DataFrame, key: str) -> Estimate:
    """Estimate over seeds, in percent."""
    return estimate([100 * probes[key] for probes in runs["probes"] if key in probes])


def _keys(frame: pd.DataFrame) -> tuple[Key, ...]:
    return tuple(Key(method, method) for method in sorted(frame["method"].unique(), key=rank))
