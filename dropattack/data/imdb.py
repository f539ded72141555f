"""IMDB movie reviews (Maas et al., ACL 2011): 25,000 to train on, 25,000 to test, positive or negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from dropattack.data.sources import train_and_test
from dropattack.data.splits import SubsetOptions, carve, finish, pool
from dropattack.data.types import Dataset, one_of

CLASSES = ("negative", "positive")
HUB = "stanfordnlp/imdb"
AUTHOR_ROWS = 5_000  # of the 50,000, for validation and for test each


def load(
    *,
    root: str | Path,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """IMDB from `root/imdb/{train,test}.parquet`, else from the Hugging Face hub.

    Args:
        split: `official` (25,000 test rows; validation carved from train), or `author`: 40,000 / 5,000 / 5,000 of the
            50,000 pooled, as in the DropAttack notebooks. The authors' files are not published: the draw is ours.
        cache: unused; every data set takes it.
        subset: see `splits.finish`. Of the official test reviews 123 have a text that also occurs in train.

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
