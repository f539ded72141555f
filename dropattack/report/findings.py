"""Findings on DropAttack over all tables, as a page and as the table in the README."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dropattack.analysis.compare import SECONDARY
from dropattack.analysis.findings import against_baseline, against_others, rivals
from dropattack.analysis.formats import Table, markdown
from dropattack.analysis.searches import chosen_settings, hours, repeated_choices
from dropattack.errors import UserError
from dropattack.report.answer import CREDIBLE, answers, headline, in_short
from dropattack.report.claims import Claims
from dropattack.report.gather import Found
from dropattack.report.methods import without_methods

LINK = (
    "The whole answer, with its controls, and every claim with what would change its verdict: "
    "[claims](results/claims.md)."
)
SHOWN = ("paper", "midi", "text", "vision", "notebooks")  # in this order, then the others
UNTUNED = {"paper", "notebooks"}
NOTE = (
    "Table: its name in `conf/table/`, and the scale. Mean ± standard deviation over the seeds. Differences are paired "
    "by seed: where a seed has only one of the two runs, they are not the difference of the means shown. Their "
    "intervals are not corrected; p-values are corrected by Holm within a family of each table, so the same runs can "
    "get another verdict in another table. Family: primary comparisons were declared as the answer to the table's "
    "question. Verdicts: better or worse if the corrected p is below 5 %; equivalent if it is not, and the difference "
    "is shown to be within ± 0.5 points; otherwise not known. Time a step: relative to plain training, if both ran on "
    "the same kind of machine and were timed. Seeds for +1: how many seeds would show a difference of one point with "
    "80 % power."
)
TUNED = (
    "Settings in table {tables}: every method's learning rate and strength were chosen on validation with as many "
    "trials each, DropAttack's ε as a fraction of what it attacks (`reg.relative=true`, which is not the paper's)."
)
PAPER = (
    "Table paper: for texts the notebooks' recipes with 100-dimensional GloVe vectors, for images networks of ours; no "
    "method was tuned; DropAttack at ε = 0.1 of the norm of what it attacks or, where the method's name says so, at "
    "the notebooks' absolute ε = 5."
)
AUTHORS = (
    "Table notebooks: the authors' own ε = 5, on embeddings that start at random and not from GloVe as theirs did."
)


class Findings(NamedTuple):
    """`page`: results/findings.md; `table` and `answer`: the generated parts of the README."""

    page: str
    table: str
    answer: str


def findings(results: Path, tables: Sequence[Found], claims: Claims) -> Findings:
    """Return the page, and the two parts of the README.

    Args:
        results: folder of the trials of `make tune`, in tuning/.
        tables: those that have records, from `gather.tables`.
        claims: `read_claims(…)`.

    Raises:
        UserError: no table that compares methods over several seeds has a finished run.
    """
    found = [one for one in without_methods(tables) if one.table.kind == "comparison" and one.table.seeds > 1]
    if not found:
        raise UserError(f"no finished table of several seeds in {results}: make one first with `make table-vision`")
    found.sort(key=lambda one: SHOWN.index(one.table.name) if one.table.name in SHOWN else len(SHOWN))
    frames = {f"{one.table.name}, {one.scale}": one.frame for one in found}
    every = {f"{one.table.name}, {one.scale}": one.frame for one in tables}
    there = {one.table.name for one in found}
    tuned = TUNED.format(tables=", ".join(name for name in SHOWN if name in there - UNTUNED))
    own = {"paper": PAPER, "notebooks": AUTHORS}
    note = "\n\n".join([NOTE, tuned, *(said for name, said in own.items() if name in there)])
    plans = {f"{one.table.name}, {one.scale}": one.table.plan for one in found}
    none_table = against_baseline(frames, plans=plans)
    removed = claims.removed
    others_table = against_others(rivals(frames, plans=plans, removed=removed), removed=removed)
    page = (
        "# What the tables say of DropAttack\n\nMade by `make findings` from the records in this folder.\n\n"
        f"## Compared with plain training\n\n{markdown(none_table)}\n{note}\n\n"
        f"## Compared with the other methods\n\n{markdown(others_table)}\n"
        f"## The settings\n\n{markdown(chosen_settings(results / 'tuning'))}\n"
        f"{_repeated(results / 'tuning')}"
        f"## The time\n\n{markdown(hours(every, results / 'tuning'))}"
    )
    return Findings(page, _front(none_table, there), _answer(claims, found))


def _repeated(folder: Path) -> str:
    table = repeated_choices(folder)
    return f"## The same searches again\n\n{markdown(table)}\n" if table else ""


def _front(every: Table, there: set[str]) -> str:
    """Return the README's table: the rows of credible size, or all rows if there are none; primary ones first."""
    rows = [row for row in every.rows if row[2].endswith(CREDIBLE)] or list(every.rows)
    family = every.columns.index("family")
    rows.sort(key=lambda row: row[family] == SECONDARY)
    kept = [i for i, column in enumerate(every.columns) if column != "seeds for +1"]
    columns, *shown = (tuple(row[i] for i in kept) for row in (every.columns, *rows))
    said = [NOTE.partition(" Seeds for +1")[0], TUNED.format(tables="midi"), *([PAPER] if "paper" in there else [])]
    return f"{markdown(Table(columns, tuple(shown), 3))}\n" + "\n\n".join(said) + "\n"


def _answer(claims: Claims, found: Sequence[Found]) -> str:
    answer = answers(claims, found)
    points = [_wrapped(f"- {sentence}", "  ") for sentence in in_short(answer)]
    return "\n\n".join(filter(None, [f"**{headline(answer)}**", "\n".join(points), _wrapped(LINK)])) + "\n"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
