"""Findings on DropAttack over all tables, as a page and as the table in the README."""

from collections.abc import Sequence
from pathlib import Path

from dropattack.analysis import tables
from dropattack.analysis.findings import against_baseline, against_others, chosen_settings, rivals
from dropattack.errors import UserError
from dropattack.report import gather
from dropattack.report.gather import TableSpec

SHOWN = ("paper", "text", "vision", "bert", "all_rows", "notebooks")  # tables shown in the README, in this order
UNTUNED = {"paper", "notebooks"}
NOTE = (
    "Mean ± standard deviation over the seeds. Differences are paired by seed; their intervals are not corrected; "
    "p is, by Holm over the comparisons of each table, so that the same runs can get another verdict in another table."
)
TUNED = (
    "Settings of {tables}: every method's learning rate and strength were chosen on validation with as many trials "
    "each, DropAttack's ε as a fraction of what it attacks (`reg.relative=true`, which is not the paper's)."
)
PAPER = (
    "paper: the notebooks' recipes at full size with 100-dimensional GloVe vectors; published settings, none of them "
    "tuned; DropAttack at ε = 0.1 of the norm of what it attacks."
)
AUTHORS = "notebooks: the authors' own ε = 5, on embeddings that start at random and not from GloVe as theirs did."


def findings(results: Path, asked: Sequence[TableSpec]) -> tuple[str, str]:
    """Return (the page, the table in the README).

    Raises:
        UserError: no table that compares methods over several seeds has a finished run.
    """
    asked = [table for table in asked if table.kind == "comparison" and table.seeds > 1]
    found, _ = gather.tables(results, asked)
    if not found:
        raise UserError(f"no finished table of several seeds in {results}: make one first with `make table-vision`")
    found.sort(key=lambda one: SHOWN.index(one.table.name) if one.table.name in SHOWN else len(SHOWN))
    frames = {f"{one.table.name}, {one.scale}": one.frame for one in found}
    there = {one.table.name for one in found}
    tuned = TUNED.format(tables=", ".join(name for name in SHOWN if name in there - UNTUNED))
    own = {"paper": PAPER, "notebooks": AUTHORS}
    note = "\n\n".join([NOTE, tuned, *(said for name, said in own.items() if name in there)])
    none_table = against_baseline(frames)
    others_table = against_others(rivals(frames))
    page = (
        "# What the tables say of DropAttack\n\nMade by `make findings` from the records in this folder.\n\n"
        f"## Beside none\n\n{tables.markdown(none_table)}\n{note}\n\n"
        f"## Beside the other methods\n\n{tables.markdown(others_table)}\n"
        f"## The settings\n\n{tables.markdown(chosen_settings(results / 'tuning'))}"
    )
    shown = [row for row in none_table.rows if row[2].partition(",")[0] in SHOWN]
    return page, f"{tables.markdown(tables.Table(none_table.columns, tuple(shown), 3))}\n{note}\n"
