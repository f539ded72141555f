"""Stratified, seeded and nested subsets: which rows belong to which split."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypedDict, TypeVar

import numpy as np

from dropattack.data import sets
from dropattack.data.types import Dataset, ImageSplit, TextSplit
from dropattack.errors import UserError

Split = TypeVar("Split", TextSplit, ImageSplit)

# Streams of the split seed: draws must be independent of each other.
_VALIDATION, _TRAIN_ROWS, _VALIDATION_ROWS, _TEST_ROWS = range(4)


class SubsetOptions(TypedDict, total=False):
    """The keyword arguments that all `load` functions share; see `finish`."""

    validation_fraction: float
    seed: int
    train_rows: int | None
    validation_rows: int | None
    test_rows: int | None
    fraction: float
    subset_seed: int | None
    drop_leaks: bool


def stratified_order(labels: np.ndarray, *seed: int) -> np.ndarray:
    """Return a random permutation of the rows whose every prefix is (nearly) stratified.

    The j-th row of a class with n rows, in random order, gets position (j + ½)/n: Sainte-Laguë's apportionment.
    Subsets taken from the front are therefore both nested and stratified.

    Args:
        labels: int64 [N].
        seed: one or more non-negative integers.

    Returns:
        int64 [N].

    Raises:
        UserError: any other seed.
    """
    _checked("seed", seed[0])
    rng = np.random.default_rng(list(seed))
    shuffled = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(position, kind="stable")]  # ties between classes stay in random order


def _checked(option: str, seed: int) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"dataset.{option}={seed}: a seed of the split must be a whole number of at least 0.")
    return seed


def carve(split: Split, count: int, *seed: int) -> tuple[Split, Split]:
    """Return (the rest, `count` stratified rows), each in the order of `split`."""
    order = stratified_order(split.labels, *seed)
    return split.take(np.sort(order[count:])), split.take(np.sort(order[:count]))


def pool(first: TextSplit, *others: TextSplit) -> TextSplit:
    """Concatenate the splits' rows."""
    parts = (first, *others)
    return TextSplit([text for part in parts for text in part.texts], np.concatenate([part.labels for part in parts]))


def finish(
    *,
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    notes: dict[str, Any],
    validation: Split | None = None,
    drop_leaks: bool = False,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    fraction: float = 1.0,
    subset_seed: int | None = None,
    lenient: bool = False,
) -> Dataset:
    """Finish every `load`: carve the validation split, take the requested subsets, and check the result.

    Args:
        name: the data set's name.
        classes: names of the classes.
        train: the training split.
        test: the test split.
        notes: JSON values for the run's record.
        validation: None carves a stratified share `validation_fraction` from train.
        drop_leaks: drop examples from train (and validation) that also occur in a later split. The test split stays
            whole, so its accuracy compares with published ones. `notes` counts them in either case.
        validation_fraction: used only if the data has no validation split of its own.
        seed: the seed of the split, not of the run, so all runs of a comparison use the same rows.
        train_rows: size of a stratified subset; None keeps all rows. Subsets are nested: larger ones contain smaller
            ones.
        validation_rows: like `train_rows`.
        test_rows: like `train_rows`.
        fraction: the share of the training rows (after `train_rows`) to train on; also nested.
        subset_seed: which training rows `train_rows` and `fraction` take. None: the same for all runs, by `seed`. With
            the run's seed each run draws its own, and intervals over seeds cover the choice of rows;
            `notes["drawn_from"]` is then the fingerprint of the data before the draw, by which runs are compared.
        lenient: for a user's own data: asking for more rows than a split has takes all of them, and a class may be
            missing from validation or test.

    Returns:
        The data set; its notes also count examples that were dropped, are in several splits or have several labels.

    Raises:
        UserError: a size or share out of range, data that `Dataset` refuses, or a set whose results would be
            meaningless: see `sets`.
    """
    for option, share, below in (("validation_fraction", validation_fraction, "<"), ("fraction", fraction, "<=")):
        if not 0 < share <= 1 or (below == "<" and share == 1):
            raise UserError(f"Dataset {name}: {option}={share} must be > 0 and {below} 1.")
    notes = dict(notes)
    given = {"train": train, "validation": validation, "test": test}
    whole = {split: rows for split, rows in given.items() if rows is not None}
    sets.check_classes(name, classes, {"train": train} if lenient else whole)
    if validation is None:
        notes["validation"] = f"{validation_fraction:g} of train, stratified, split seed {seed}"
        train, validation = carve(train, round(validation_fraction * len(train)), seed, _VALIDATION)
    if drop_leaks:
        train, validation, notes["leaks_dropped"] = _without_leaks(name, train, validation, test)
    if lenient:
        train_rows, validation_rows, test_rows = (
            rows if rows is None else min(rows, len(split))
            for rows, split in ((train_rows, train), (validation_rows, validation), (test_rows, test))
        )
    validation = _subset(name, "validation_rows", validation, validation_rows, 1.0, seed, _VALIDATION_ROWS)
    test = _subset(name, "test_rows", test, test_rows, 1.0, seed, _TEST_ROWS)
    drawn = () if subset_seed is None else (_checked("subset_seed", subset_seed),)
    every, train = train, _subset(name, "train_rows", train, train_rows, fraction, seed, _TRAIN_ROWS, *drawn)
    if drawn and train is not every:
        notes["drawn_from"] = Dataset(name, classes, every, validation, test).fingerprint
    if absent := [str(one) for i, one in enumerate(classes) if not (train.labels == i).any()]:
        notes["classes_without_training_rows"] = absent
    made = Dataset(name, classes, train, validation, test, notes)
    rows = {split: sets.examples(one) for split, one in made.splits.items()}
    sets.check_sets(name, made.splits, rows)
    notes.update(sets.counted(made.splits, rows))
    return made


def _subset(name: str, option: str, split: Split, rows: int | None, fraction: float, *seed: int) -> Split:
    if rows is None and fraction == 1:
        return split
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= len(split)):
        raise UserError(f"Dataset {name}: {option}={rows} must be from 1 to {len(split)} (the split's rows).")
    count = round(fraction * (len(split) if rows is None else rows))
    if count == 0:
        raise UserError(f"Dataset {name}: fraction={fraction} of {len(split) if rows is None else rows} rows is zero.")
    return split.take(np.sort(stratified_order(split.labels, *seed)[:count]))


def _without_leaks(name: str, train: Split, validation: Split, test: Split) -> tuple[Split, Split, dict[str, int]]:
    later = set(sets.examples(test))
    clean_validation = validation.take(_absent(validation, later))
    clean_train = train.take(_absent(train, later | set(sets.examples(clean_validation))))
    for split, left in (("train", clean_train), ("validation", clean_validation)):
        if not len(left):
            raise UserError(f"Dataset {name}: drop_leaks leaves no row in {split}: all of them occur in a later split.")
    dropped = {"train": len(train) - len(clean_train), "validation": len(validation) - len(clean_validation)}
    return clean_train, clean_validation, dropped


def _absent(split: TextSplit | ImageSplit, known: set[Hashable]) -> np.ndarray:
    found = sets.examples(split)
    return np.array([row for row, example in enumerate(found) if example not in known], dtype=np.int64)
