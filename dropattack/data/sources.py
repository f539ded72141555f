"""Find a data set: its local copy, or else its official source, or else one error that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dropattack.data.hub import Unavailable, hub_columns
from dropattack.data.types import TextSplit
from dropattack.errors import UserError

SUFFIXES = (".parquet", ".csv", ".csv.gz")
Columns = dict[str, list[Any]]


def not_found(name: str, root: str | Path, looked: str, why: str, prepare: str | None = None) -> UserError:
    """Return the error for a data set that is neither local nor downloadable. `looked` describes the missing files."""
    command = prepare or f"dropattack data {name} --to {root}"
    return UserError(
        f"Dataset {name} was not found: no {looked} in {Path(root) / name}, and {why}. "
        f"Prepare it with `{command}`, or set DROPATTACK_DATA to a folder that holds {name}/."
    )


def find_table(folder: Path, stem: str) -> Path | None:
    """Return the path `folder/stem` with one of SUFFIXES, or None."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def read_table(path: Path, classes: int, extra: Sequence[str] = ()) -> tuple[TextSplit, Columns]:
    """Return the columns `text` and `label` (0..classes-1) of a Parquet or CSV file, and those of `extra` that it has.

    Raises:
        UserError: unreadable or truncated file, missing column, or a bad row, which the message names.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401  used as pa.parquet

    try:
        if path.suffix == ".parquet":
            names = pa.parquet.read_schema(path).names
            table = pa.parquet.read_table(path, columns=[c for c in ("text", "label", *extra) if names.count(c) == 1])
        else:
            table = pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(column_types={"text": pa.string()}),
            )
            names = table.column_names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{path} has several columns {', '.join(twice)}; remove all but one.")
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}. {_remedy(path)}") from error
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return checked_rows(columns, classes, str(path), names), {c: columns[c] for c in extra if c in columns}


def _reason(error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
    # Arrow's own message is about its block size.
    return "a row is longer than 1 MB (a quote left open?)" if "straddling" in reason else reason


def _remedy(path: Path) -> str:
    return "Replace the file: it may be truncated" + ("." if path.suffix == ".parquet" else ", or not in UTF-8.")


def checked_rows(columns: Columns, classes: int, where: str, names: Iterable[str]) -> TextSplit:
    """Check `text` and `label` row by row and return them. `where` names the table in error messages."""
    if missing := [column for column in ("text", "label") if column not in columns]:
        raise UserError(
            f"{where} has no column {' and no column '.join(missing)}; its columns are {', '.join(names)}. "
            f"A table needs `text` and `label` (0..{classes - 1})."
        )
    for row, (text, label) in enumerate(zip(columns["text"], columns["label"], strict=True)):
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}, row {row + 1}: {text!r:.40} is not a text; correct it.")
        if not text or not text.strip():
            raise UserError(f"{where}, row {row + 1}: the text is empty; fill it or remove the row.")
        if "\0" in text:  # a damaged file, or another encoding
            raise UserError(f"{where}, row {row + 1}: the text holds a NUL byte; replace the file.")
        if type(label) is not int or not 0 <= label < classes:
            raise UserError(
                f"{where}, row {row + 1}: label {label!r} is not a whole number from 0 to {classes - 1}; "
                "correct it or remove the row."
            )
    if not columns["text"]:
        raise UserError(f"{where} has no rows; replace the file.")
    return TextSplit(columns["text"], np.array(columns["label"], dtype=np.int64))


def train_and_test(
    name: str, root: str | Path, hub: str, classes: int, extra: Sequence[str] = ()
) -> tuple[TextSplit, TextSplit, Columns, str]:
    """Return (train, test, train's extra columns, source) from `root/name/{train,test}`, or else from `hub`.

    Raises:
        UserError: neither is available, or the local copy is incomplete or bad.
    """  # noqa: DOC501  not_found makes a UserError
    folder = Path(root) / name
    train_path, test_path = (find_table(folder, split) for split in ("train", "test"))
    if train_path and test_path:
        train, columns = read_table(train_path, classes, extra)
        test, _ = read_table(test_path, classes)
        return train, test, columns, f"local copy: {name}/{train_path.name}, {name}/{test_path.name}"
    if there := train_path or test_path:
        absent = "test" if train_path else "train"
        raise UserError(
            f"Dataset {name} is incomplete: {folder} holds {there.name} but no {absent}.parquet. "
            f"Prepare it again with `dropattack data {name} --to {root}`."
        )
    try:
        tables = {split: hub_columns(hub, split) for split in ("train", "test")}
    except Unavailable as error:
        raise not_found(name, root, "train.parquet and test.parquet", str(error)) from error
    train, test = (checked_rows(table, classes, f"{hub} ({split})", table) for split, table in tables.items())
    return train, test, {}, f"Hugging Face hub: {hub}"


def author_table(name: str, root: str | Path, stem: str, classes: int, repository: str) -> TextSplit:
    """Read a table published by the DropAttack authors from `root/name`. `repository` says where to find it."""
    folder = Path(root) / name
    if (path := find_table(folder, stem)) is None:
        raise UserError(
            f"Dataset {name}: split=author needs {stem}.csv.gz (or .csv) in {folder}; the file is in {repository}. "
            "Put it there, or take dataset.split=official."
        )
    return read_table(path, classes)[0]
