import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from dropattack.statistics import BETTER, EQUIVALENT, UNKNOWN, VERDICTS, WORSE, paired_difference
from dropattack.statistics.pooled import Pooled, pool, pooled_verdict, ranks, signed_rank


def differences(mean: float, sd: float, n: int = 5):
    values = np.linspace(-1, 1, n)
    values = mean + values * sd / values.std(ddof=1)
    return paired_difference(dict(enumerate(values)), dict.fromkeys(range(n), 0.0))


def test_pooled_by_hand():
    """Variances of the means 0.1, 0.2, 0.3: see the DerSimonian-Laird formulas, checked against statsmodels."""
    cells = [differences(m, math.sqrt(5 * v)) for m, v in ((1.0, 0.1), (2.0, 0.2), (0.5, 0.3))]
    found = pool(cells)
    assert found.tau**2 == pytest.approx(0.2958333)
    assert found.mean == pytest.approx(1.189288, abs=1e-6)
    assert found.i2 == pytest.approx(0.617391, abs=1e-6)
    assert found.sd == pytest.approx(0.421771, abs=1e-6)  # Hartung and Knapp's
    assert (found.low, found.high) == pytest.approx((-0.625445, 3.004021), abs=1e-5)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.2, 3)), min_size=2, max_size=8))
def test_pooled_agrees_with_statsmodels(cells):
    found = pool([differences(m, sd) for m, sd in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        means, sds = np.array(cells).T
        theirs = combine_effects(means, sds**2 / 5, method_re="chi2", use_t=True)
    if theirs.tau2 > 1e-9:
        assert found.mean == pytest.approx(theirs.mean_effect_re, abs=1e-8)
        assert found.sd == pytest.approx(max(theirs.sd_eff_w_re_hksj, theirs.sd_eff_w_re), rel=1e-7)
    else:
        assert found.tau == pytest.approx(0, abs=1e-4)
        assert found.mean == pytest.approx(theirs.mean_effect_fe, abs=1e-4)
    assert found.p_heterogeneity == pytest.approx(stats.chi2.sf(theirs.q, len(cells) - 1), abs=1e-5)  # steep at q = 0


def test_one_data_set_or_no_spread_is_not_pooled():
    assert pool([differences(1, 1)]) is None
    assert pool([differences(1, 1), differences(2, 0)]) is None
    assert pooled_verdict(None, 0.01) == UNKNOWN


@pytest.mark.parametrize(
    ("means", "said"),
    [((3, 3.1, 2.9), BETTER), ((-3, -3.1, -2.9), WORSE), ((0.01, -0.02, 0.0), EQUIVALENT), ((3, -3, 1), UNKNOWN)],
)
def test_pooled_verdicts(means, said):
    found = pool([differences(m, 0.2) for m in means])
    assert pooled_verdict(found, found.p) == said
    assert pooled_verdict(found, math.nan) == UNKNOWN
    if said == EQUIVALENT:
        assert pooled_verdict(found, found.p, margin=None) == UNKNOWN


@pytest.mark.parametrize(("ratio", "said"), [(2.93, EQUIVALENT), (2.91, UNKNOWN)])
def test_equivalence_needs_the_t_quantile_of_its_data_sets(ratio, said):
    """Of three data sets, 2 degrees of freedom: 0.1 below the margin must be 2.920 standard errors."""
    found = Pooled(0.4, 0.1 / ratio, math.nan, math.nan, 3, p=0.5, tau=0.0, i2=0.0, p_heterogeneity=1.0)
    assert pooled_verdict(found, 0.5, margin=0.5) == said
    assert pooled_verdict(found, 0.05, margin=0.5) == said, "p at the level is not below it"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(0.2, 2))
def test_pooled_verdicts_are_consistent(means, sd):
    found = pool([differences(m, sd) for m in means])
    mirrored = pool([differences(-m, sd) for m in means])
    said, other = pooled_verdict(found, found.p), pooled_verdict(mirrored, mirrored.p)
    assert said in VERDICTS
    assert other == {BETTER: WORSE, WORSE: BETTER}.get(said, said)
    assert (said in (BETTER, WORSE)) == (found.low > 0 or found.high < 0)


# Probabilities by baycomp 1.0.3, `SignedRankTest.probs(zeros, differences, rope, nsamples=200000, random_state=0)`.
BAYCOMP = [
    ((2.52, -2.65, 3.08, -0.82, 1.12), 0.5, (0.23412, 0.03365, 0.73223)),
    ((2.52, -2.65, 3.08, -0.82, 1.12), 1.0, (0.054675, 0.45426, 0.491065)),
    ((0.1, 0.2, -0.3, 0.05, 0.3, 0.0, 1.2), 0.5, (0.0, 0.931175, 0.068825)),
]


@pytest.mark.parametrize(("means", "margin", "theirs"), BAYCOMP)
def test_signed_rank_agrees_with_baycomp(means, margin, theirs):
    found = signed_rank(means, margin)
    assert (found.worse, found.equivalent, found.better) == pytest.approx(theirs, abs=0.01)
    assert found.worse + found.equivalent + found.better == pytest.approx(1)
    assert signed_rank(means, margin) == found


def test_critical_difference_of_the_published_example():
    """Demšar (2006, section 3.2.3): four methods on 14 data sets, 1.25 at 5 % and 1.12 at 10 %."""
    table = np.random.default_rng(0).random((14, 4))
    assert ranks(table).critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert ranks(table).critical == pytest.approx(1.25, abs=5e-3)
    assert ranks(table, alpha=0.1).critical == pytest.approx(1.12, abs=5e-3)
    assert ranks(table).n == 14


def test_mean_ranks_by_hand():
    """Ranks 3 2 1, 2.5 1 2.5 and 3 1 2; Friedman's chi-square without ties is 12 n / (k (k + 1)) Σ (R − 2)²."""
    assert ranks([[1, 2, 3], [5, 6, 5], [0.1, 0.3, 0.2]]).mean == pytest.approx((8.5 / 3, 4 / 3, 5.5 / 3))
    found = ranks([[1, 2, 3], [4, 6, 5], [0.1, 0.3, 0.2], [1, 2, 3]])
    chi_square = 12 * 4 / (3 * 4) * sum((rank - 2) ** 2 for rank in found.mean)
    assert found.p == pytest.approx(stats.chi2.sf(chi_square, 2))


def test_ranks_need_enough():
    with pytest.raises(ValueError, match="at least two data sets and three methods"):
        ranks([[1, 2, 3]])
