"""A data set of texts in the format of Hugging Face's `datasets`: a folder, or a name on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from dropattack.data.content import locate
from dropattack.data.hub import hub_reachable, is_cached, offline_unless_reachable
from dropattack.data.own import SPLIT_NAMES, OwnSplit, finish_own
from dropattack.data.splits import SubsetOptions
from dropattack.data.tables import rows_of
from dropattack.data.types import Dataset
from dropattack.errors import UserError

SAVED = ("dataset_dict.json", "state.json")  # one of them is in a folder that `save_to_disk` wrote
UNLABELLED = (None, -1)  # the labels of a test split that its providers keep to themselves


def load(
    *,
    root: str | Path,
    path: str | None = None,
    config_name: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    test_fraction: float = 0.2,
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return a text classification data set, read with `datasets.load_from_disk` or `datasets.load_dataset`.

    Splits are found by name (`train`, `validation`, `valid`, `val`, `dev`, `test`); those that are missing are carved.
    A split whose labels are all missing or -1 is left out. Class names are those of a `ClassLabel`, where there is one.

    Args:
        root: the data folder, where relative paths are looked for too.
        path: a folder (of `save_to_disk`, or of files that `load_dataset` reads), or a name on the hub.
        config_name: the configuration of the data set, where it has several.
        text_column: the column of the texts.
        text_pair_column: the column of each row's second text; None: there is one text per row.
        label_column: the column of the labels.
        test_fraction: the share of the rows that becomes the test split, if there is none.
        cache: unused; `datasets` has its own cache.
        subset: see `own.finish_own`.

    Raises:
        UserError: not found or not readable, a missing column, a bad row, or too few rows or labels.
    """
    if path is None:
        raise UserError("dataset=hf needs a data set: set dataset.path to a folder or to a name on the hub.")
    found = _read(path, locate(path, root), config_name)
    columns = [text_column, *([] if text_pair_column is None else [text_pair_column]), label_column]
    parts: dict[str, OwnSplit] = {}
    orders: dict[str, list[str]] = {}
    left_out = []
    for split, table in found.items():
        name, where = SPLIT_NAMES.get(split.lower()), f"{path} ({split})"
        if name is None:
            left_out.append(split)
            continue
        there = list(table.column_names)
        if missing := [column for column in columns if column not in there]:
            raise UserError(
                f"{where} has no column {missing[0]!r}; its columns are {', '.join(there)}. Name yours with "
                "dataset.text_column, dataset.label_column and dataset.text_pair_column."
            )
        rows = {column: list(table[column]) for column in columns}
        if not rows[label_column]:
            raise UserError(f"{where} has no rows.")
        if name != "train" and all(label in UNLABELLED for label in rows[label_column]):
            left_out.append(split)
            continue
        if (known := getattr(table.features[label_column], "names", None)) is not None:
            rows[label_column] = [_name(label, known) for label in rows[label_column]]
            orders[name] = known
        if name in parts:
            raise UserError(f"{path} has two splits for {name}, one of them {split}: save it without one of them.")
        parts |= rows_of(rows, columns, where, None, name, named=known is not None)
    if "train" not in parts:
        raise UserError(f"{path} has no split train; its splits are {', '.join(found)}.")
    notes: dict[str, Any] = {"source": f"datasets: {Path(path).name if Path(path).is_absolute() else path}"}
    if left_out:
        notes["splits_left_out"] = left_out
    named = list(dict.fromkeys([*orders.get("train", ()), *(one for known in orders.values() for one in known)]))
    return finish_own("hf", parts, notes, classes=named or None, test_fraction=test_fraction, **subset)


def _name(label: Any, names: list[str]) -> str | None:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None


def _read(path: str, folder: Path, config_name: str | None) -> dict[str, Any]:
    """Return the tables by the names of their splits."""
    local = folder.is_dir()
    if local and not any(folder.iterdir()):
        raise UserError(f"The folder {folder} is empty; set dataset.path to the folder of a data set.")
    if not local and (folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UserError(f"There is no folder {path}; set dataset.path to a folder, or to a name on the hub. A single "
                        "file is read with dataset=csv.")  # fmt: skip
    if not (local or is_cached(path) or hub_reachable()):  # importing `datasets` takes seconds
        raise UserError(
            f"Data set {path} is neither a folder nor in the Hugging Face cache, and the hub does not answer. Fetch it "
            "where there is a network, or set dataset.path to a folder."
        )
    import datasets

    datasets.disable_progress_bars()
    try:
        if local and any((folder / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(str(folder))
        elif local:
            found = datasets.load_dataset(str(folder), config_name)
        else:
            with offline_unless_reachable():
                found = datasets.load_dataset(path, config_name)
    except Exception as error:  # the library raises a dozen kinds of errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(" .:")
        raise UserError(f"{path} cannot be read as a data set ({reason}); check dataset.path.") from error
    return dict(found) if isinstance(found, dict) else {"train": found}
