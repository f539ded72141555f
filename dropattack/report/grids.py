"""Convert tables of `dropattack.analysis` to grids: the same text in every cell, plus a picture of each difference."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dropattack.analysis.figures import reach
from dropattack.analysis.formats import Table
from dropattack.analysis.tables import Published, comparison_table
from dropattack.report.elements import Cell, Facets, Grid, Group, Row
from dropattack.report.intervals import interval_picture
from dropattack.statistics import PairedDifference, Plan


def comparison(
    compared: pd.DataFrame, caption: str, notes: tuple[str, ...], *, seeds: int, published: Published | None,
    plan: Plan | None = None,
) -> Grid:  # fmt: skip
    """Convert the table of `compare(…)` with the text of `table.md`, grouped by data set and model."""
    table = comparison_table(compared, notes, seeds=seeds, published=published, plan=plan)
    at = difference_column(table)
    groups: dict[str, list[Row]] = {}
    about: dict[str, Facets] = {}
    for row, texts in _rows(compared, table):
        own = _cells(row, texts, at, compared[compared["context"] == row.context])
        about[texts[0]] = Facets(row.dataset, row.model)
        groups.setdefault(texts[0], []).append(Row(own[1:], about[texts[0]].of(row.method)))
    columns = (*table.columns[1 : at + 1], "", *table.columns[at + 1 :])
    made = tuple(Group(name, tuple(rows), about[name]) for name, rows in groups.items())
    return Grid(caption, columns, made, (SCALE, *table.notes))


SCALE = (
    "The small picture: mark, the mean difference; line, its 95 % interval (clipped at an arrow); vertical line, no "
    "difference. Each data set and model has its own scale."
)


def of_method(method: str, tables: Mapping[str, tuple[pd.DataFrame, Table]]) -> Grid | None:
    """Collect a method's rows of every table, below the table's name; return None if there are none."""
    groups: list[Group] = []
    columns: tuple[str, ...] = ()
    for name, (compared, table) in tables.items():
        at = difference_column(table)
        rows = [
            Row(_cells(row, texts, at, compared[compared["context"] == row.context]),
                Facets(row.dataset, row.model, method))
            for row, texts in _rows(compared, table) if row.method == method
        ]  # fmt: skip
        if rows:
            groups.append(Group(name, tuple(rows)))
            columns = (*table.columns[: at + 1], "", *table.columns[at + 1 :])
    return Grid(f"{method} in all tables", columns, tuple(groups)) if groups else None


def interval_cell(difference: PairedDifference, family: Sequence[PairedDifference], method: str, words: str) -> Cell:
    """Draw a difference on the scale of its `family`, the differences it is compared with by eye."""
    if not difference.n:
        return Cell("", "picture")
    says = f"{method}: difference {words}"
    return Cell("", "picture", interval_picture(difference, reach(family), method, says))


def plain_grid(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = (),
    notes: tuple[str, ...] = (),
) -> Grid:  # fmt: skip
    """Convert rows of text; the columns `text` are left-aligned."""
    made = tuple(
        Row(tuple(Cell(words, "text" if i in text else "number") for i, words in enumerate(row))) for row in rows
    )
    return Grid(caption, tuple(columns), (Group("", made),), notes)


def difference_column(table: Table) -> int:
    return next(i for i, name in enumerate(table.columns) if name.startswith("difference to"))


def _rows(compared: pd.DataFrame, table: Table) -> Any:
    return zip(compared.itertuples(), table.rows, strict=True)


def _cells(row: Any, texts: Sequence[str], at: int, family: pd.DataFrame) -> tuple[Cell, ...]:
    verdict = at + 2
    cells = [Cell(words, "text" if i < 2 else "verdict" if i == verdict else "number") for i, words in enumerate(texts)]
    cells.insert(at + 1, interval_cell(row.difference, list(family["difference"]), row.method, texts[at]))
    return tuple(cells)
