"""One answer over several data sets: a random-effects estimate, a Bayesian signed-rank test, and mean ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dropattack.statistics.paired import BETTER, EQUIVALENT, MARGIN, UNKNOWN, WORSE, PairedDifference


@dataclass(frozen=True)
class Pooled:
    """A random-effects estimate over k data sets.

    Attributes:
        mean: estimated mean difference over data sets like these.
        sd: its standard error, by Hartung and Knapp, modified (see `pool`).
        low: lower end of its 95 % interval.
        high: its upper end.
        k: number of data sets.
        p: two-sided p-value of no mean difference.
        tau: estimated standard deviation of the true difference between data sets, by DerSimonian and Laird.
        i2: share of the variance that is between data sets.
        p_heterogeneity: of Cochran's Q test that the true difference is the same on all data sets.
    """

    mean: float
    sd: float
    low: float
    high: float
    k: int
    p: float
    tau: float
    i2: float
    p_heterogeneity: float


def pool(differences: Sequence[PairedDifference]) -> Pooled | None:
    """Return the pool of `differences`, one per data set; None if fewer than two have a spread over seeds.

    The variance of each difference is estimated from its seeds. The standard error is never smaller than without the
    correction of Hartung and Knapp (Röver et al. 2015, 10.1186/s12874-015-0091-1), which matters for few data sets.
    (statsmodels' `combine_effects` gives NaN where the estimated variance between data sets is negative.)
    """
    usable = [d for d in differences if d.n >= 2 and d.sd > 0]
    if len(usable) < 2:
        return None
    means, variances = np.array([d.mean for d in usable]), np.array([d.sd**2 / d.n for d in usable])
    k, fixed = len(usable), 1 / variances
    q = float(fixed @ (means - fixed @ means / fixed.sum()) ** 2)
    tau2 = max(0.0, (q - (k - 1)) / (fixed.sum() - fixed @ fixed / fixed.sum()))
    weights = 1 / (variances + tau2)
    mean = float(weights @ means / weights.sum())
    spread = float(weights @ (means - mean) ** 2) / (k - 1)
    sd = math.sqrt(max(1.0, spread) / weights.sum())
    half = float(stats.t.ppf(0.975, k - 1)) * sd
    return Pooled(mean, sd, mean - half, mean + half, k, p=float(2 * stats.t.sf(abs(mean) / sd, k - 1)),
                  tau=math.sqrt(tau2), i2=max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0,
                  p_heterogeneity=float(stats.chi2.sf(q, k - 1)))  # fmt: skip


def pooled_verdict(pooled: Pooled | None, p_adjusted: float, margin: float | None = MARGIN, alpha: float = 0.05) -> str:
    """Return the verdict on a pooled difference, by the rule of `paired.verdict`; without one it is not known."""
    if pooled is None or math.isnan(p_adjusted):
        return UNKNOWN
    if p_adjusted < alpha:
        return BETTER if pooled.mean > 0 else WORSE
    if margin is None:
        return UNKNOWN
    p_equivalent = float(stats.t.sf((margin - abs(pooled.mean)) / pooled.sd, pooled.k - 1))
    return EQUIVALENT if p_equivalent < alpha else UNKNOWN


@dataclass(frozen=True)
class Posterior:
    """Probabilities that on a further data set a method is worse, equivalent (within the margin) or better."""

    worse: float
    equivalent: float
    better: float


def signed_rank(differences: Sequence[float], margin: float = MARGIN, *, samples: int = 50_000) -> Posterior:
    """Return the posterior of the Bayesian signed-rank test with a region of practical equivalence.

    The prior is a pseudo-observation of zero with weight 0.5 (Benavoli et al. 2014 and 2017, JMLR 18:77).

    Args:
        differences: one mean difference per data set.
        margin: half the width of the region.
        samples: drawn from the posterior, with a fixed seed.
    """
    z = np.concatenate([[0.0], np.asarray(differences, dtype=np.float64)])
    sums = z[:, None] + z[None, :]
    weights = np.random.default_rng(0).dirichlet(np.r_[0.5, np.ones(len(z) - 1)], size=samples)
    below, above = (((weights @ _share(sign * sums, 2 * margin)) * weights).sum(1) for sign in (-1, 1))
    winner = np.argmax(np.stack([below, 1 - below - above, above]), axis=0)
    worse, equivalent, better = np.bincount(winner, minlength=3) / samples
    return Posterior(float(worse), float(equivalent), float(better))


def _share(sums: np.ndarray, end: float) -> np.ndarray:
    return (sums > end) + 0.5 * (sums == end)


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of k methods over n data sets (1 is best).

    Attributes:
        mean: by the methods' order.
        n: number of data sets.
        p: of Friedman's test that all methods rank alike.
        critical: difference of mean ranks that Nemenyi's test calls significant at 5 %.
    """

    mean: tuple[float, ...]
    n: int
    p: float
    critical: float


def ranks(scores: Sequence[Sequence[float]], alpha: float = 0.05) -> Ranks:
    """Return the methods' mean ranks, Friedman's test and Nemenyi's critical difference (Demšar 2006, JMLR 7:1).

    Args:
        scores: one row per data set, one column per method, higher is better; at least two rows and three columns.
        alpha: level of Nemenyi's test.

    Raises:
        ValueError: there are too few rows or columns.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        raise ValueError("mean ranks need at least two data sets and three methods")
    n, k = table.shape
    mean = stats.rankdata(-table, axis=1).mean(0)
    q = float(stats.studentized_range.ppf(1 - alpha, k, math.inf)) / math.sqrt(2)
    return Ranks(tuple(map(float, mean)), n, float(stats.friedmanchisquare(*table.T).pvalue),
                 q * math.sqrt(k * (k + 1) / (6 * n)))  # fmt: skip
