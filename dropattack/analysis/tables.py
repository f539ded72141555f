"""The table of a comparison of methods: its columns, its notes, and its numbers as CSV."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dropattack.analysis.formats import (
    NOTHING,
    Table,
    csv,
    difference_and_interval,
    mean_and_spread,
    p_value,
    seed_count,
    signed,
)
from dropattack.errors import counted
from dropattack.runs.yaml_io import read_yaml
from dropattack.statistics import MIN_SEEDS, FoundRow, Plan
from dropattack.statistics.rows import RowComparison

METRICS = {"f1": "F1, %", "matthews": "Matthews, %"}  # columns for the further metrics of a data set


@dataclass(frozen=True)
class Published:
    """Published values for a table: `accuracy[dataset][method]` in percent (None: not transcribed), and the source."""

    source: str
    accuracy: Mapping[str, Mapping[str, float | None]]

    def cell(self, dataset: str, method: str) -> str:
        known = self.accuracy.get(dataset, {})
        if method not in known:
            return NOTHING
        value = known[method]
        return "not transcribed" if value is None else f"{value:g}"

    def knows(self, datasets: Iterable[str]) -> bool:
        """Return whether a value of one of these data sets is known."""
        return any(value is not None for name in set(datasets) for value in self.accuracy.get(name, {}).values())


def read_published(path: Path) -> dict[str, Published]:
    """Return the published values of each table; nothing if the file does not exist.

    Raises:
        UserError: the file is not valid YAML.
    """
    known = read_yaml(path) if path.exists() else {}
    made = {}
    for name, values in known.items():
        if isinstance(values, Mapping) and "source" in values:
            accuracy = {key: dict(value) for key, value in values.items() if isinstance(value, Mapping)}
            made[name] = Published(str(values["source"]), accuracy)
    return made


def comparison_table(
    compared: pd.DataFrame, notes: tuple[str, ...] = (), baseline: str = "none", *, seeds: int = 0,
    published: Published | None = None, plan: Plan | None = None,
) -> Table:  # fmt: skip
    """Return the result of `compare(…)` as a table: one row per method; cells without a value say why.

    Columns that no row has a value for are left out.

    Args:
        compared: the result of `compare(…)`.
        notes: printed below the table.
        baseline: the method that the others are compared with.
        seeds: number of seeds that a complete cell has, where the plan does not say; incomplete cells are marked.
        published: values for an extra column.
        plan: the plan that `compared` was made with; its rows that have no run are named.
    """
    plan = plan or Plan()
    weighed = bool(compared["memory"].notna().any())
    by_row = bool(compared["rows"].notna().any())
    planned = plan.primary is not None
    further = [name for name in METRICS if any(name in metrics for metrics in compared["metrics"])]
    shown = published if published and published.knows(compared["dataset"]) else None
    columns = (
        *(
            "data / model",
            "method",
            "n",
            "test accuracy, %",
            *(METRICS[name] for name in further),
            *(("published, %",) if shown else ()),
        ),
        *(f"difference to {baseline} [95 % interval]", "p (Holm)", "verdict", *(("family",) if planned else ())),
        *("detects, points", "seeds for +1", *(("[rows and seeds]", "p (McNemar)") if by_row else ())),
        *("passes a step", "time a step", *(("memory",) if weighed else ())),
    )
    rows = tuple(
        (
            f"{row.dataset_label} / {row.model}",
            str(row.method_label),
            _count(row.n, plan.seeds(FoundRow(row.dataset, row.model, row.method, row.settings)) or seeds),
            mean_and_spread(row.score),
            *(mean_and_spread(row.metrics[name]) if name in row.metrics else NOTHING for name in further),
            *((shown.cell(str(row.dataset), str(row.method_label)),) if shown else ()),
            "baseline" if row.method == baseline else row.why or difference_and_interval(row.difference),
            p_value(row.p_holm),
            row.verdict or NOTHING,
            *((row.family or NOTHING,) if planned else ()),
            NOTHING if math.isnan(row.detects) else f"{row.detects:.2f}",
            seed_count(row.seeds_for_one),
            *(by_rows(row.rows) if by_row else ()),
            f"{row.passes:.3g}",
            *(NOTHING if math.isnan(ratio) else f"{ratio:.1f}×" for ratio in (row.cost, row.memory)[: 1 + weighed]),
        )
        for row in compared.itertuples()
    )
    explained = (
        "± is the sample standard deviation over the n seeds.",
        *(("F1 is that of the last class, and Matthews the correlation of Matthews, times 100.",) if further else ()),
        "Differences are paired by seed; the interval is Student's t at 95 %, not corrected; p-values of the paired "
        f"t-test are corrected by Holm {_families(compared, plan)}.",
        *((_EQUAL,) if any(d.n > 1 and d.sd == 0 and abs(d.mean) > 1e-12 for d in compared["difference"]) else ()),
        f"Verdicts: better or worse if the corrected p is below 5 %; equivalent if it is not, and two one-sided paired "
        f"t-tests at 5 %, not corrected, show that the difference is within ± {plan.margin:g} points; otherwise not "
        f"known, as with fewer than {MIN_SEEDS} seeds.",
        "Detects: the smallest difference that a paired t-test would detect with 80 % power, given the row's own n and "
        "standard deviation of differences, at 5 % divided by the comparisons in its family (Holm's strictest step). "
        "Seeds for +1: how many seeds would detect one point. Both are as rough as a standard deviation of n seeds.",
        *((_BY_ROW,) if by_row else ()),
        *((_UNTIMED,) if not plan.timed else ()),
        f"Time a step {'and peak memory on the GPU are' if weighed else 'is'} relative to {baseline} (medians over the "
        "runs on the same kind of machine; on a CPU, of CPU time, which other processes on the machine can lengthen"
        f"{'; on a GPU, over the runs that did not share it' if weighed else ''}).",
        *(
            (f"Pairs of runs on different kinds of machines, where rounding and random numbers can differ: {mixed}.",)
            if (mixed := _mixed(compared))
            else ()
        ),
        *((_LONGER,) if (compared["method"] == "longer").any() else ()),
        *((f"Published: {published.source}.",) if published else ()),
        *((f"Planned, but without a finished run: {missing}.",) if (missing := _missing(compared, plan)) else ()),
    )
    return Table(columns, rows, 2, (*explained, *notes))


def _count(n: int, planned: int) -> str:
    return str(n) if n >= planned else f"{n} of {planned}"


def _missing(compared: pd.DataFrame, plan: Plan) -> str:
    """Return the rows of the plan that have no run, by data set: `imdb: dropout, fgm; mnist: pgd`."""
    found = [FoundRow(row.dataset, row.model, row.method, row.settings) for row in compared.itertuples()]
    of: dict[str, list[str]] = {}
    for row in plan.missing(found):
        of.setdefault(row.dataset, []).append(str(row))
    return "; ".join(f"{dataset}: {', '.join(rows)}" for dataset, rows in of.items())


_LONGER = (
    "Longer training has more steps than the other methods: its passes and its time are those of all its steps, for "
    "each step of theirs."
)
_UNTIMED = "Times are not shown, because the runs shared their cores with other work."
_EQUAL = (
    "Where all n differences of a row are equal, its interval has no width, but no t-test is possible: its p, before "
    "the correction, is that of the exact sign-flip test, 2^(1 − n)."
)
_BY_ROW = (
    "[Rows and seeds]: 95 % percentile interval of the difference, in points, when test rows and seeds are both drawn "
    "again; with few seeds it is too narrow. p (McNemar): exact test on the majority votes over the seeds, where a "
    "tie is between right and wrong, not corrected; and in how many seeds the two runs' own test is below 5 %. Both "
    "are empty for records without the rows."
)


def _mixed(compared: pd.DataFrame) -> str:
    """Return the rows with pairs across kinds of machines: `mnist / cnn: pgd (1 of 5)`."""
    of: dict[str, list[str]] = {}
    for row in compared[compared["mixed"] > 0].itertuples():
        rows = of.setdefault(f"{row.dataset_label} / {row.model}", [])
        rows.append(f"{row.method_label} ({row.mixed} of {row.pairs})")
    return "; ".join(f"{place}: {', '.join(rows)}" for place, rows in of.items())


def _families(compared: pd.DataFrame, plan: Plan) -> str:
    tested = compared["p"].notna()
    if plan.primary is None:
        return f"over the {counted(int(tested.sum()), 'comparison')} of this table"
    own = tested & (compared["family"] == "primary")
    family, made = plan.primary, int(own.sum())
    planned = max(len(family.datasets), made)
    where = ", ".join(f"{key.rpartition('.')[2]}={str(value).lower()}" for key, value in family.where.items())
    declared = f"; declared {family.declared}" if family.declared else ""
    others = int(tested.sum()) - made
    rest = "the other one, which is" if others == 1 else f"the {others} others, which are"
    kinds = ("two families: the primary one", f", and {rest} secondary") if others else ("the primary family", "")
    return (
        f"within {kinds[0]}, {family.method}{f' ({where})' if where else ''} against "
        f"{family.against}, one comparison per data set ({planned} planned, {made} made; those not made count in the "
        f"correction{declared}){kinds[1]}"
    )


def by_rows(rows: RowComparison | None) -> tuple[str, str]:
    """Format the interval over rows and seeds in points, and McNemar's p: `[−0.1, +1.2]`, `0.012 (3 of 5)`."""
    if rows is None:
        return NOTHING, NOTHING
    ends = f"[{signed(100 * rows.low)}, {signed(100 * rows.high)}]"
    return ends, f"{p_value(rows.p)} ({rows.shown} of {rows.pairs})"


