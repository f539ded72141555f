import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from dropattack.statistics import (
    BETTER,
    EQUIVALENT,
    UNKNOWN,
    VERDICTS,
    WORSE,
    equivalence,
    estimate,
    holm,
    paired_difference,
    verdict,
)

ACCURACIES = st.lists(st.floats(0, 100), min_size=2, max_size=8)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_interval_equals_the_textbook_formula():
    """Three values 1, 2, 3: t(0.975, 2) = 4.303, so 2 ± 4.303 · 1/√3."""
    e = estimate([1.0, 2.0, 3.0])
    assert (e.mean, e.sd, e.n) == (2.0, 1.0, 3)
    assert e.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert e.low == pytest.approx(4 - e.high)


def test_one_value_only_has_a_mean():
    e = estimate([91.5])
    assert (e.mean, e.n) == (91.5, 1)
    assert math.isnan(e.sd)
    assert math.isnan(e.low)


def test_no_values_give_nan():
    assert estimate([]).n == 0
    assert math.isnan(estimate([]).mean)


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf]])
def test_rejects_non_finite_value(values):
    with pytest.raises(ValueError, match="finite"):
        estimate(values)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_rejects_confidence_out_of_range(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1.0, 2.0], confidence)


@given(ACCURACIES, st.integers(0, 2**32 - 1))
def test_paired_differences_agree_with_scipy(values, seed):
    noise = np.random.default_rng(seed).normal(size=len(values))
    ours = paired_difference(dict(enumerate(values)), dict(enumerate(values + noise)))
    theirs = stats.ttest_rel(values, values + noise)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-8)


def test_pairs_are_matched_by_seed():
    d = paired_difference({0: 5.0, 1: 7.0, 9: 99.0}, {1: 4.0, 0: 4.0, 5: 0.0})
    assert d.values == (1.0, 3.0)
    assert d.n == 2


@given(ACCURACIES)
def test_equal_results_have_p_one(values):
    d = paired_difference(dict(enumerate(values)), dict(enumerate(values)))
    assert (d.mean, d.sd, d.p) == (0.0, 0.0, 1.0)


def test_equal_differences_get_the_sign_flip_test_not_certainty():
    """0.9 - 0.8 and 0.8 - 0.7 differ in the last bit: a t-test would call that overwhelming evidence."""
    d = paired_difference({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.8, 1: 0.7, 2: 0.6})
    assert d.sd == 0
    assert d.p == 0.25


def test_one_pair_has_no_p_value():
    assert math.isnan(paired_difference({0: 1.0}, {0: 2.0}).p)
    assert math.isnan(paired_difference({}, {}).p)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 → ×3, ×2, ×1, made monotone; NaN (not tested) is not counted."""
    assert holm([0.02, math.nan, 0.01, 0.04])[::2] == pytest.approx([0.04, 0.03])
    assert holm([0.02, math.nan, 0.01, 0.04])[3] == pytest.approx(0.04)
    assert math.isnan(holm([0.02, math.nan])[1])
    assert holm([]) == []
    assert holm([0.02]) == [0.02], "nothing beyond the tests is planned"


def test_holm_counts_planned_comparisons_that_are_missing():
    """One of five planned tests with p = 0.016: 5 · 0.016, as if the other four had p = 1."""
    assert holm([0.016], planned=5) == pytest.approx([0.08])
    assert holm([0.02, math.nan, 0.01], planned=3)[::2] == pytest.approx([0.04, 0.03])
    assert holm([0.02, 0.01], planned=1) == holm([0.02, 0.01])
    assert math.isnan(holm([math.nan], planned=5)[0])


def differences(*values):
    return paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=8, unique=True), st.floats(0.05, 3))
def test_equivalence_agrees_with_statsmodels(values, margin):
    d = differences(*values)
    if d.sd > 1e-9:
        assert equivalence(d, margin) == pytest.approx(
            ttost_paired(np.array(values), np.zeros(len(values)), -margin, margin)[0], abs=1e-9
        )


def test_equal_differences_are_equivalent_by_the_sign_flip_test():
    assert equivalence(differences(0, 0, 0, 0, 0), 0.5) == 1 / 32
    assert equivalence(differences(0.4, 0.4, 0.4), 0.5) == 1 / 8
    assert equivalence(differences(0.5, 0.5, 0.5), 0.5) == 1
    assert math.isnan(equivalence(differences(0.1), 0.5))
    assert equivalence(differences(0.1, 0.1), 0.5) == 1 / 4, "two pairs are enough for a test"


@pytest.mark.parametrize("margin", [0, -1, math.inf, math.nan])
def test_margin_must_be_positive(margin):
    with pytest.raises(ValueError, match="margin must be positive"):
        equivalence(differences(1, 2, 3), margin)


@pytest.mark.parametrize(
    ("gain", "p", "seeds", "margin", "said"),
    [
        (1, 0.01, 5, 0.5, BETTER),
        (-1, 0.01, 5, 0.5, WORSE),
        (1, 0.05, 5, 0.5, UNKNOWN),
        (1, 0.01, 3, 0.5, BETTER),  # three seeds are enough
        (1, 0.01, 2, 0.5, UNKNOWN),
        (1, math.nan, 5, 0.5, UNKNOWN),
        (0, 0.5, 5, 0.5, EQUIVALENT),
        (0, 0.5, 2, 0.5, UNKNOWN),
        (0, 0.5, 5, None, UNKNOWN),
        (1, 0.08, 5, 2.0, EQUIVALENT),
        (0.1, 0.01, 5, 0.5, BETTER),  # a shown difference counts, however small
    ],
)
def test_verdicts(gain, p, seeds, margin, said):
    difference = paired_difference({s: gain + 0.01 * s for s in range(seeds)}, dict.fromkeys(range(seeds), 0.0))
    assert verdict(difference, p, margin) == said


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(1, 10), st.floats(0.1, 3))
def test_verdicts_are_consistent(values, family, margin):
    """They agree with the interval, mirror with the sign, and never get bolder in a larger family."""
    d = differences(*values)
    p = holm([d.p], planned=family)[0]
    said = verdict(d, p, margin)
    assert said in VERDICTS
    mirrored = {BETTER: WORSE, WORSE: BETTER}
    assert verdict(differences(*(-v for v in values)), p, margin) == mirrored.get(said, said)
    if said in mirrored and d.sd > 0:
        assert d.low > 0 or d.high < 0
    if said == EQUIVALENT:
        assert abs(d.mean) < margin
        assert verdict(d, p, 2 * margin) == EQUIVALENT
    if verdict(d, d.p, margin) not in mirrored:
        assert said not in mirrored
