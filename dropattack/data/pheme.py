"""PHEME (Kochkina, Liakata and Zubiaga, COLING 2018): Twitter threads of nine events, rumour or not; 6,425 threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.sources import author_table, find_table, not_found, read_table
from dropattack.data.splits import SubsetOptions, finish
from dropattack.data.types import Dataset, check_choice
from dropattack.errors import UserError

CLASSES = ("non-rumour", "rumour")
FILES = {"train": "train", "validation": "val", "test": "test"}
AUTHOR_REPOSITORY = "github.com/nishiwen1214/DropAttack, dataset/PHEME/2018_val.csv and 2018_test.csv"
PREPARE = "dropattack data pheme --archive PHEME_veracity.tar.bz2 --to {root}"


def load(
    *,
    root: str | Path,
    split: str = "official",
    drop_source_only: bool = False,
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return PHEME from `root/pheme/{train,val,test}.parquet`: one thread per row, its tweets joined by ` | `.

    No hub has a copy: `dropattack data pheme` makes these files from figshare record 6392078.

    Args:
        root: the data folder.
        split: `official` (the three files), or `author`: validation and test from the authors' own
            `author_pheme2018_{dev,test}.csv.gz`, which hold the same threads where the copy follows them, with the
            tweets in the authors' arbitrary order.
        drop_source_only: leave out the training threads for which only the source tweet is known
            (`form` = source_only). This drops whole events.
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`; `validation_fraction` has no effect, because validation has its own file.

    Raises:
        UserError: not found, a bad file or row, or a bad option.
    """  # noqa: DOC501  not_found makes a UserError
    check_choice("pheme", "split", split, ("official", "author"))
    folder, prepare = Path(root) / "pheme", PREPARE.format(root=root)
    paths = {part: find_table(folder, stem) for part, stem in FILES.items()}
    if missing := [f"{FILES[part]}.parquet" for part, path in paths.items() if path is None]:
        why = "no hub has a copy: download figshare record 6392078 (https://figshare.com/articles/dataset/6392078)"
        raise not_found("pheme", root, " and no ".join(missing), why, prepare)
    tables = {part: read_table(path, len(CLASSES), ("form", "eid")) for part, path in paths.items() if path}
    (train, columns), (validation, _), (test, _) = (tables[part] for part in FILES)
    notes: dict[str, Any] = {
        "source": "local copy: " + ", ".join(f"pheme/{path.name}" for path in paths.values() if path)
    }
    notes["split"] = split
    if split == "author":
        validation, test = (
            author_table("pheme", root, f"author_pheme2018_{part}", len(CLASSES), AUTHOR_REPOSITORY)
            for part in ("dev", "test")
        )
        notes["author"] = "train has the source tweet first, the authors' validation and test files have any order"
    if drop_source_only:
        if "form" not in columns:
            raise UserError(f"{paths['train']} has no column form, which dataset.drop_source_only=true needs.")
        kept = np.flatnonzero(np.array(columns["form"]) != "source_only")
        notes["source_only_dropped"] = len(train) - len(kept)
        train = train.take(kept)
    return finish(name="pheme", classes=CLASSES, train=train, validation=validation, test=test, notes=notes, **subset)
