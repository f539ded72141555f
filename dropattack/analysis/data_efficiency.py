"""Data efficiency: is a method with less data or fewer epochs as good as the baseline with all of it?"""

import math
from dataclasses import dataclass

import pandas as pd

from dropattack.analysis.along import by_context, with_number
from dropattack.analysis.compare import by_seed, compare
from dropattack.analysis.formats import Table, difference_and_interval, mean_and_spread, p_value
from dropattack.analysis.records import training_rows
from dropattack.statistics import (
    MARGIN,
    Estimate,
    PairedDifference,
    estimate,
    holm,
    paired_difference,
    verdict,
)


def heading(x: str, baseline: str = "none") -> str:
    """Return the heading of the table of `data_efficiency_table`."""
    if x.startswith("dataset."):
        return f"On less data, compared with {baseline} on all of it"
    return f"With fewer {x.rpartition('.')[2]}, compared with {baseline} with the most of them"


@dataclass(frozen=True)
class Less:
    """A method at `value` of the setting, against the baseline at `most` of it. The difference is in points."""

    dataset: str
    dataset_label: str
    model: str
    method: str
    method_label: str
    value: float
    most: float
    score: Estimate
    difference: PairedDifference
    p_holm: float
    verdict: str
    training_rows: str


def data_efficiency(frame: pd.DataFrame, x: str, baseline: str = "none", margin: float = MARGIN) -> list[Less]:
    """Compare every method at every value of `x` below the largest with the baseline at the largest.

    Differences are paired by seed (equal seeds mean equal initial weights); p-values are Holm-corrected over the rows.

    Args:
        frame: `read_records(…).frame`.
        x: the setting, such as `dataset.fraction`.
        baseline: the method that the others are compared with.
        margin: of equivalence, in points.

    Returns:
        One row per setting of a method and value of `x`, sorted by data set, model, method and value.
    """
    frame = with_number(frame, x)
    labels = {(row.context, row.variant): str(row.method_label) for row in compare(frame, baseline).itertuples()}
    found = []
    for dataset, model, rows in by_context(frame, x):
        most = rows["x"].max()
        plain = rows[(rows["method"] == baseline) & (rows["x"] == most)]
        whole = by_seed(plain) if plain["variant"].nunique() == 1 else {}
        for (value, *key), cell in rows[rows["x"] < most].groupby(["x", "context", "variant"], sort=True):
            own = by_seed(cell)
            method = str(cell.iloc[0]["method"])
            about = (str(cell.iloc[0]["dataset"]), dataset, model, method, labels[tuple(key)], value, most)
            score = estimate(list(own.values()))
            found.append((about, score, paired_difference(own, whole), training_rows(cell)))
    found.sort(key=lambda row: (f"{row[0][1]} / {row[0][2]}", row[0][4], row[0][5]))
    corrected = holm([difference.p for _, _, difference, _ in found])
    return [
        Less(*about, score, difference, p, verdict(difference, p, margin), rows)
        for (about, score, difference, rows), p in zip(found, corrected, strict=True)
    ]


def data_efficiency_table(frame: pd.DataFrame, x: str, baseline: str = "none", margin: float = MARGIN) -> Table:
    """Tabulate `data_efficiency(…)`."""
    name = x.rpartition(".")[2]
    most_of = "data" if x.startswith("dataset.") else name
    found = data_efficiency(frame, x, baseline, margin)
    cells = tuple(
        (
            f"{one.dataset_label} / {one.model}", one.method_label, f"{one.value:g}", str(one.score.n),
            mean_and_spread(one.score), f"{difference_and_interval(one.difference)} ({name} = {one.most:g})",
            p_value(one.p_holm), one.verdict,
        )
        for one in found
    )  # fmt: skip
    columns = ("data / model", "method", name, "n", "test accuracy, %",
               f"difference to {baseline} with the most {most_of} [95 % interval]", "p (Holm)", "verdict")  # fmt: skip
    tested = sum(not math.isnan(one.p_holm) for one in found)
    note = (
        f"Each row is compared with {baseline} at the largest {name}, paired by seed; p-values are corrected by Holm "
        f"over the {tested} rows. “Equivalent” means within ± {margin:g} points."
    )
    return Table(columns, cells, 2, (note,))
