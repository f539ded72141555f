import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from dropattack.statistics import paired_difference
from dropattack.statistics.power import MOST, detectable, detectable_effect, power, seeds_needed


def differences(sd: float, n: int):
    values = np.linspace(-1, 1, n)
    values *= sd / values.std(ddof=1)
    return paired_difference(dict(enumerate(values)), dict.fromkeys(range(n), 0.0))


def test_power_of_the_textbook():
    """A paired t-test needs 34 pairs for an effect of 0.5 at 5 % and 80 % power (Cohen 1988; G*Power: 0.8078)."""
    assert power(0.5, 34) == pytest.approx(0.8078, abs=5e-5)
    assert power(0.5, 33) < 0.8
    assert power(0.0, 5) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05), (10, 0.005), (30, 0.01)])
def test_detectable_effect_agrees_with_statsmodels(n, alpha):
    theirs = TTestPower().solve_power(nobs=n, alpha=alpha, power=0.8)
    assert detectable_effect(n, alpha) == pytest.approx(theirs, rel=1e-4)


def test_large_effects_agree_with_a_simulation():
    """Scipy's noncentral t is NaN here: three seeds in a family of fifteen."""
    effect, dice = detectable_effect(3, 0.05 / 15), np.random.default_rng(0)
    x = dice.normal(effect, size=(100_000, 3))
    t = x.mean(1) / (x.std(1, ddof=1) / math.sqrt(3))
    assert (np.abs(t) > 17.28).mean() == pytest.approx(0.8, abs=0.01)  # t(1 − 0.05/30, 2) = 17.28


def test_the_difference_scales_with_the_spread():
    assert detectable(differences(2.0, 5), 0.05) == pytest.approx(2 * detectable_effect(5))
    assert math.isnan(detectable(differences(0.0, 5), 0.05))
    assert math.isnan(detectable(paired_difference({0: 1.0}, {0: 2.0}), 0.05))


@pytest.mark.parametrize(("sd", "alpha"), [(0.3, 0.05), (1.0, 0.01), (2.0, 0.05), (7.0, 0.003)])
def test_seeds_needed_is_the_smallest_number_that_is_enough(sd, alpha):
    needed = seeds_needed(differences(sd, 5), 1.0, alpha)
    assert sd * detectable_effect(needed, alpha) <= 1.0
    assert needed == 3 or sd * detectable_effect(needed - 1, alpha) > 1.0
    assert seeds_needed(differences(2.0, 5), 1.0, 0.05) == 34


def test_too_many_seeds_are_infinite():
    assert seeds_needed(differences(1000.0, 5), 1.0, 0.05) == math.inf
    assert seeds_needed(differences(0.0, 5), 1.0, 0.05) != 3  # NaN
    assert MOST >= 100_000


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (5, 0.0), (5, 1.0)])
def test_impossible_tests_are_refused(n, alpha):
    with pytest.raises(ValueError, match="the t-test needs"):
        power(1.0, n, alpha)
