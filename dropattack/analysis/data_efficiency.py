"""Data efficiency: is a method with less data or fewer epochs as good as the baseline with all of it?"""

import math

import pandas as pd

from dropattack.analysis.compare import by_seed, compare
from dropattack.analysis.records import with_number
from dropattack.analysis.tables import Table, difference_and_interval, mean_and_spread, p_value
from dropattack.statistics import estimate, holm, paired_difference, verdict


def heading(x: str, baseline: str = "none") -> str:
    """Return the heading of the table of `data_efficiency_table`."""
    if x.startswith("dataset."):
        return f"On less data, beside {baseline} on all of it"
    return f"With fewer {x.rpartition('.')[2]}, beside {baseline} with the most of them"


def data_efficiency_table(frame: pd.DataFrame, x: str, baseline: str = "none") -> Table:
    """Compare every method at every value of `x` below the largest with the baseline at the largest.

    Differences are in points and paired by seed (equal seeds mean equal initial weights); p-values are Holm-corrected
    over the rows. “No difference shown” does not prove equality: see the interval.

    Args:
        frame: `read_records(…).frame`.
        x: the setting, such as `dataset.fraction`.
        baseline: the method that the others are compared with.
    """
    name = x.rpartition(".")[2]
    most_of = "data" if x.startswith("dataset.") else name
    frame = with_number(frame, x)
    labels = {(row.context, row.variant): str(row.method_label) for row in compare(frame, baseline).itertuples()}
    found = []
    for (dataset, model), rows in frame.groupby(["dataset", "model"], sort=True):
        most = rows["x"].max()
        plain = rows[(rows["method"] == baseline) & (rows["x"] == most)]
        whole = by_seed(plain) if plain["variant"].nunique() == 1 else {}
        for (value, *key), cell in rows[rows["x"] < most].groupby(["x", "context", "variant"], sort=True):
            own = by_seed(cell)
            found.append((f"{dataset} / {model}", labels[tuple(key)], value, most, own, paired_difference(own, whole)))
    found.sort(key=lambda row: row[:3])
    corrected = holm([difference.p for *_, difference in found])
    cells = tuple(
        (
            where, method, f"{value:g}", str(len(own)), mean_and_spread(estimate(list(own.values()))),
            f"{difference_and_interval(difference)} ({name} = {most:g})", p_value(p),
            verdict(difference, p),
        )
        for (where, method, value, most, own, difference), p in zip(found, corrected, strict=True)
    )  # fmt: skip
    columns = ("data / model", "method", name, "n", "test accuracy, %",
               f"difference to {baseline} with the most {most_of} [95 % interval]", "p (Holm)", "verdict")  # fmt: skip
    tested = sum(not math.isnan(p) for p in corrected)
    note = (
        f"Each row beside {baseline} at the largest {name}, paired by seed; p-values are corrected by Holm over the "
        f"{tested} rows. “No difference shown” is no proof of equality: the interval says what may be lost."
    )
    return Table(columns, cells, 2, (note,))
