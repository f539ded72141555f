"""Statistics over a few seeds: means, intervals, paired differences, corrected p-values, verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

MIN_SEEDS = 3
MARGIN = 0.5  # points of accuracy
VERDICTS = BETTER, EQUIVALENT, WORSE, UNKNOWN = "better", "equivalent", "worse", "not known"


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds, its sample standard deviation, and its Student's t-interval."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedDifference(Estimate):
    """The mean of the per-seed differences, and the two-sided p-value of the null hypothesis of no difference."""

    p: float
    values: tuple[float, ...]


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the mean of `values` (one per seed) with its t-interval; with one value, spread and interval are NaN.

    Raises:
        ValueError: a value is non-finite, or `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"values must be finite, got {list(values)}")
    n = x.size
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    sd = 0.0 if _all_equal(x) else float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, n)


def paired_difference(
    method: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference:
    """Return `method` minus `baseline` over their common seeds, with the p-value of the paired t-test.

    The t-test is undefined if all differences are equal. In that case the p-value is that of the exact sign-flip test:
    1 if they are all zero, otherwise 2^(1 - n), the chance that n fair coins all come up the same.

    Args:
        method: value by seed.
        baseline: value by seed.
        confidence: of the interval, between 0 and 1.
    """
    seeds = sorted(method.keys() & baseline.keys())
    values = tuple(float(method[seed]) - float(baseline[seed]) for seed in seeds)
    e = estimate(values, confidence)
    if e.n < 2:
        p = math.nan
    elif e.sd > 0:
        p = float(2 * stats.t.sf(abs(e.mean) / (e.sd / math.sqrt(e.n)), e.n - 1))
    else:
        p = 1.0 if abs(e.mean) < 1e-12 else 2.0 ** (1 - e.n)
    return PairedDifference(e.mean, e.sd, e.low, e.high, e.n, p, values)


def equivalence(difference: PairedDifference, margin: float) -> float:
    """Return the p-value of two one-sided paired t-tests: small if the difference lies within ± `margin`.

    If all differences are equal, the t-test is undefined; the p-value is then that of the exact sign-flip test, as in
    `paired_difference`: 2^-n if they are within the margin, otherwise 1.

    Args:
        difference: over the seeds.
        margin: in the unit of the difference.

    Raises:
        ValueError: `margin` is not positive.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be positive, got {margin}")
    d = difference
    if d.n < 2:
        return math.nan
    room = margin - abs(d.mean)  # to the nearer end: its test has the larger p-value
    if d.sd > 0:
        return float(stats.t.sf(room / (d.sd / math.sqrt(d.n)), d.n - 1))
    return 2.0**-d.n if room > 1e-12 else 1.0


def holm(p_values: Sequence[float], planned: int = 0) -> list[float]:
    """Return the p-values of a family with Holm's correction. NaN means not tested: it stays NaN and is not counted.

    Args:
        p_values: of the family.
        planned: comparisons in the plan; those beyond the tested ones count as if they had been tested with p = 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    adjusted = np.full(p.shape, math.nan)
    if tested.any():
        missing = np.ones(max(planned - int(tested.sum()), 0))
        adjusted[tested] = multipletests(np.concatenate([p[tested], missing]), method="holm")[1][: tested.sum()]
    return adjusted.tolist()


def verdict(difference: PairedDifference, p_adjusted: float, margin: float | None = MARGIN, alpha: float = 0.05) -> str:
    """Return one of `VERDICTS` on a method against the baseline.

    A difference that is shown is better or worse, however small. One that is not shown is equivalent if it is shown to
    lie within the margin, and otherwise not known, as with fewer than `MIN_SEEDS` pairs.

    Args:
        difference: over the seeds.
        p_adjusted: p-value of the difference, corrected for its family.
        margin: of equivalence, in the unit of the difference; None: equivalence is not defined for this quantity.
        alpha: level of both tests; the one of equivalence is not corrected.
    """
    if difference.n < MIN_SEEDS or math.isnan(p_adjusted):
        return UNKNOWN
    if p_adjusted >= alpha:
        return EQUIVALENT if margin is not None and equivalence(difference, margin) < alpha else UNKNOWN
    return BETTER if difference.mean > 0 else WORSE


def _all_equal(x: np.ndarray) -> bool:
    """Return whether all values are equal up to rounding: 0.9 - 0.8 and 0.8 - 0.7 differ in the last bit."""
    return bool(np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())))
