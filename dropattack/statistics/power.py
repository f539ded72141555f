"""Power of the paired t-test: the smallest difference that n seeds detect, and the seeds that a difference needs."""

import math
from functools import cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from dropattack.statistics.paired import MIN_SEEDS, PairedDifference

POWER = 0.8
MOST = 2**17  # seeds; more are reported as not reachable
_SHARES, _WEIGHTS = (0.5 * array + shift for array, shift in zip(np.polynomial.legendre.leggauss(400), (0.5, 0.0),
                                                                 strict=True))  # fmt: skip


def power(effect: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided one-sample t-test on n differences.

    The noncentral t distribution is integrated over the sample's variance here, because that of scipy 1.17 is NaN for
    the large effects that three seeds need.

    Args:
        effect: true mean difference in standard deviations of the differences.
        n: number of differences, at least 2.
        alpha: level of the test.
    """
    critical, scale = _test(n, alpha)
    shift = abs(effect) * math.sqrt(n)
    rejected = ndtr(shift - critical * scale) + ndtr(-shift - critical * scale)
    return float(_WEIGHTS @ rejected)


@cache
def _test(n: int, alpha: float) -> tuple[float, np.ndarray]:
    """Return the critical value, and the ratio of the sample's standard deviation to the true one at each node."""
    if n < 2 or not 0 < alpha < 1:
        raise ValueError(f"the t-test needs n >= 2 and alpha between 0 and 1, got n = {n} and alpha = {alpha}")
    return float(stats.t.isf(alpha / 2, n - 1)), np.sqrt(stats.chi2.ppf(_SHARES, n - 1) / (n - 1))


@cache
def detectable_effect(n: int, alpha: float = 0.05, wanted: float = POWER) -> float:
    """Return the smallest effect, in standard deviations, that the test detects with power `wanted`."""
    critical, scale = _test(n, alpha)
    largest = (critical * float(scale.max()) + 10) / math.sqrt(n)
    return float(brentq(lambda effect: power(effect, n, alpha) - wanted, 0.0, largest, xtol=1e-10))


def detectable(difference: PairedDifference, alpha: float) -> float:
    """Return the smallest difference that these seeds could have detected with 80 % power, with their own spread.

    Args:
        difference: over the seeds; NaN is returned if its spread is unknown or zero.
        alpha: level of the test.
    """
    known = difference.n >= 2 and difference.sd > 0
    return difference.sd * detectable_effect(difference.n, alpha) if known else math.nan


def seeds_needed(difference: PairedDifference, gain: float, alpha: float) -> float:
    """Return how many seeds would detect `gain` with 80 % power at this spread; infinity if more than `MOST`.

    Args:
        difference: its standard deviation is taken as the true one; NaN is returned if it is unknown or zero.
        gain: the difference to detect, in the same unit.
        alpha: level of the test.
    """
    if difference.n < 2 or not difference.sd > 0:
        return math.nan

    def enough(n: int) -> bool:
        return power(gain / difference.sd, n, alpha) >= POWER

    low, high = MIN_SEEDS - 1, MIN_SEEDS
    while not enough(high):
        if high >= MOST:
            return math.inf
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
