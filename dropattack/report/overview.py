"""The comparisons of all tables at a glance: one row per data set and model, one column per method."""

from collections.abc import Sequence

from dropattack.analysis.drawing import rank
from dropattack.analysis.findings import rivals
from dropattack.analysis.formats import NOTHING, signed
from dropattack.report.elements import Cell, Facets, Grid, Group, Part, Row
from dropattack.report.gather import Found
from dropattack.report.intervals import SIGNS
from dropattack.statistics import VERDICTS, PairedDifference


def overview(found: Sequence[Found], baseline: str = "none") -> Part | None:
    """Return the overview, or None if no table compares methods."""
    tables = _with_seeds(found)
    there = {str(method) for one in tables for method in one.compared["method"]} - {baseline}
    methods = sorted(there, key=rank)
    groups = tuple(Group(f"{one.table.title} ({one.scale})", _rows(one, methods)) for one in tables)
    if not methods or not groups:
        return None
    lead = f"Test accuracy against {baseline}: mean difference in percentage points, and its verdict."
    legend = " · ".join(f"{SIGNS[word]} {word}" for word in VERDICTS)
    note = "Verdicts are Holm-corrected within a family of their table; the intervals are in the tables below."
    columns = ("data / model", *methods)
    return Part(
        "glance", "At a glance", lead, grids=[Grid("All comparisons", columns, groups, (legend, note), ("", *methods))]
    )


def against_others(found: Sequence[Found], method: str = "dropattack", removed: int = 0) -> Part | None:
    """Return a grid of the method against every other, one column each, or None if no table has both.

    `removed` is that of `rivals`.
    """
    tables = {f"{one.table.title} ({one.scale})": one for one in _with_seeds(found)}
    plans = {name: one.table.plan for name, one in tables.items()}
    pairs = rivals({name: one.frame for name, one in tables.items()}, method, plans, removed)
    others = sorted({one.other for one in pairs}, key=rank)
    groups = []
    for name in tables:
        own = [one for one in pairs if one.table == name]
        rows = []
        for dataset, model in dict.fromkeys((one.dataset_label, one.model) for one in own):
            here = [one for one in own if (one.dataset_label, one.model) == (dataset, model)]
            cells = [
                _verdict_cell([(one.difference, one.verdict) for one in here if one.other == other]) for other in others
            ]
            facets = Facets(here[0].dataset, model)
            rows.append(Row((Cell(f"{dataset} / {model}", "text"), *cells), facets))
        if rows:
            groups.append(Group(name, tuple(rows)))
    if not groups:
        return None
    name = {"dropattack": "DropAttack"}.get(method, method)
    counted = f"{len(pairs)}{f' and {removed} removed' if removed else ''}"
    lead = f"Test accuracy of {name} minus that of each other method: mean difference in percentage points."
    note = f"Paired by seed; verdicts on {method} are Holm-corrected over all {counted} comparisons of this table."
    grid = Grid("Comparisons with the other methods", ("data / model", *others), tuple(groups), (note,), ("", *others))
    return Part("others", f"{name} against the other methods", lead, grids=[grid])


def _with_seeds(found: Sequence[Found]) -> list[Found]:
    """Return the tables that compare methods over several seeds."""
    return [one for one in found if one.table.kind == "comparison" and one.table.seeds > 1]


def _rows(one: Found, methods: Sequence[str]) -> tuple[Row, ...]:
    made = []
    for (dataset, model), rows in one.compared.groupby(["dataset_label", "model"], sort=False):
        cells = [Cell(f"{dataset} / {model}", "text")]
        for method in methods:
            own = rows[rows["method"] == method]
            cells.append(_verdict_cell(list(zip(own["difference"], own["verdict"], strict=True))))
        made.append(Row(tuple(cells), Facets(rows.iloc[0]["dataset"], model)))
    return tuple(made)


def _verdict_cell(answers: Sequence[tuple[PairedDifference, str]]) -> Cell:
    """Show one difference with its verdict, or one per setting if a method has several."""
    if len(answers) == 1 and answers[0][0].n:
        return Cell(signed(answers[0][0].mean), "said", says=answers[0][1])
    return Cell(f"{len(answers)} settings" if len(answers) > 1 else NOTHING)
