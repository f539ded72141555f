"""Compare methods: one row per method with its accuracy, paired difference to the baseline, and cost."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dropattack.analysis.settings import differences, distinguishing, is_chosen, of_context
from dropattack.errors import UserError, one_line
from dropattack.statistics import Plan, Primary, estimate, holm, paired_difference, verdict
from dropattack.statistics.power import detectable, seeds_needed
from dropattack.statistics.rows import RowComparison, compare_rows

LEVEL = 0.05  # of all tests
PRIMARY, SECONDARY = "primary", "secondary"
ORDER = ("none", "dropout", "fgm", "pgd", "freelb", "dropattack", "randomattack", "rdrop", "sam")


ACCURACY = "test_accuracy"
OWN = ("dataset.path", "model.pretrained")  # which a scale does not stand for


def compare(
    frame: pd.DataFrame, baseline: str = "none", metric: str = ACCURACY, factor: float = 100.0,
    plan: Plan | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per method and settings, in each context (data, model, training). Accuracies are in percent.

    Differences are paired by seed within a context. The p-values are Holm-corrected over all comparisons of a `family`:
    the plan's primary one, and all others. `detects` is the smallest difference that the row's seeds could have
    detected, and `seeds_for_one` the seeds that a difference of 1 would need, with 80 % power at the level of Holm's
    strictest step, 5 % divided by the size of the family. `rows` compares the test rows, if the records hold them.
    `metrics` has the data set's further metrics, times 100. `cost` and `memory` are ratios to the baseline (median time
    of a step, median peak memory) over the runs on kinds of machines that both have. If there is nothing to compare
    with, `why` gives the reason and the difference is NaN.

    Args:
        frame: `read_records(…).frame`.
        baseline: the method that the others are compared with.
        metric: the column to compare.
        factor: multiplies the column's values; the default converts fractions to percent.
        plan: the table's margin of equivalence and primary family; only accuracy has a margin.

    Raises:
        UserError: the plan's primary family has several rows on one data set.
    """
    plan = plan or Plan()
    rows: list[dict[str, Any]] = []
    for _, shared in frame.groupby("context", sort=False):
        plain = shared[shared["method"] == baseline]
        # If a context has two variants of the baseline (different dropout), it is unclear which one to compare with.
        unique = plain["variant"].nunique() == 1
        for _, runs in shared.groupby("variant", sort=False):
            rows.append(_row(runs, plain if unique else plain.iloc[:0], baseline, metric, factor))
            if not unique and rows[-1]["method"] != baseline:
                found = "no run" if plain.empty else "several settings"
                rows[-1]["why"] = f"{found} of {baseline} with the same data, model and training"
    table = pd.DataFrame(rows, columns=COLUMNS)
    if not plan.timed:
        table["cost"] = np.nan
    _name(table, "dataset", "dataset_label", ["dataset", "model"])
    _name(table, "method", "method_label", ["context", "method"])
    _correct(table, baseline, plan.primary)
    margin = plan.margin if metric == ACCURACY else None
    table["verdict"] = [
        "" if row.method == baseline or row.why else verdict(row.difference, row.p_holm, margin, LEVEL)
        for row in table.itertuples()
    ]
    rank = {name: position for position, name in enumerate(ORDER)}
    key = [(_natural(d), c, rank.get(m, len(rank)), s) for d, c, m, s in zip(
        table["dataset_label"], table["context"], table["method"], table["method_label"], strict=True)]  # fmt: skip
    return table.iloc[sorted(range(len(table)), key=lambda i: key[i])].reset_index(drop=True)


COLUMNS = [
    *("context", "variant", "dataset", "model", "dataset_label", "method", "method_label", "settings", "n", "seeds"),
    *("score", "difference", "pairs", "p", "p_holm", "verdict", "family", "detects", "seeds_for_one", "rows"),
    *("passes", "cost", "memory", "why", "metrics", "mixed"),
]


def _correct(table: pd.DataFrame, baseline: str, primary: Primary | None) -> None:
    """Fill in the family of each comparison, its corrected p-value, and what it could detect."""
    compared = (table["method"] != baseline) & (table["why"] == "")
    table["family"] = ""
    if primary is not None:
        chosen = [primary.has(row.dataset, row.method, baseline, row.settings) for row in table.itertuples()]
        table.loc[compared, "family"] = SECONDARY
        table.loc[compared & np.array(chosen, dtype=bool), "family"] = PRIMARY
        twice = table[table["family"] == PRIMARY]["dataset"]
        if twice.duplicated().any():
            raise UserError(f"the primary family has several comparisons on {twice[twice.duplicated()].iloc[0]}: "
                            "narrow `primary.where` in the table's file to one of them")  # fmt: skip
    for family in table["family"].unique():
        own = table["family"] == family
        planned = len(primary.datasets) if primary is not None and family == PRIMARY else 0
        p = table.loc[own, "p"].astype(float)
        table.loc[own, "p_holm"] = holm(p.tolist(), planned)
        level = LEVEL / max(planned, int(p.notna().sum()), 1)
        table.loc[own, "detects"] = [detectable(d, level) for d in table.loc[own, "difference"]]
        table.loc[own, "seeds_for_one"] = [seeds_needed(d, 1.0, level) for d in table.loc[own, "difference"]]


