"""AG News (Zhang, Zhao and LeCun, NIPS 2015): news titles with descriptions, four topics; 120,000 and 7,600 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.sources import author_table, train_and_test
from dropattack.data.splits import SubsetOptions, finish
from dropattack.data.types import Dataset, TextSplit, check_choice
from dropattack.errors import UserError

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
HUB = "fancyzhx/ag_news"
OFFICIAL_TRAIN_ROWS, AUTHOR_TRAIN_ROWS = 120_000, 110_000
AUTHOR_REPOSITORY = "github.com/nishiwen1214/DropAttack, dataset/AGnews"


def load(
    *,
    root: str | Path,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return AG News from `root/agnews/{train,test}.parquet`, or else from the Hugging Face hub.

    A local copy may hold only part of the official training rows; `notes` records how many.

    Args:
        root: the data folder.
        split: `official` (7,600 test rows; validation carved from train), or `author`: the validation (10,000 rows) and
            test files of the DropAttack notebooks, `author_{val,test}_ag1.csv.gz` in `root/agnews`, with the training
            rows that are not in that validation file (110,000 of the official ones).
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`; `validation_fraction` has no effect with `author`.

    Raises:
        UserError: not found, a bad file or row, or a bad option.
    """
    check_choice("agnews", "split", split, ("official", "author"))
    train, test, columns, source = train_and_test("agnews", root, HUB, len(CLASSES), extra=("in_author_val",))
    notes: dict[str, Any] = {
        "source": source,
        "split": split,
        "train_rows_of_official": f"{len(train):,} of {OFFICIAL_TRAIN_ROWS:,}",
    }
    validation = None
    if split == "author":
        validation, test = (
            author_table("agnews", root, f"author_{part}_ag1", len(CLASSES), AUTHOR_REPOSITORY)
            for part in ("val", "test")
        )
        held_out = columns.get("in_author_val") or _occurs_in(train, validation)
        if not all(isinstance(mark, bool) for mark in held_out):  # as text, "no" would be true
            raise UserError("Dataset agnews: the column in_author_val of train must hold true or false; correct it.")
        train = train.take(np.flatnonzero(~np.array(held_out, dtype=bool)))
        notes["train_rows_of_author"] = f"{len(train):,} of {AUTHOR_TRAIN_ROWS:,}"
        notes["left_out_as_author_validation"] = int(sum(held_out))
    return finish(name="agnews", classes=CLASSES, train=train, validation=validation, test=test, notes=notes, **subset)


def _occurs_in(train: TextSplit, validation: TextSplit) -> list[bool]:
    """Return whether each row is in the authors' file, which joins title and description without a space."""

    def key(text: str) -> str:
        return "".join(filter(str.isalnum, text)).lower()

    known = {key(text) for text in validation.texts}
    return [key(text) in known for text in train.texts]
