"""Build the sections of the page from what was found."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropattack.analysis.compare import provenance as origin
from dropattack.analysis.data_efficiency import data_efficiency_table, heading
from dropattack.analysis.drawing import rank
from dropattack.analysis.formats import Table
from dropattack.analysis.tables import comparison_table
from dropattack.errors import UserError, counted
from dropattack.report import cards, charts, cost, gather, grids
from dropattack.report.elements import Facets, Part
from dropattack.report.gather import Found, TableSpec
from dropattack.report.intervals import SIGNS

# Exceptions raised by malformed input files, which are listed as left out while the rest is shown.
UNUSABLE = (UserError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def tables(found: Sequence[Found], asked: Sequence[TableSpec], empty: dict[str, list[str]]) -> Part:
    """Build one section per table, and a sentence for each table without runs."""
    part = Part("tables", "Tables", parts=[_table(one, found) for one in found if one.table.seeds > 1])
    there = {one.table.name for one in found}
    for table in asked:
        if table.name not in there:
            part.missing.append(
                f"“{table.title}” has no finished run yet. Run `make table-{table.name} SCALE=mini` to make it."
            )
    part.left_out += [f"{name}: {left}" for name, lines in empty.items() for left in lines]
    return part


def single_runs(found: Sequence[Found]) -> Part | None:
    """Build the tables with one seed per cell, which go to the back; return None if there are none."""
    lead = "Tables with one seed per cell: they show that it runs, and what it costs. They decide nothing."
    made = [_table(one, found) for one in found if one.table.seeds == 1]
    return Part("single", "Single runs", lead=lead, parts=made) if made else None


def provenance(found: Sequence[Found]) -> Part | None:
    """Build the table of code, versions and machines of each table; return None if there are no runs."""
    if not found:
        return None
    rows = [(f"{one.table.title} ({one.scale})", *map("; ".join, origin(one.frame).values())) for one in found]
    made = grids.plain_grid("What each table ran on", ("table", "code", "torch", "hardware"), rows, text=(0, 1, 2, 3))
    return Part("provenance", "Provenance", lead="Commit, torch version and machine of every run.", grids=[made])


def _table(one: Found, found: Sequence[Found]) -> Part:
    table, compared = one.table, one.compared
    part = Part(f"table-{one.scale}-{table.name}", f"{table.title} ({one.scale})", lead=verdicts(one))
    part.grids.append(
        grids.comparison(compared, "Comparison with none", (), seeds=table.seeds, published=one.published,
                         plan=table.plan)
    )  # fmt: skip
    if table.kind == "curve" and table.x:
        less = data_efficiency_table(one.frame, table.x, margin=table.plan.margin)
        part.grids.append(grids.plain_grid(heading(table.x), less.columns, less.rows, text=(0, 1), notes=less.notes))
        part.figures += charts.accuracy_against(one.frame, table.x)
    elif table.kind == "heatmap" and table.x and table.y:
        part.figures += charts.heat_map(compared, table.x, table.y)
    else:
        part.figures += charts.gain_against_cost(compared)
        if figures := charts.over_epochs(one.frame, compared):
            part.parts.append(Part(f"{part.id}-curves", "Over the epochs", figures=figures))
    beyond = _probes(f"{part.id}-beyond", one, found)
    if beyond.figures or beyond.folded:
        part.parts.append(beyond)
    else:
        part.missing, part.left_out = beyond.missing, beyond.left_out
    part.left_out += [str(left) for left in one.records.left_out]
    return part


def verdicts(one: Found) -> str:
    """Count the verdicts of all comparisons."""
    count = Counter(verdict for verdict in one.compared["verdict"] if verdict)
    runs = f"{counted(len(one.frame), 'run')} of {counted(len(one.compared), 'cell')}."
    if not count:
        return f"{runs} No comparisons yet."
    ends = ", ".join(f"{count[word]} {SIGNS[word]} {word}" for word in SIGNS if count[word])
    return f"{runs} Of {counted(sum(count.values()), 'comparison')} with none: {ends}."


def _probed_elsewhere(one: Found, found: Sequence[Found]) -> set[str]:
    """Return the ids of probed runs that another table shows: the one that has most of them."""
    larger = [other for other in found if len(other.probed) > len(one.probed)]
    return {run for other in larger for run in other.probed["run_id"]}


def _probes(id: str, one: Found, found: Sequence[Found]) -> Part:
    part = Part(id, "Beyond accuracy")
    try:
        own = one.probed[~one.probed["run_id"].isin(_probed_elsewhere(one, found))]
        if own.empty:
            part.missing.append(
                "Flatness, gradients, robustness and calibration have not been measured. Run "
                f"`make probes TABLE={one.table.name} SCALE={one.scale}` to measure them."
            )
            return part
        from dropattack.report.probes import probes  # slow import (1 s)

        part.folded, part.figures = probes(own)
    except UNUSABLE as error:
        part.left_out.append(f"probes: {error}")
    return part


def landscapes(results: Path) -> Part:
    found, left_out = gather.landscapes(results)
    lead = "The loss around the tested weights, on one scale for networks side by side."
    part = Part("landscapes", "Landscapes", lead=lead if found else "", left_out=left_out)
    if found:
        from dropattack.report.landscapes import landscape_figures, together

        readable = []
        for content in found:
            try:
                if not together([content])[0][0]["done"]:
                    raise UserError("it is unfinished: run the same command again")
                readable.append(content)
            except UNUSABLE as error:
                part.left_out.append(f"the {content['kind']} of {content['run']}: {error}")
        for contents in together(readable):
            try:
                part.figures += landscape_figures(contents)
            except UNUSABLE as error:
                part.left_out.append(f"landscapes of {contents[0]['description'].get('dataset')}: {error}")
    if not part.figures:
        part.missing.append(
            "No landscapes yet. Run `dropattack landscape outputs/tables/records/mnist-cnn-*-s0-*.json` "
            "to make those of one data set."
        )
    return part


def step_costs(results: Path) -> Part:
    part = Part("cost", "What a step costs")
    read, part.left_out = gather.benchmarks(results)
    for name, content in read:
        try:
            head, rows, held = cost.HEAD, cost.rows(content), cost.promises(content)
            promised = ("promise", "measured", "promised", "")
            part.parts.append(
                Part(f"cost-{name}", name, lead=cost.heading(content), grids=[
                    grids.plain_grid(f"Cost of a step, {name}", head, rows, text=(0, 3)),
                    *([grids.plain_grid(f"Promises, {name}", promised, held, text=(0,))] if held else []),
                ])
            )  # fmt: skip
        except UNUSABLE as error:
            part.left_out.append(f"{name}: {type(error).__name__}: {error}")
    if not part.parts:
        part.missing.append("No benchmarks yet. Run `make bench` to measure the cost of a step.")
    return part


def kills(results: Path) -> Part:
    part = Part("kills", "Runs that were killed and continued")
    path = results / "survival" / "kills.md"
    if path.is_file():
        part.html, part.details = cards.lead_and_rest(path.read_text(encoding="utf-8", errors="replace"))
        part.details_title = "Every kill"
    else:
        part.missing.append('Not run yet. Run `make kill-test ARGS="--json results/survival/kills.json"` to run it.')
    return part


def methods(docs: Path, found: Sequence[Found]) -> Part:
    """Build one section per method: its card, and its rows in every table."""
    part = Part("methods", "Methods", lead="What each method is, and its results in every table.")
    tables: dict[str, tuple[Any, Table]] = {}
    for one in found:
        table = comparison_table(one.compared, seeds=one.table.seeds, plan=one.table.plan)
        tables[f"{one.table.title} ({one.scale})"] = (one.compared, table)
    files = {path.stem: path for path in (docs / "methods").glob("*.md") if path.stem != "README"}
    ran = {str(method) for one in found for method in one.compared["method"]}
    for method in sorted(files.keys() | ran, key=rank):
        own = Part(f"method-{method}", method, facets=Facets(method=method))
        if file := files.get("compose" if "+" in method else method):
            own.lead, own.details = cards.card(file.read_text(encoding="utf-8"))
            own.details_title = f"The card of {method}: equation, settings, cost, use, pitfalls"
        else:
            own.missing.append(f"`docs/methods/{method}.md` does not exist.")
        if made := grids.of_method(method, tables):
            own.grids.append(made)
        else:
            own.missing.append("No table has a finished run of this method yet.")
        part.parts.append(own)
    return part
