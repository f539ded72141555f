"""Uncertainty of the test set: comparisons of two methods by the rows that each gets right."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

SAMPLES = 2000


@dataclass(frozen=True)
class RowComparison:
    """Two methods on the same test rows.

    Attributes:
        low: lower end of the 95 % percentile interval of the difference in accuracy, as a fraction; the bootstrap
            draws rows and seeds.
        high: its upper end.
        p: of McNemar's exact test on the majority votes over the seeds; a tie is between right and wrong.
        pairs: number of seeds.
        shown: number of seeds whose own McNemar test has p < 5 %.
        rows: number of test rows.
    """

    low: float
    high: float
    p: float
    pairs: int
    shown: int
    rows: int


def compare_rows(method: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray]) -> RowComparison | None:
    """Return the comparison of two methods over their common seeds; None if they have none.

    Args:
        method: by seed, which test rows it got right: bool [rows].
        baseline: the same for the other method, on the same rows in the same order.

    Raises:
        ValueError: the numbers of rows differ.
    """
    seeds = sorted(method.keys() & baseline.keys())
    if not seeds:
        return None
    if len({one.shape for seed in seeds for one in (method[seed], baseline[seed])}) > 1:
        raise ValueError("the runs were tested on different numbers of rows")
    own, other = (np.array([runs[seed] for seed in seeds], dtype=bool) for runs in (method, baseline))
    low, high = bootstrap(own, other)
    shown = sum(mcnemar_p(a, b) < 0.05 for a, b in zip(own, other, strict=True))
    gain = votes(own) - votes(other)
    return RowComparison(low, high, mcnemar_p(gain > 0, gain < 0), len(seeds), shown, own.shape[1])


def votes(correct: np.ndarray) -> np.ndarray:
    """Return the vote of the seeds on each row, 1 (right), 0 (tie) or -1 (wrong): bool [seeds, rows] to int [rows]."""
    return np.sign(2 * correct.sum(0) - len(correct))


def mcnemar_p(own: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test on two classifiers' correct rows, bool [rows] each."""
    only_own, only_other = int((own & ~other).sum()), int((other & ~own).sum())
    return float(mcnemar([[0, only_own], [only_other, 0]], exact=True).pvalue)


def bootstrap(
    own: np.ndarray, other: np.ndarray, *, samples: int = SAMPLES, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of the mean of `own - other` when rows and seeds are both drawn again.

    Each sample draws as many seeds and as many rows as there are, with replacement, and a seed's rows are the same for
    both methods. With few seeds the interval is too narrow, as percentile intervals are. With one seed it covers the
    rows alone.

    Args:
        own: bool [seeds, rows].
        other: bool [seeds, rows].
        samples: number of samples.
        confidence: of the interval.
        seed: of the generator; the same inputs give the same interval.
    """
    dice = np.random.default_rng(seed)
    # Rows that are equal in all seeds are exchangeable: their number in a sample is multinomial.
    kinds, counts = np.unique(own.astype(np.int8) - other.astype(np.int8), axis=1, return_counts=True)
    n, rows = own.shape
    drawn_rows = dice.multinomial(rows, counts / rows, size=samples)  # [samples, kinds]
    drawn_seeds = dice.multinomial(n, np.full(n, 1 / n), size=samples)  # [samples, seeds]
    means = np.einsum("bs,sk,bk->b", drawn_seeds, kinds.astype(np.int64), drawn_rows, optimize=True) / (n * rows)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