def _natural(name: str) -> list[Any]:
    """Return a sort key that puts `train_rows=500` before `train_rows=1000`."""
    return [float(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def _row(runs: pd.DataFrame, plain: pd.DataFrame, baseline: str, metric: str, factor: float) -> dict[str, Any]:
    first = runs.iloc[0]
    own, theirs = by_seed(runs, metric, factor), by_seed(plain, metric, factor)
    itself = first["method"] == baseline
    difference = paired_difference({} if itself else own, theirs)
    nothing = not itself and difference.n == 0
    return {
        **{key: first[key] for key in ("context", "variant", "dataset", "model", "method", "settings", "passes")},
        "n": len(runs),
        "seeds": tuple(sorted(own)),
        "score": estimate(list(own.values())),
        "metrics": {name: estimate([100 * one[name] for one in runs["metrics"]]) for name in first["metrics"]},
        "difference": difference,
        "pairs": difference.n,
        "p": difference.p,
        "rows": None if itself or metric != ACCURACY else _rows(runs, plain),
        "cost": _ratio(runs, plain, "step_seconds"),
        "memory": _ratio(runs, plain, "peak_memory_mb"),
        "mixed": 0 if itself else _mixed(runs, plain),
        "why": f"no seed in common with {baseline}" if nothing else "",
    }


def _rows(runs: pd.DataFrame, plain: pd.DataFrame) -> RowComparison | None:
    own, theirs = (
        {int(seed): rows for seed, rows in zip(one["seed"], one["correct"], strict=True) if rows is not None}
        for one in (runs, plain)
    )
    return compare_rows(own, theirs)


def _mixed(runs: pd.DataFrame, plain: pd.DataFrame) -> int:
    """Return how many pairs have their two runs on different kinds of machines."""
    own, theirs = (dict(zip(one["seed"], one["hardware"].map(_kind), strict=True)) for one in (runs, plain))
    return sum(own[seed] != theirs[seed] for seed in own.keys() & theirs.keys())


def _ratio(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> float:
    """Return the ratio of the medians over the runs on kinds of machines that both have; NaN if there are none."""
    kinds = [frame["hardware"].map(_kind) for frame in (ours, theirs)]
    common = set(kinds[0]) & set(kinds[1])
    own, other = (
        float(pd.to_numeric(frame[column][kind.isin(common)]).median())
        for frame, kind in zip((ours, theirs), kinds, strict=True)
    )
    return own / other if other > 0 else np.nan


def _kind(hardware: Mapping[str, Any] | None) -> str:
    """Return the machine's GPU or CPU, on which times depend."""
    return str((hardware or {}).get("gpu") or (hardware or {}).get("cpu"))


def by_seed(runs: pd.DataFrame, metric: str = "test_accuracy", factor: float = 100.0) -> dict[int, float]:
    """Return a column of the runs by seed, times `factor`."""
    return {int(seed): factor * float(value) for seed, value in zip(runs["seed"], runs[metric], strict=True)}


def _name(table: pd.DataFrame, column: str, label: str, within: list[str]) -> None:
    """Fill in `label`: the plain name if it is unique, otherwise the name with its distinguishing settings."""
    kind = "context" if column == "dataset" else "variant"
    table[label] = table[column].astype(object)
    for _, group in table.groupby(within, sort=False):
        if group[kind].nunique() == 1:
            continue
        representatives = group.drop_duplicates(kind)
        settings = [_concerning(row, kind) for row in representatives["settings"]]
        apart = dict(zip(representatives[kind], _apart(settings), strict=True))
        for i in group.index:
            table.at[i, label] = _with(table.at[i, column], apart[table.at[i, kind]])


def _apart(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what distinguishes each of several settings; the name of a scale stands for its dozen sizes."""
    shown = [
        {key: value for key, value in one.items() if key in ("scale.name", *OWN)} if "scale.name" in one else one
        for one in distinguishing(differences(settings))
    ]
    for scale in {one["scale.name"] for one in shown if "scale.name" in one}:
        same = [i for i, one in enumerate(shown) if one == {"scale.name": scale}]
        if len(same) > 1:  # they do not all have the sizes of their scale
            for i, more in zip(same, distinguishing(differences([settings[i] for i in same])), strict=True):
                shown[i] |= more
    return shown


def _concerning(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    chosen = {key: value for key, value in settings.items() if is_chosen(key)}
    return chosen if kind == "variant" else of_context(settings)


def _with(name: Hashable, settings: dict[str, Any]) -> str:
    inside = ", ".join(f"{key.removesuffix('.name').rpartition('.')[2]}={value}" for key, value in settings.items())
    return one_line(f"{name} ({inside})") if inside else f"{name} (other data)"


def provenance(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the distinct commits, torch versions and machines that the runs were made with."""
    return {
        "commit": _distinct(frame["commit"], lambda c: c["hash"][:10] + ("+changes" if c["dirty"] else "")),
        "torch": _distinct(frame["versions"], lambda v: v.get("torch", "unknown")),
        "hardware": _distinct(frame["hardware"], lambda h: h.get("gpu") or f"{h.get('cpu')}, {h.get('cores')} cores"),
    }


def _distinct(column: pd.Series, text: Any) -> list[str]:
    return sorted({str(text(value)) if value else "unknown" for value in column})
