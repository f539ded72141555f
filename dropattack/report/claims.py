"""Decide the claims of conf/claims.yaml from the tables' records."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.analysis.compare import by_seed
from dropattack.analysis.history import NORMS
from dropattack.analysis.records import training_rows
from dropattack.errors import UserError
from dropattack.report.gather import SCALES, Found
from dropattack.runs.yaml_io import read_yaml
from dropattack.statistics import (
    BETTER,
    EQUIVALENT,
    MIN_SEEDS,
    UNKNOWN,
    WORSE,
    PairedDifference,
    holm,
    paired_difference,
    verdict,
)
from dropattack.statistics.pooled import Pooled, pool, pooled_verdict

SUPPORTED, CONTRADICTED, NOT_TESTED = "supported here", "contradicted here", "not tested"
OUTCOMES = (SUPPORTED, CONTRADICTED, EQUIVALENT, UNKNOWN, NOT_TESTED)
ONE_ROW, RATIOS = ("cell", "less"), ("norm", "probe")
TESTS = (*ONE_ROW, "pooled", *RATIOS)
# The outcome of each verdict, by what the claim says; a ratio below one is “worse” here, that is lower.
MEANS = {
    "better": {BETTER: SUPPORTED, WORSE: CONTRADICTED},
    "higher": {BETTER: SUPPORTED, WORSE: CONTRADICTED},
    "lower": {BETTER: CONTRADICTED, WORSE: SUPPORTED},
    "same": {BETTER: SUPPORTED, EQUIVALENT: SUPPORTED, WORSE: CONTRADICTED},
}


@dataclass(frozen=True)
class Claim:
    """One claim; the comments in conf/claims.yaml explain its fields."""

    id: str
    claim: str
    source: str
    test: str
    says: str
    method: str
    changes: str
    tables: tuple[str, ...]
    against: str = "none"
    where: Mapping[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    quantity: str = ""
    x: str = ""
    at: float = math.nan


@dataclass(frozen=True)
class Evidence:
    """One paired comparison: of accuracies, in points, or of the logarithms of a norm or probe.

    `p` and `verdict` are those of the comparison's own table, where it has them.
    """

    table: str
    scale: str
    dataset: str
    model: str
    rows: str
    difference: PairedDifference
    cost: float = math.nan
    p: float = math.nan
    verdict: str = ""

    @property
    def counts(self) -> bool:
        return self.difference.n >= MIN_SEEDS

    @property
    def name(self) -> str:
        return f"{self.dataset} / {self.model}"


@dataclass(frozen=True)
class Outcome:
    """The verdict on a claim.

    Attributes:
        claim: the claim.
        outcome: one of `OUTCOMES`.
        cells: the comparisons that decided it, all at one scale.
        others: comparisons that did not count: other scales, other tables, fewer than three seeds, one data set alone.
        pooled: their pooled difference, if there are several.
        p: corrected; see `decide`.
    """

    claim: Claim
    outcome: str
    cells: tuple[Evidence, ...] = ()
    others: tuple[Evidence, ...] = ()
    pooled: Pooled | None = None
    p: float = math.nan

    @property
    def scale(self) -> str:
        return self.cells[0].scale if self.cells else ""


@dataclass(frozen=True)
class Claims:
    """The content of conf/claims.yaml; `removed` counts comparisons with other methods in tables that were removed."""

    claims: tuple[Claim, ...]
    scales: tuple[str, ...]
    margin: float
    pooled: Claim
    ranked: tuple[str, ...]
    ranked_tables: tuple[str, ...]
    removed: int = 0


def read_claims(path: Path, tables: Collection[str]) -> Claims:
    """Return the claims of the file.

    Args:
        path: of the file.
        tables: the names that its claims may use.

    Raises:
        UserError: a key is missing or unknown, or a value is impossible.
    """
    values = read_yaml(path)
    try:
        claims = tuple(_claim(path, dict(entry)) for entry in values["claims"])
        same = {"id": "pooled", "claim": "", "source": "", "test": "pooled", "says": "better", "changes": ""}
        pooled = _claim(path, {**same, **values["pooled"]})
        ranked = values["ranked"]
        made = Claims(claims, tuple(values["scales"]), float(values["margin"]), pooled, tuple(ranked["methods"]),
                      tuple(ranked["tables"]), int(values.get("removed", 0)))  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a file of claims ({type(error).__name__}: {error})") from error
    ids = [claim.id for claim in claims]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise UserError(f"{path}: {', '.join(twice)} occurs twice; give each claim its own id")
    used = {table for claim in (*claims, pooled) for table in claim.tables} | set(made.ranked_tables)
    if unknown := sorted(used - set(tables)):
        raise UserError(f"{path}: there is no table {', '.join(unknown)}; tables: {', '.join(sorted(tables))}")
    if unknown := [scale for scale in made.scales if scale not in SCALES]:
        raise UserError(f"{path}: scales has {', '.join(unknown)}, which is not one of {', '.join(SCALES)}")
    return made


def _claim(path: Path, entry: dict[str, Any]) -> Claim:
    name = entry.get("id", "a claim")
    for key in ("tables", "datasets"):
        if key in entry:
            entry[key] = tuple(map(str, entry[key]))
    try:
        claim = Claim(**entry)
    except TypeError as error:
        raise UserError(f"{path}: {name}: {str(error).replace('Claim.__init__() ', '')}") from error
    needs = {"cell": claim.against == "none" and len(claim.datasets) == 1, "less": bool(claim.x) and claim.at > 0
             and len(claim.datasets) == 1, "norm": claim.quantity in NORMS, "probe": bool(claim.quantity)}  # fmt: skip
    if claim.test not in TESTS or claim.says not in MEANS or not needs.get(claim.test, True):
        raise UserError(f"{path}: {name} has a test, a `says` or other keys that do not fit; see the comments there")
    return claim


def decide(claims: Claims, found: Sequence[Found]) -> list[Outcome]:
    """Return the outcome of every claim, decided by the most credible scale that can.

    The p-values of claims about one row (`cell`, `less`) are those of the row's table. All other claims of one source
    are a family, corrected by Holm.

    Args:
        claims: `read_claims(…)`.
        found: the tables that have records.

    Raises:
        UserError: a claim selects several rows of one method where it needs one.
    """
    evidence = {claim.id: list(cells(claim, found, claims.scales)) for claim in claims.claims}
    open_claims = [_weigh(claim, evidence[claim.id], claims.scales) for claim in claims.claims]
    for source in dict.fromkeys(claim.source for claim in claims.claims):
        family = [
            i for i, one in enumerate(open_claims) if one.claim.source == source and one.claim.test not in ONE_ROW
        ]  # fmt: skip
        for i, p in zip(family, holm([open_claims[i].p for i in family]), strict=True):
            open_claims[i] = replace(open_claims[i], p=p)
    return [_conclude(one, claims.margin) for one in open_claims]


def _weigh(claim: Claim, evidence: Sequence[Evidence], scales: Sequence[str]) -> Outcome:
    """Choose the comparisons that decide a claim; `p` is not corrected yet."""
    counting = [cell for cell in evidence if cell.counts]
    by_scale = {scale: [cell for cell in counting if cell.scale == scale] for scale in scales}
    enough = 1 if len(claim.datasets) == 1 else 2
    chosen = next((own for own in by_scale.values() if len(own) >= enough), [])
    if claim.test in ONE_ROW:
        chosen = chosen[:1]
    others = tuple(cell for cell in evidence if cell not in chosen)
    if not chosen:
        return Outcome(claim, NOT_TESTED, (), others)
    pooled = pool([cell.difference for cell in chosen]) if len(chosen) > 1 else None
    if claim.test in ONE_ROW:
        p = chosen[0].p
    else:
        p = pooled.p if pooled else chosen[0].difference.p if len(chosen) == 1 else math.nan
    return Outcome(claim, UNKNOWN, tuple(chosen), others, pooled, p)


def _conclude(one: Outcome, margin: float) -> Outcome:
    if not one.cells:
        return one
    limit = None if one.claim.test in RATIOS else margin
    if one.claim.test in ONE_ROW:
        said = one.cells[0].verdict
    elif len(one.cells) > 1:
        said = pooled_verdict(one.pooled, one.p, limit)
    else:
        said = verdict(one.cells[0].difference, one.p, limit)
    return replace(one, outcome=MEANS[one.claim.says].get(said, said))


def cells(claim: Claim, found: Iterable[Found], scales: Sequence[str]) -> Iterator[Evidence]:
    """Yield the comparisons that a claim is about, by scale and then in the order of its tables."""
    tables = {(one.scale, one.table.name): one for one in found}
    for scale in scales:
        seen: set[str] = set()
        for table in claim.tables:
            if (scale, table) not in tables:
                continue
            for cell in _less(claim, tables[scale, table]) if claim.test == "less" else _pairs(
                claim, tables[scale, table]):  # fmt: skip
                if cell.dataset not in seen:  # a data set counts once per scale
                    yield cell
                seen.add(cell.dataset)


def _less(claim: Claim, one: Found) -> Iterator[Evidence]:
    for row in one.less if one.table.x == claim.x else ():
        if (row.dataset in claim.datasets and row.method == claim.method and row.value == claim.at
                and row.difference.n):  # fmt: skip
            yield Evidence(one.table.name, one.scale, row.dataset, row.model, row.training_rows, row.difference,
                       p=row.p_holm, verdict=row.verdict)  # fmt: skip


def _pairs(claim: Claim, one: Found) -> Iterator[Evidence]:
    frame = one.frame
    values: Callable[[pd.DataFrame], dict[int, float]] = by_seed
    if claim.test == "norm":
        frame, values = one.normed, _logarithm(claim.quantity, lambda row: row[claim.quantity])
    elif claim.test == "probe":
        frame = one.probed
        values = _logarithm(claim.quantity, lambda row: row["probes"].get(claim.quantity, math.nan))
    frame = frame[frame["method"].isin([claim.method, claim.against])]
    if frame["method"].nunique() < 2:
        return
    for context, shared in frame.groupby("context", sort=False):
        if claim.datasets and shared.iloc[0]["dataset"] not in claim.datasets:
            continue
        own, other = _rows(claim, one, shared, claim.method, claim.where), _rows(claim, one, shared, claim.against, {})
        difference = paired_difference(values(own), values(other))
        if difference.n == 0:
            continue
        first = own.iloc[0]
        about = (one.table.name, one.scale, str(first["dataset"]), str(first["model"]), training_rows(own), difference)
        row = one.compared[(one.compared["context"] == context) & (one.compared["variant"] == first["variant"])].iloc[0]
        if claim.against == "none" and claim.test in ("cell", "pooled"):
            yield Evidence(*about, row["cost"], row["p_holm"], row["verdict"])
        else:
            yield Evidence(*about)


def _rows(claim: Claim, one: Found, shared: pd.DataFrame, method: str, where: Mapping[str, Any]) -> pd.DataFrame:
    own = shared[shared["method"] == method]
    fits = [all(settings.get(key) == value for key, value in where.items()) for settings in own["settings"]]
    own = own[pd.Series(fits, index=own.index, dtype=bool)]
    if own["variant"].nunique() > 1:
        raise UserError(f"claim {claim.id}: table {one.table.name} at {one.scale} has several rows of {method} on "
                        f"{own.iloc[0]['dataset']}; select one with `where`")  # fmt: skip
    return own


def _logarithm(quantity: str, value: Callable[[pd.Series], float]) -> Callable[[pd.DataFrame], dict[int, float]]:
    """Return a function from runs to the logarithm of a positive quantity by seed; seeds without it are left out."""

    def logarithms(runs: pd.DataFrame) -> dict[int, float]:
        known = {int(row["seed"]): value(row) for _, row in runs.iterrows()}
        return {seed: math.log(number) for seed, number in known.items() if number > 0}

    return logarithms


def scores(claims: Claims, found: Iterable[Found], scale: str) -> tuple[list[str], list[list[float]]]:
    """Return data sets and models on which every ranked method ran, and its mean accuracy, one row each."""
    names, table = [], []
    order = {name: i for i, name in enumerate(claims.ranked_tables)}
    own = [one for one in found if one.scale == scale and one.table.name in order]
    for one in sorted(own, key=lambda one: order[one.table.name]):
        for (dataset, model), rows in one.compared.groupby(["dataset_label", "model"], sort=False):
            means = {row.method: row.score.mean for row in rows.itertuples() if row.n >= MIN_SEEDS}
            once = all(method in means and (rows["method"] == method).sum() == 1 for method in claims.ranked)
            name = f"{dataset} / {model}"
            if once and name not in names:
                names.append(name)
                table.append([means[method] for method in claims.ranked])
    return names, table
