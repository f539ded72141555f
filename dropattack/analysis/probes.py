"""Tables of probes, one per data set and model: every quantity over seeds, and its difference to the baseline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.formats import MINUS, NOTHING, Table, csv, p_value
from dropattack.probes import store
from dropattack.statistics import BETTER, WORSE, Estimate, estimate, holm, paired_difference, verdict


@dataclass(frozen=True)
class Quantity:
    """One number per run: its key in the store, its label, and which direction is better (0: neither)."""

    key: str
    label: str
    better: int = 0
    factor: float = 1.0


QUANTITIES = (
    Quantity("calibration.accuracy", "test accuracy, %", 1, 100),
    Quantity("calibration.gap_accuracy", "accuracy, train − test, points", -1, 100),
    Quantity("calibration.gap_loss", "loss, test − train", -1),
    Quantity("calibration.ece", "calibration error (ECE), %", -1, 100),
    Quantity("calibration.brier", "Brier score", -1),
    Quantity("calibration.nll", "test loss", -1),
    Quantity("gradients.input", "‖∂L/∂x‖"),
    Quantity("gradients.hidden", "‖∂L/∂W‖, hidden"),
    Quantity("gradients.weights", "‖∂L/∂W‖, all"),
    Quantity("flatness.sharpness", "sharpness, ρ = 0.05"),
    Quantity("flatness.adaptive_sharpness", "adaptive sharpness, ρ = 0.5"),
    Quantity("flatness.hessian_eigenvalue", "largest Hessian eigenvalue"),
    Quantity("flatness.hessian_trace", "Hessian trace"),
    Quantity("flatness.relative_noise_0.1", "loss rise, 10 % noise"),
    Quantity("robustness.clean", "accuracy on these rows as they are, %", 1, 100),
    Quantity("robustness.fgsm.0.1", "accuracy under FGSM, ε = 0.1, %", 1, 100),
    Quantity("robustness.pgd.0.1", "accuracy under PGD, ε = 0.1, %", 1, 100),
    Quantity("robustness.pgd.0.00784314", "accuracy under PGD, ε = 2/255, %", 1, 100),
    Quantity("robustness.gaussian_noise.0.2", "accuracy under noise, σ = 0.2, %", 1, 100),
    Quantity("robustness.word_drop.0.2", "accuracy, 20 % of words dropped, %", 1, 100),
    Quantity("robustness.word_swap.0.2", "accuracy, 20 % of words swapped, %", 1, 100),
)
HIGHER, LOWER = "higher", "lower"


def with_probes(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the rows of `frame` (`read_records(…).frame`) with probes in a store; add `probes`: {"ece": 0.01, …}.

    Raises:
        UserError: the store is damaged.
    """
    contents = store.of_kind(path, store.PROBES).values()
    found = {content["run_id"]: content for content in contents}
    there = [_is_of(found.get(row.run_id), row.test_accuracy) for row in frame.itertuples()]
    kept = frame[pd.Series(there, index=frame.index, dtype=bool)]
    return kept.assign(probes=[flat(found[run_id]["probes"]) for run_id in kept["run_id"]])


def _is_of(content: Mapping[str, Any] | None, accuracy: float) -> bool:
    """Return whether a line has the probes of the weights with this test accuracy; older lines do not say."""
    return content is not None and math.isclose(content.get("result", [accuracy])[0], accuracy, abs_tol=1e-8)