def comparison_csv(compared: pd.DataFrame) -> str:
    """Return the numbers of `compare(…)` at full precision, accuracies in percent."""
    numbers = pd.DataFrame(
        {
            "seeds": [" ".join(map(str, seeds)) for seeds in compared["seeds"]],
            **{key: [getattr(score, key) for score in compared["score"]] for key in ("mean", "sd", "low", "high")},
            "difference": [difference.mean for difference in compared["difference"]],
            "difference_low": [difference.low for difference in compared["difference"]],
            "difference_high": [difference.high for difference in compared["difference"]],
        },
        index=compared.index,
    )
    names = compared[["dataset", "model", "dataset_label", "method", "method_label", "n"]]
    rest = compared[["pairs", "p", "p_holm", "verdict", "family"]]
    power = pd.DataFrame({key: [_digits(value) for value in compared[key]] for key in ("detects", "seeds_for_one")},
                         index=compared.index)  # fmt: skip
    by_row = pd.DataFrame(
        {
            f"rows_{key}": [None if one is None else getattr(one, key) for one in compared["rows"]]
            for key in ("low", "high", "p", "shown")
        },
        index=compared.index, dtype=object,
    )  # fmt: skip
    cost = compared[["passes", "cost", "memory", "why"]]
    further = pd.DataFrame(
        {f"{name}_{key}": [getattr(one[name], key) if name in one else None for one in compared["metrics"]]
         for name in METRICS if any(name in one for one in compared["metrics"]) for key in ("mean", "sd")},
        index=compared.index,
    )  # fmt: skip
    return csv(pd.concat([names, numbers, rest, power, by_row, cost, further], axis=1))


def _digits(value: float) -> str:
    """Format with six digits: more of them depend on the platform's numerical integration."""
    return "" if math.isnan(value) else f"{value:.6g}"
