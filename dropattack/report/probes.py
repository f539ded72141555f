"""Grids and figures of the probes of a table's runs."""

import pandas as pd

from dropattack.analysis import probe_figures
from dropattack.analysis.probe_figures import CURVES, SEEDS
from dropattack.analysis.probes import QUANTITIES, compare_probes, probe_table
from dropattack.report.charts import figure
from dropattack.report.elements import Cell, Facets, Figure, Grid, Group, Row
from dropattack.report.grids import interval_cell


def probes(frame: pd.DataFrame) -> tuple[list[Grid], list[Figure]]:
    """Return grids and figures of runs with probes (`with_probes`), for each data set and model."""
    grids: list[Grid] = []
    figures: list[Figure] = []
    compared = compare_probes(frame)
    for (dataset, model), rows in compared.groupby(["dataset", "model"], sort=False):
        facets = Facets(dataset, model)
        grids.append(_grid(rows, facets))
        own = frame[(frame["dataset"] == dataset) & (frame["model"] == model)]
        for what, panels, note in (("accuracy on spoilt inputs", probe_figures.robustness_panels(own), CURVES),
                                   ("gradient norms", probe_figures.gradient_panels(own), SEEDS)):  # fmt: skip
            if panels:
                caption = f"{dataset} · {model}: {what}"
                figures.append(figure(caption, panels, probe_figures.methods(own), facets, note))
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