def flat(probes: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten {"flatness": {"sharpness": {"mean": 0.1, …}}} to {"flatness.sharpness": 0.1}, leaving out nulls."""
    values: dict[str, float] = {}
    for key, value in probes.items():
        if isinstance(value, Mapping):
            deeper = {"": value["mean"]} if "mean" in value else value
            values |= {k.removesuffix("."): v for k, v in flat(deeper, f"{prefix}{key}.").items()}
        elif isinstance(value, int | float):
            values[f"{prefix}{key}"] = float(value)
    return values


def compare_probes(frame: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """Return one row per quantity and method, in each context, without quantities that no run has.

    Differences are paired by seed. The p-values are Holm-corrected over the methods, for each quantity, data set and
    model separately. The verdict is better or worse for quantities with a better direction, otherwise higher or lower.

    Args:
        frame: the result of `with_probes`.
        baseline: the method that the others are compared with.
    """
    rows = []
    for cell in compare(frame, baseline).itertuples():
        shared = frame[frame["context"] == cell.context]
        own = shared[shared["variant"] == cell.variant]
        plain = shared[shared["method"] == baseline]
        alone = plain["variant"].nunique() == 1
        for quantity in _present(frame):
            theirs = {} if cell.method == baseline or not alone else _by_seed(plain, quantity)
            values = _by_seed(own, quantity)
            if not values:
                continue
            difference = paired_difference(values, theirs)
            rows.append({
                **{key: getattr(cell, key) for key in ("context", "dataset", "model", "dataset_label", "method",
                                                       "method_label")},
                "quantity": quantity, "n": len(values), "score": estimate(list(values.values())),
                "difference": difference, "p": difference.p,
            })  # fmt: skip
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    keys = [q.key for q in table["quantity"]]
    for _, family in table.groupby([table["dataset_label"], table["model"], pd.Series(keys)], sort=False):
        table.loc[family.index, "p_holm"] = holm(family["p"].astype(float).tolist())
    table["verdict"] = [
        _verdict(r.quantity, r.difference, r.p_holm) if r.difference.n else "" for r in table.itertuples()
    ]
    return table


def probe_table(compared: pd.DataFrame, baseline: str = "none") -> Table:
    """Return the table of `QUANTITIES`; `compared` holds the rows of one data set and model of `compare_probes(…)`."""
    headline = {q.key for q in QUANTITIES}
    rows = [
        (
            row.quantity.label, str(row.method_label), str(row.n), interval_text(row.score),
            "baseline" if row.method == baseline else interval_text(row.difference, sign=True),
            p_value(row.p_holm), row.verdict or NOTHING,
        )
        for row in sorted(compared.itertuples(), key=lambda row: _rank(row.quantity.key))
        if row.quantity.key in headline
    ]  # fmt: skip
    columns = ("quantity", "method", "n", "mean [95 % interval]", f"difference to {baseline} [95 % interval]",
               "p (Holm)", "verdict")  # fmt: skip
    notes = (
        "Means over the n seeds; intervals are Student's t at 95 %. Differences are paired by seed; p-values of the "
        "paired t-test are corrected by Holm over the methods, for each quantity apart.",
        "Equivalence is not tested here, because no margin is defined for these quantities.",
        "What each quantity is: docs/probes.md.",
    )
    return Table(columns, tuple(rows), 2, notes)


def probe_csv(compared: pd.DataFrame) -> str:
    """Return every quantity at full precision, in the units of the store."""
    rows = [
        {
            "dataset": row.dataset, "model": row.model, "dataset_label": row.dataset_label, "method": row.method,
            "method_label": row.method_label, "quantity": row.quantity.key, "n": row.n,
            **{key: getattr(row.score, key) / row.quantity.factor for key in ("mean", "sd", "low", "high")},
            **{f"difference{end}": getattr(row.difference, key) / row.quantity.factor
               for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))},
            "pairs": row.difference.n, "p": row.p, "p_holm": row.p_holm, "verdict": row.verdict,
        }
        for row in compared.itertuples()
    ]  # fmt: skip
    return csv(pd.DataFrame(rows), float_format="%.9g")


def _present(frame: pd.DataFrame) -> list[Quantity]:
    """Return the headline quantities that some run has, then all others by name."""
    there = {key for probes in frame["probes"] for key in probes}
    known = [q for q in QUANTITIES if q.key in there]
    rest = sorted(there - {q.key for q in known})
    signs = {"robustness": 1, "calibration": -1}
    return [*known, *(Quantity(key, key, signs.get(key.partition(".")[0], 0)) for key in rest if "train_" not in key)]


def _by_seed(runs: pd.DataFrame, quantity: Quantity) -> dict[int, float]:
    pairs = zip(runs["seed"], runs["probes"], strict=True)
    return {int(seed): quantity.factor * probes[quantity.key] for seed, probes in pairs if quantity.key in probes}


def neutral(verdict: str) -> str:
    """Return the verdict for a quantity without a better direction: higher or lower."""
    return {BETTER: HIGHER, WORSE: LOWER}.get(verdict, verdict)


def _verdict(quantity: Quantity, difference: Any, p: float) -> str:
    if quantity.better:
        return verdict(replace(difference, mean=quantity.better * difference.mean), p, margin=None)
    return neutral(verdict(difference, p, margin=None))


def _rank(key: str) -> int:
    return next((i for i, q in enumerate(QUANTITIES) if q.key == key), len(QUANTITIES))


def interval_text(e: Estimate, *, sign: bool = False) -> str:
    """Format as `0.1251 [0.1013, 0.1489]`, with four digits; one value has no interval."""
    if e.n == 0:
        return NOTHING
    form = f"{'+' if sign else ''}.4g"
    ends = [value for value in (e.low, e.high) if not math.isnan(value)]
    mean = 0.0 if abs(e.mean) < 1e-6 * max(map(abs, ends), default=0.0) else e.mean  # zero up to rounding
    text = f"{mean:{form}}" if not ends else f"{mean:{form}} [{e.low:{form}}, {e.high:{form}}]"
    return text.replace("-", MINUS)
