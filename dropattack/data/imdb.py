"""IMDB movie reviews (Maas et al., ACL 2011): 25,000 for training, 25,000 for testing, positive or negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from dropattack.data.outside import absent, rewritten
from dropattack.data.sources import train_and_test
from dropattack.data.splits import SubsetOptions, carve, finish, pool
from dropattack.data.types import Dataset, TextSplit, check_choice

CLASSES = ("negative", "positive")
HUB = "stanfordnlp/imdb"
AUTHOR_ROWS = 5_000  # of the 50,000, for validation and test each


def load(
    *,
    root: str | Path,
    split: str = "official",
    drop_rewritten: bool = False,
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return IMDB from `root/imdb/{train,test}.parquet`, or else from the Hugging Face hub.

    Args:
        root: the data folder.
        split: `official` (25,000 test rows; validation carved from train), or `author`: 40,000 / 5,000 / 5,000 of the
            50,000 pooled rows, as in the DropAttack notebooks. The authors' files are not published: we draw our own.
        drop_rewritten: leave out the reviews that `imdb_counterfactual` and `imdb_contrast` rewrite, so that a model
            can be tested there: from train and validation, and with `split=author` from test too. They are 2,458 rows
            of the official train split, and 7 of test. `notes` counts the rows left out.
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`. The text of 123 official test reviews also occurs in train.

    Raises:
        UserError: not found, a bad file or row, or a bad option.
    """
    check_choice("imdb", "split", split, ("official", "author"))
    train, test, _, source = train_and_test("imdb", root, HUB, len(CLASSES))
    notes: dict[str, Any] = {"source": source, "split": split}
    validation = None
    if drop_rewritten:
        author = split == "author"
        train, test, notes["rewritten_dropped"] = _without(rewritten(str(root)), train, test, test_too=author)
    if split == "author":
        seed, pooled = subset.get("seed", 0), pool(train, test)
        train, test = carve(pooled, AUTHOR_ROWS, seed, 10)
        train, validation = carve(train, AUTHOR_ROWS, seed, 11)
        notes["author"] = (
            f"{len(train):,} / {AUTHOR_ROWS:,} / {AUTHOR_ROWS:,} drawn from the pooled {len(pooled):,}, stratified; "
            "the authors' own files are not published"
        )
    return finish(name="imdb", classes=CLASSES, train=train, validation=validation, test=test, notes=notes, **subset)


def _without(
    known: frozenset[bytes], train: TextSplit, test: TextSplit, *, test_too: bool
) -> tuple[TextSplit, TextSplit, dict[str, int]]:
    """Return the splits without the rows whose letters are `known`, and the number of rows left out of each."""
    kept = {"train": train.take(absent(train.texts, known))}
    if test_too:
        kept["test"] = test.take(absent(test.texts, known))
    whole = {"train": train, "test": test}
    return kept["train"], kept.get("test", test), {name: len(whole[name]) - len(rows) for name, rows in kept.items()}
