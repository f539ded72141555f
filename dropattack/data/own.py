"""The common end of all loaders of a user's own data: class indices, and the splits that the data lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.labels import in_order
from dropattack.data.splits import Split, SubsetOptions, finish, stratified_order
from dropattack.data.types import Dataset, ImageSplit, TextSplit
from dropattack.errors import UserError

# The names that providers of data give the three splits.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_TEST, _VALIDATION = 20, 21  # streams of the split seed


@dataclass(frozen=True)
class OwnSplit:
    """Some rows of the user's data.

    Attributes:
        examples: the texts or images; its labels are not used.
        names: the label of each row, as text: see `labels.names_of`.
        where: the file or folder, for errors.
    """

    examples: TextSplit | ImageSplit
    names: list[str]
    where: str


def finish_own(
    name: str,
    parts: Mapping[str, OwnSplit],
    notes: Mapping[str, Any],
    *,
    classes: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return the data set of a user's own rows; carve the splits that are not in `parts` from the training rows.

    A carved split has its share of every label, and at least one row of it. A label with too few rows for that stays in
    train, and `notes` names it. `notes` also holds the names of the classes, in the order of their indices.

    Args:
        name: the data set's name.
        parts: `train`, and `validation` and `test` where the data has them.
        notes: JSON values for the run's record.
        classes: the names in their order, where the data states them; None takes `labels.in_order`.
        test_fraction: the share of the rows that becomes the test split, if the data has none.
        subset: see `splits.finish`. `validation_fraction` is a share of the rows left after the test split. Asking for
            more rows than there are takes all of them.

    Raises:
        UserError: fewer than two labels, too few rows, or a label of another split that is not in train.
    """
    train, validation_fraction, seed = parts["train"], subset.pop("validation_fraction", 0.1), subset.get("seed", 0)
    for option, share in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not 0 < share < 1:
            raise UserError(f"Dataset {name}: {option}={share} must be > 0 and < 1.")
    known = set(train.names)
    names = tuple(one for one in (in_order(known) if classes is None else classes) if one in known)
    if len(names) < 2:
        raise UserError(
            f"{train.where}: all {len(train.names)} rows have the label {names[0]!r}; a classifier needs two or more "
            "labels: is it the right label column?"
        )
    indexed: dict[str, Any] = {split: _indexed(part, names) for split, part in parts.items()}
    lacking = [split for split in ("test", "validation") if split not in parts]
    shares = {"test": (test_fraction, _TEST), "validation": (validation_fraction, _VALIDATION)}
    recorded = {**notes, "labels": list(names), "splits": dict.fromkeys(parts, "given")}
    if lacking:
        recorded["splits"]["train"] = "the rest"
    counts = np.bincount(indexed["train"].labels, minlength=len(names))
    common = np.flatnonzero(counts > len(lacking))
    if lacking:
        if len(common) < 2:
            raise UserError(
                f"{train.where} has {len(train.names)} rows: to take {' and '.join(lacking)} rows from them, "
                f"at least two labels need {len(lacking) + 1} rows each; add rows, or name files with these splits."
            )
        if len(common) < len(names):
            recorded["labels_in_train_only"] = [name for label, name in enumerate(names) if label not in common]
    for number, split in enumerate(lacking):
        share, stream = shares[split]
        indexed["train"], indexed[split] = _carved(indexed["train"], common, share, len(lacking) - number, seed, stream)
        of = "the rows" if split == "test" else "the rows left for training"
        recorded["splits"][split] = f"{share:g} of {of}, by label, split seed {seed}"
    return finish(name=name, classes=names, notes=recorded, lenient=True, **indexed, **subset)


def _indexed(part: OwnSplit, names: Sequence[str]) -> TextSplit | ImageSplit:
    index = {name: label for label, name in enumerate(names)}
    for row, name in enumerate(part.names):
        if name not in index:
            raise UserError(
                f"{part.where}, row {row + 1}: the label {name!r} does not occur in the training rows "
                f"({', '.join(names[:10])}{', …' * (len(names) > 10)}); correct it or add such rows to the training."
            )
    return replace(part.examples, labels=np.array([index[name] for name in part.names], dtype=np.int64))


def _carved(split: Split, labels: np.ndarray, share: float, spare: int, *seed: int) -> tuple[Split, Split]:
    """Return (the rest, a share of the rows of each of `labels`): at least one row, leaving at least `spare` behind."""
    order, taken = stratified_order(split.labels, *seed), []
    for label in labels:
        members = order[split.labels[order] == label]
        taken.append(members[: min(max(1, round(share * len(members))), len(members) - spare)])
    chosen = np.sort(np.concatenate(taken))
    return split.take(np.setdiff1d(np.arange(len(split)), chosen)), split.take(chosen)
