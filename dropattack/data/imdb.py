"""IMDB movie reviews (Maas et al., ACL 2011): 25,000 for training, 25,000 for testing, positive or negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from dropattack.data.sources import train_and_test
from dropattack.data.splits import SubsetOptions, carve, finish, pool
from dropattack.data.types import Dataset, one_of

CLASSES = ("negative", "positive")
HUB = "stanfordnlp/imdb"
AUTHOR_ROWS = 5_000  # of the 50,000, for validation and test each


def load(
    *,
    root: str | Path,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Load IMDB from `root/imdb/{train,test}.parquet`, or else from the Hugging Face hub.

    Args:
        root: the data folder.
        split: `official` (25,000 test rows; validation carved from train), or `author`: 40,000 / 5,000 / 5,000 of the
            50,000 pooled rows, as in the DropAttack notebooks. The authors' files are not published: we draw our own.
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`. The text of 123 official test reviews also occurs in train.

    Raises:
        UserError: not found, a bad file or row, or a bad option.
    """
    one_of("imdb", "split", split, ("official", "author"))
    train, test, _, source = train_and_test("imdb", root, HUB, len(CLASSES))
    notes: dict[str, Any] = {"source": source, "split": split}
    validation = None
    if split == "author":
        seed = subset.get("seed", 0)
        train, test = carve(pool(train, test), AUTHOR_ROWS, seed, 10)
        train, validation = carve(train, AUTHOR_ROWS, seed, 11)
        notes["author"] = (
            "40,000 / 5,000 / 5,000 drawn from the pooled 50,000, stratified; the authors' own files are not published"
        )
    return finish(name="imdb", classes=CLASSES, train=train, validation=validation, test=test, notes=notes, **subset)
