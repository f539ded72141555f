"""Checks of a data set as a whole: missing classes, identical examples, leaks between splits.

Every row can be valid in a set that is not: a slice of a sorted file has one class, and trains to an accuracy of 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from dropattack.data.types import ImageSplit, TextSplit
from dropattack.errors import UserError

AnySplit = TextSplit | ImageSplit


def examples(split: AnySplit) -> list[Hashable]:
    """Return each row's example in comparable form: the text (or both), or a digest of the pixels."""
    if isinstance(split, TextSplit):
        return list(split.texts if split.pairs is None else zip(split.texts, split.pairs, strict=True))
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in split.pixels]


def check_classes(name: str, classes: Sequence[str], whole: Mapping[str, AnySplit]) -> None:
    """Check that every class occurs in each split, before subsets are taken.

    Raises:
        UserError: names the split and the missing classes.
    """
    for split_name, split in whole.items():
        counts = np.bincount(split.labels, minlength=len(classes))
        missing = [f"{label} ({classes[label]})" for label in range(len(classes)) if counts[label] == 0]
        if missing:
            raise UserError(
                f"Dataset {name}, split {split_name}: none of its {len(split)} rows has label {', '.join(missing)}; is "
                "it part of a sorted file, or do labels start elsewhere? Replace it with a file that has all classes."
            )


def check_sets(name: str, splits: Mapping[str, AnySplit], rows: Mapping[str, list[Hashable]]) -> None:
    """Check the final splits for faults that would make every result meaningless.

    Args:
        name: the data set's name, for errors.
        splits: train, validation and test.
        rows: the `examples` of each split.

    Raises:
        UserError: only one class, only one distinct example, or a split that is contained in another.
    """
    unique = {split: set(found) for split, found in rows.items()}
    for split_name, split in splits.items():
        where = f"Dataset {name}, split {split_name}"
        labels = np.unique(split.labels)
        if len(split) > 1 and len(labels) == 1:
            raise UserError(f"{where}: all {len(split)} rows have label {labels[0]}; ask for more rows, or other data.")
        if len(split) > 1 and len(unique[split_name]) == 1:
            raise UserError(f"{where}: all {len(split)} examples are the same; correct the data.")
    for one, other in (("validation", "test"), ("test", "train"), ("test", "validation"), ("validation", "train")):
        if len(rows[one]) > 1 and unique[one] <= unique[other]:
            raise UserError(
                f"Dataset {name}: every example of {one} also occurs in {other}, so its accuracy would say nothing; "
                f"replace {one}, or give data with more than {len(unique['train'] | unique[one])} different examples."
            )


def counted(splits: Mapping[str, AnySplit], rows: Mapping[str, list[Hashable]]) -> dict[str, Any]:
    """Count, for a record's notes, the test and validation rows seen earlier and the examples with several labels."""
    train, validation = set(rows["train"]), set(rows["validation"])
    labels: dict[Hashable, set[int]] = {}
    for split_name, split in splits.items():
        for example, label in zip(rows[split_name], split.labels.tolist(), strict=True):
            labels.setdefault(example, set()).add(label)
    kind = "texts" if isinstance(splits["train"], TextSplit) else "images"
    return {
        f"test_{kind}_in_train": sum(row in train or row in validation for row in rows["test"]),
        f"validation_{kind}_in_train": sum(row in train for row in rows["validation"]),
        f"{kind}_with_several_labels": sum(len(found) > 1 for found in labels.values()),
    }


def warnings(name: str, sizes: Mapping[str, int], notes: Mapping[str, Any]) -> list[str]:
    """Return the warnings that follow from the counts of `counted` and from what was left out, one sentence each."""
    said = []
    if left_out := notes.get("splits_left_out"):
        said.append(f"{name}: {', '.join(left_out)} left out, which are not splits that a run reads")
    if others := notes.get("files_left_out"):
        said.append(f"{name}: {others} files left out, whose names do not end like those of images")
    if absent := notes.get("classes_without_training_rows"):
        said.append(f"{name}: no training row of {', '.join(absent)} (dataset.train_rows={sizes['train']} leaves none)")
    for kind in ("texts", "images"):
        if leaked := notes.get(f"test_{kind}_in_train"):
            said.append(f"{name}: {leaked} of {sizes['test']} test {kind} also occur in train or validation "
                        "(dataset.drop_leaks=true leaves them out of these)")  # fmt: skip
        if torn := notes.get(f"{kind}_with_several_labels"):
            said.append(f"{name}: {torn} {kind} have more than one label; the record's notes count them")
    return said
