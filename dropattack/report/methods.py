"""Sentences on each method in the table of all methods: `make findings` writes them to results/methods.md."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from dropattack.analysis.drawing import rank
from dropattack.analysis.formats import difference_and_interval, mean_and_spread, p_words
from dropattack.errors import counted
from dropattack.report.gather import Found

TABLE = "methods"  # of conf/table/
BASELINE = "none"
LEAD = """# What each method gave on the bundled data

Made by `make findings` from the records of the table `methods`
([its plan](PLAN.md#every-method-on-the-bundled-data-methods)). It is a smoke comparison on two small data sets, with
two settings per method: it shows what happened there, and is no evidence about the paper's data sets. Means ± standard
deviations of test accuracy in percent; differences to plain training are in points, paired by seed, with 95 %
intervals; p-values are corrected by Holm over all comparisons of the table.
"""
NOT_RUN = "It has no finished run in this table yet."


def methods_page(tables: Iterable[Found], methods: Iterable[str]) -> str:
    """Return the page: a sentence per data set for each method.

    Args:
        tables: those that have records, from `gather.tables`.
        methods: those to list, also without a run; methods that the table has beside them are added.
    """
    found = [one.compared for one in tables if one.table.name == TABLE]
    rows = pd.concat(found) if found else pd.DataFrame(columns=["method"])
    parts = [LEAD]
    for method in sorted({*methods, *rows["method"]}, key=rank):
        own = [_sentence(row) for row in rows[rows["method"] == method].itertuples()]
        parts.append(f"## {method}\n\n{' '.join(own) or NOT_RUN}\n")
    return "\n".join(parts)


def _sentence(row: Any) -> str:
    where = f"On {row.dataset_label} with {row.model}"
    result = f"{mean_and_spread(row.score)} % over {counted(row.n, 'seed')}"
    if row.method == BASELINE:
        return f"{where}: {result}, the baseline."
    if row.why:
        return f"{where}: {result}, not compared ({row.why})."
    passes = f"at {counted(row.passes, 'pass', 'es')} per step"
    if row.difference.n > 1 and not any(row.difference.values):
        return f"{where}: {result}, as accurate as plain training in every seed (no effect seen), {passes}."
    difference = f"{difference_and_interval(row.difference)} against plain training ({p_words(row.p_holm)})"
    return f"{where}: {result}, {difference}: {row.verdict}, {passes}."


def without_methods(tables: Sequence[Found]) -> list[Found]:
    """Return the tables that answer a question about DropAttack: all but the smoke comparison of all methods."""
    return [one for one in tables if one.table.name != TABLE]
