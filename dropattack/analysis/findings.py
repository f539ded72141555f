"""Findings on one method over all tables: against the baseline, and against every other method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.formats import NOTHING, Table, difference_and_interval, mean_and_spread, p_value, seed_count
from dropattack.analysis.records import training_rows
from dropattack.statistics import PairedDifference, Plan, holm, verdict

NONE = "none"


def against_baseline(
    frames: Mapping[str, pd.DataFrame], method: str = "dropattack", plans: Mapping[str, Plan] | None = None
) -> Table:
    """Return a comparison with the baseline: one row per cell of the method, with the verdict of the cell's own table.

    Args:
        frames: `read_records(…).frame` by the table's name.
        method: the method.
        plans: by the table's name; a table without one has the default plan.
    """
    rows = []
    for table, frame in frames.items():
        cells = compare(frame, plan=(plans or {}).get(table))
        own = cells[cells["method"] == method]
        several = len({settings.get("reg.relative") for settings in own["settings"]}) > 1  # ε of two kinds
        for row in own.itertuples():
            plain = cells[(cells["context"] == row.context) & (cells["method"] == NONE)]
            if plain.empty:
                continue
            rows.append((
                f"{row.dataset_label} / {row.model}", _with_strength(row) if several else str(row.method_label), table,
                training_rows(frame[frame["context"] == row.context]) or NOTHING, str(row.pairs),
                mean_and_spread(plain.iloc[0]["score"]), mean_and_spread(row.score),
                row.why or difference_and_interval(row.difference), p_value(row.p_holm),
                row.verdict or NOTHING, row.family or NOTHING, seed_count(row.seeds_for_one),
                NOTHING if math.isnan(row.cost) else f"{row.cost:.1f}×",
            ))  # fmt: skip
    columns = ("data / model", "method", "table", "training rows", "pairs", "none, %", "with the method, %",
               "difference [95 % interval]", "p (Holm)", "verdict", "family", "seeds for +1",
               "time a step")  # fmt: skip
    return Table(columns, tuple(rows), 3)


def _with_strength(row: Any) -> str:
    """Return the method's label with its ε, which another data set of the table has in the other unit."""
    label, epsilon, relative = str(row.method_label), row.settings.get("reg.epsilon"), row.settings.get("reg.relative")
    return label if "relative=" in label else f"{label} (epsilon={epsilon}, relative={relative})"


@dataclass(frozen=True)
class Rival:
    """A method against another in one cell of a table. `difference` is its accuracy minus the other's, in points.

    `p_holm` is corrected over all tables, and decides the verdict; `p_table` over those of the table.
    """

    table: str
    dataset: str
    model: str
    dataset_label: str
    other: str
    other_label: str
    difference: PairedDifference
    p_holm: float
    verdict: str
    p_table: float = math.nan


def rivals(
    frames: Mapping[str, pd.DataFrame],
    method: str = "dropattack",
    plans: Mapping[str, Plan] | None = None,
    removed: int = 0,
) -> list[Rival]:
    """Return comparisons with every other method, paired by seed; p-values are Holm-corrected over all of them.

    Args:
        frames: `read_records(…).frame` by the table's name.
        method: the method. Where a context has several cells of it, the one in the plan's primary family is compared.
        plans: by the table's name.
        removed: comparisons of tables that were removed after they had been seen; they count as if p = 1.
    """
    found = []
    for table, frame in frames.items():
        for row in compare(_primary(frame, method, (plans or {}).get(table)), baseline=method).itertuples():
            if row.method not in (method, NONE) and not row.why and row.difference.n:
                found.append((table, row, _negated(row.difference)))
    p_values = [difference.p for *_, difference in found]
    corrected = holm(p_values, removed + sum(not math.isnan(p) for p in p_values))
    within: list[float] = []
    for table in dict.fromkeys(table for table, *_ in found):
        within += holm([difference.p for name, _, difference in found if name == table])
    return [
        Rival(table, row.dataset, row.model, row.dataset_label, row.method, str(row.method_label), difference, p,
              verdict(difference, p, (plans or {}).get(table, Plan()).margin), own)
        for (table, row, difference), p, own in zip(found, corrected, within, strict=True)
    ]  # fmt: skip


def _primary(frame: pd.DataFrame, method: str, plan: Plan | None) -> pd.DataFrame:
    """Return the frame without those of a context's several cells of the method that the primary family leaves out."""
    if plan is None or plan.primary is None:
        return frame
    family, kept = plan.primary, []
    for _, shared in frame.groupby("context", sort=False):
        own = shared[shared["method"] == method]
        chosen = own[[family.has(row.dataset, method, family.against, row.settings) for row in own.itertuples()]]
        several = own["variant"].nunique() > 1 and not chosen.empty
        kept.append(shared.drop(own.index.difference(chosen.index)) if several else shared)
    return pd.concat(kept)


def _gone(removed: int) -> str:
    return f" and {removed} comparisons of removed tables, which count as if p = 1" if removed else ""


def _negated(d: PairedDifference) -> PairedDifference:
    return PairedDifference(-d.mean, d.sd, -d.high, -d.low, d.n, d.p, tuple(-value for value in d.values))


def against_others(found: Sequence[Rival], method: str = "dropattack", removed: int = 0) -> Table:
    """Compare the method with the other methods, each with its own settings; `removed` as in `rivals`."""
    rows = [
        (
            f"{one.dataset_label} / {one.model}", one.other_label, one.table, str(one.difference.n),
            difference_and_interval(one.difference), p_value(one.difference.p), p_value(one.p_table),
            p_value(one.p_holm), one.verdict,
        )
        for one in found
    ]  # fmt: skip
    columns = ("data / model", "other method", "table", "pairs", f"{method} − other [95 % interval]", "p",
               "p (Holm, table)", "p (Holm, all)", f"{method} is")  # fmt: skip
    tested = sum(not math.isnan(one.p_holm) for one in found)
    note = (
        "Paired by seed. p is not corrected; p (Holm, table) is corrected over the rows of the same table, and "
        f"p (Holm, all), which decides the verdict, over all {tested} rows with a p-value{_gone(removed)}. "
        "Where a table has DropAttack with two strengths, it is the one of the primary comparison."
    )
    return Table(columns, tuple(rows), 3, (note,))
