"""Three small tasks of GLUE (Wang et al., ICLR 2019): CoLA, MRPC and RTE."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Unpack

from dropattack.data.sources import not_found
from dropattack.data.splits import SubsetOptions, finish
from dropattack.data.tables import read
from dropattack.data.types import Dataset, TextSplit, check_choice
from dropattack.errors import UserError


class Task(NamedTuple):
    """The classes and columns of a task."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]  # of the texts


TASKS = {
    "cola": Task(("unacceptable", "acceptable"), ("sentence",)),
    "mrpc": Task(("not_equivalent", "equivalent"), ("sentence1", "sentence2")),
    "rte": Task(("entailment", "not_entailment"), ("sentence1", "sentence2")),
}


def load(
    *,
    root: str | Path,
    task: str = "rte",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return a task of GLUE from `root/glue/<task>/{train,validation}.parquet`.

    Two of the three test sets have no public labels, so the official validation rows are the test split here, as in
    most papers that report more than the leaderboard; our validation split is carved from train.

    Args:
        root: the data folder.
        task: `cola` (single sentences), `mrpc` or `rte` (pairs).
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`.

    Raises:
        UserError: not found, a bad file or row, or a bad option.
    """  # noqa: DOC501  not_found makes a UserError
    check_choice("glue", "task", task, tuple(TASKS))
    folder = Path(root) / "glue" / task
    classes, columns = TASKS[task]
    paths = {split: folder / f"{split}.parquet" for split in ("train", "validation")}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise not_found(
            f"glue/{task}", root, " nor ".join(missing), "this loader downloads nothing",
            prepare=f"python run.py dataset=hf dataset.path=nyu-mll/glue dataset.config_name={task}",
        )  # fmt: skip
    splits = {split: _split(path, columns, len(classes)) for split, path in paths.items()}
    public = "its test rows are not used" if task == "mrpc" else "its test labels are not public"
    notes = {"source": f"local copy: glue/{task}", "test": f"GLUE's validation rows: {public}"}
    return finish(
        name=f"glue-{task}", classes=classes, train=splits["train"], test=splits["validation"], notes=notes,
        lenient=True, **subset,
    )  # fmt: skip


def _split(path: Path, columns: tuple[str, ...], classes: int) -> TextSplit:
    frame = read(path, [*columns, "label"])
    labels = frame["label"].to_numpy()
    if labels.dtype.kind != "i" or labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"{path}: the labels must be whole numbers from 0 to {classes - 1}; replace the file.")
    texts = [frame[column].tolist() for column in columns]
    for column, values in zip(columns, texts, strict=True):
        if bad := [row for row, text in enumerate(values) if not isinstance(text, str) or not text.strip()]:
            raise UserError(f"{path}, column {column}, row {bad[0] + 1}: the text is empty.")
    return TextSplit(texts[0], labels.astype(np.int64), texts[1] if len(texts) > 1 else None)
