import numpy as np
import pytest
from scipy import stats

from dropattack.statistics.rows import bootstrap, compare_rows, mcnemar_p, votes


def bits(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def test_mcnemar_by_hand():
    """Of 10 rows that one alone gets right, the first gets 9: p = 2 (1 + 10) / 2^10."""
    own, other = bits("1" * 9 + "0" + "1" * 5 + "0" * 5), bits("0" * 9 + "1" + "1" * 5 + "0" * 5)
    assert mcnemar_p(own, other) == pytest.approx(22 / 1024)
    assert mcnemar_p(own, other) == pytest.approx(stats.binomtest(9, 10).pvalue)
    assert mcnemar_p(own, own) == 1.0


def test_votes_need_more_than_half_and_a_tie_is_between():
    assert votes(np.stack([bits("1100"), bits("1010"), bits("1001")])).tolist() == [1, -1, -1, -1]
    assert votes(np.stack([bits("10"), bits("11")])).tolist() == [1, 0]


def test_a_tie_is_better_than_wrong_and_worse_than_right():
    """Of two seeds: rows 0 to 8 tie against wrong, row 9 ties against right, rows 10 and 11 tie against a tie."""
    own = {0: bits("1" * 12), 1: bits("0" * 12)}
    plain = {0: bits("0" * 9 + "1" + "00"), 1: bits("0" * 9 + "1" + "11")}
    assert compare_rows(own, plain).p == pytest.approx(22 / 1024)


def test_bootstrap_agrees_with_one_that_draws_every_row():
    dice = np.random.default_rng(1)
    own, other = dice.random((3, 200)) < 0.8, dice.random((3, 200)) < 0.7
    low, high = bootstrap(own, other, samples=20_000)
    gain = own.astype(float) - other
    slow = [gain[dice.integers(3, size=3)][:, dice.integers(200, size=200)].mean() for _ in range(8000)]
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.006)
    assert bootstrap(own, other) == bootstrap(own, other)


def test_one_seed_gives_the_interval_over_rows():
    """The share of rows gained is binomial: 40 of 200 gives 0.2 ± 1.96 √(0.2 · 0.8 / 200)."""
    own, other = bits("1" * 40 + "0" * 160)[None], bits("0" * 200)[None]
    half = 1.96 * (0.2 * 0.8 / 200) ** 0.5
    assert bootstrap(own, other, samples=20_000) == pytest.approx((0.2 - half, 0.2 + half), abs=0.005)


def test_rows_are_compared_over_common_seeds():
    runs = {0: bits("1" * 12 + "0" * 4), 1: bits("1" * 12 + "0" * 4), 7: bits("1" * 16)}
    plain = {1: bits("0" * 16), 0: bits("1" * 12 + "0" * 4), 3: bits("0" * 16)}
    found = compare_rows(runs, plain)
    assert (found.pairs, found.shown, found.rows) == (2, 1, 16)
    assert found.p == pytest.approx(2 / 2**12)  # twelve rows: right against a tie
    assert 0 <= found.low < 12 / 32 < found.high
    assert compare_rows(runs, {5: bits("1")}) is None


def test_another_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="different numbers of rows"):
        compare_rows({0: bits("11")}, {0: bits("111")})
