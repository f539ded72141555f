"""What the tables say of one method, in two tables of their own: beside the baseline, and beside every other method."""

import math
from collections.abc import Mapping

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.statistics import holm, verdict
from dropattack.analysis.tables import NOTHING, Table, difference_and_interval, mean_and_spread

NONE = "none"


def beside_none(compared: Mapping[str, pd.DataFrame], method: str = "dropattack") -> Table:
    """Does it help, by how much, at what cost? A row for each of the method's cells.

    Args:
        compared: by the name of a table, the result of `compare(…)` of its runs. Verdicts are that table's.
    """
    rows = []
    for table, cells in compared.items():
        for row in cells[cells["method"] == method].itertuples():
            plain = cells[(cells["context"] == row.context) & (cells["method"] == NONE)]
            if plain.empty:
                continue
            rows.append((
                f"{row.dataset_label} / {row.model}", str(row.method_label), table, str(row.n),
                mean_and_spread(plain.iloc[0]["score"]), mean_and_spread(row.score),
                difference_and_interval(row.difference), NOTHING if math.isnan(row.p_holm) else f"{row.p_holm:.3f}",
                row.verdict or NOTHING, NOTHING if math.isnan(row.cost) else f"{row.cost:.1f}×",
            ))  # fmt: skip
    columns = ("data / model", "method", "table", "n", "none, %", "with it, %", "difference [95 % interval]",
               "p (Holm)", "verdict", "time a step")  # fmt: skip
    return Table(columns, tuple(rows), 3)


def beside_others(frames: Mapping[str, pd.DataFrame], method: str = "dropattack") -> Table:
    """Is it better than the other methods? Its paired difference to each of them, each with its own tuned settings.

    Args:
        frames: by the name of a table, `read_records(…).frame`. Those count in which the method has one cell a context.
    """
    found = []
    for table, frame in frames.items():
        for row in compare(frame, baseline=method).itertuples():
            if row.method in (method, NONE) or row.why or not row.difference.n:
                continue
            found.append((table, row))
    corrected = holm([row.difference.p for _, row in found])
    rows = []
    for (table, row), p in zip(found, corrected, strict=True):
        theirs = row.difference  # the other's less the method's: turned round below
        ours = type(theirs)(-theirs.mean, theirs.sd, -theirs.high, -theirs.low, theirs.n, theirs.p, theirs.values)
        rows.append((
            f"{row.dataset_label} / {row.model}", str(row.method_label), table, str(theirs.n),
            difference_and_interval(ours), NOTHING if math.isnan(p) else f"{p:.3f}", verdict(ours, p),
        ))  # fmt: skip
    columns = ("data / model", "other method", "table", "n", f"{method} − other [95 % interval]", "p (Holm)",
               f"{method} is")  # fmt: skip
    note = f"Paired by seed; p-values are corrected by Holm over the {len(rows)} rows."
    return Table(columns, tuple(rows), 3, (note,))
