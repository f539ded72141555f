"""Subsets are stratified, nested, seeded, and partition what they are drawn from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropattack.data.sets import warnings
from dropattack.data.splits import carve, finish, stratified_order
from dropattack.data.types import TextSplit
from dropattack.errors import UserError
from tests.data.makers import texts

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=300).map(lambda labels: np.array(labels, dtype=np.int64))


@given(LABELS, st.integers(0, 2**32))
def test_order_is_a_permutation(labels, seed):
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    assert np.array_equal(order, stratified_order(labels, seed))


@given(LABELS, st.integers(0, 100), st.floats(0, 1))
def test_every_prefix_is_stratified(labels, seed, share):
    """Every class's share deviates by at most Sainte-Laguë's bound: half a row plus its part of the others' halves."""
    count = round(share * len(labels))
    taken = np.bincount(labels[stratified_order(labels, seed)[:count]], minlength=5)
    whole = np.bincount(labels, minlength=5) / len(labels)
    classes = np.count_nonzero(whole)
    assert np.all(np.abs(taken - count * whole) <= 1 + classes * whole / 2 + 1e-9)


def test_order_depends_on_seed_and_stream():
    labels = np.zeros(50, np.int64)
    orders = {tuple(stratified_order(labels, *seed)) for seed in ((0,), (1,), (0, 1), (0, 2))}
    assert len(orders) == 4


@given(st.integers(2, 200), st.data())
def test_carve_partitions(rows, data):
    count = data.draw(st.integers(1, rows - 1))
    whole = texts(rows, 3)
    rest, carved = carve(whole, count, 0)
    assert len(carved) == count
    assert sorted(rest.texts + carved.texts) == sorted(whole.texts)
    labels = dict(zip(whole.texts, whole.labels, strict=True))
    for part in (rest, carved):
        assert [labels[text] for text in part.texts] == list(part.labels)
        assert part.texts == sorted(part.texts, key=whole.texts.index)  # the source's order


def make(**options):
    return finish(
        name="toy", classes=("a", "b"), train=texts(400, prefix="r"), test=texts(100, prefix="t"), notes={}, **options
    )


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.sampled_from([None, 100]))
def test_fractions_are_nested(one, other, rows):
    small, large = (make(fraction=fraction, train_rows=rows) for fraction in sorted((one, other)))
    assert set(small.train.texts) <= set(large.train.texts)
    assert small.validation.texts == large.validation.texts
    assert small.test.texts == large.test.texts
    assert abs(np.mean(small.train.labels) - 0.5) <= 1 / len(small.train)


def test_rows_are_nested_and_disjoint_from_validation():
    small, large = make(train_rows=50, validation_rows=10, test_rows=20), make(train_rows=200)
    assert [len(split) for split in small.splits.values()] == [50, 10, 20]
    assert set(small.train.texts) < set(large.train.texts)
    assert set(small.validation.texts) < set(large.validation.texts)
    assert not set(large.train.texts) & set(large.validation.texts)
    assert np.bincount(small.train.labels).tolist() == [25, 25]


def test_subsets_of_different_splits_are_drawn_independently():
    """Splits with the same labels lose different rows: one subset must not determine another."""
    same = {split: texts(100, prefix=split) for split in ("train", "validation", "test")}
    made = finish(
        name="toy", classes=("a", "b"), notes={}, train_rows=20, validation_rows=20, test_rows=20, **same
    )  # fmt: skip
    taken = [[same[split].texts.index(text) for text in rows.texts] for split, rows in made.splits.items()]
    assert len({tuple(rows) for rows in taken}) == 3


def test_split_seed_changes_the_carved_rows_alone():
    zero, one = make(), make(seed=1)
    assert set(zero.validation.texts) != set(one.validation.texts)
    assert zero.test.texts == one.test.texts
    assert zero.fingerprint != one.fingerprint
    assert zero.fingerprint == make().fingerprint


def test_leaks_leave_train_and_validation_but_not_test():
    train, test = texts(50), texts(20, prefix="t")
    train.texts[3] = train.texts[30] = test.texts[5]
    kept = finish(name="toy", classes=("a", "b"), train=train, test=test, notes={}, drop_leaks=True)
    assert not set(test.texts) & set(kept.train.texts + kept.validation.texts)
    assert not set(kept.train.texts) & set(kept.validation.texts)
    assert len(kept.test) == 20
    assert sum(kept.notes["leaks_dropped"].values()) == 2


def test_subset_seed_draws_other_training_rows():
    whole, *drawn = (
        make(fraction=share, subset_seed=seed) for share, seed in ((1, 1), (0.25, 1), (0.25, 2), (0.25, 1))
    )
    assert drawn[0].train.texts != drawn[1].train.texts
    assert drawn[0].train.texts == drawn[2].train.texts
    assert {len(one.train) for one in drawn} == {90}
    assert {one.notes["drawn_from"] for one in drawn} == {whole.fingerprint}
    assert "drawn_from" not in whole.notes
    assert set(make(fraction=0.125, subset_seed=1).train.texts) < set(drawn[0].train.texts)  # nested


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fraction": 0}, "fraction=0"),
        ({"fraction": 0.5, "subset_seed": -1}, "subset_seed=-1"),
        ({"fraction": 0.5, "subset_seed": True}, "subset_seed=True"),
        ({"fraction": 1.5}, "fraction=1.5"),
        ({"fraction": float("nan")}, "fraction=nan"),
        ({"fraction": 0.001}, "is zero"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": 0.0001}, "validation"),
        ({"train_rows": 361}, "train_rows=361.*360"),
        ({"train_rows": 0}, "train_rows=0"),
        ({"test_rows": 2.5}, "test_rows=2.5"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(UserError, match=said if "seed=" in said else f"toy.*{said}"):
        make(**options)


def test_take_keeps_texts_and_labels_together():
    split = TextSplit(["a", "b", "c"], np.array([0, 1, 2]))
    taken = split.take(np.array([2, 0]))
    assert (taken.texts, taken.labels.tolist()) == (["c", "a"], [2, 0])


def test_a_class_that_the_subset_loses_is_named():
    labels = np.array([0] * 500 + [1] * 500 + [2])
    split = TextSplit([f"text {i}" for i in range(len(labels))], labels)
    made = finish(name="toy", classes=("a", "b", "rare"), train=split, test=split.take(np.arange(400, 600)), notes={},
                  train_rows=20, lenient=True)  # fmt: skip
    assert made.notes["classes_without_training_rows"] == ["rare"]
    (said,) = [one for one in warnings("toy", {"train": 20, "test": 200}, made.notes) if "rare" in one]
    assert said == "toy: no training row of rare (dataset.train_rows=20 leaves none)"
