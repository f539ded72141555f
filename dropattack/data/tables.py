"""A user's own table of texts: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.content import locate
from dropattack.data.labels import MISSING, names_of
from dropattack.data.own import SPLIT_NAMES, OwnSplit, finish_own
from dropattack.data.splits import SubsetOptions
from dropattack.data.types import Dataset, TextSplit
from dropattack.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl", ".parquet")  # all but Parquet also with .gz
SPLIT_COLUMN = "split"  # the default of `split_column`, which a table need not have


def load(
    *,
    root: str | Path,
    path: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    split_column: str | None = SPLIT_COLUMN,
    test_fraction: float = 0.2,
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return a classification data set from one table, or from one table per split.

    Args:
        root: the data folder, where relative paths are looked for too.
        path: the table of all rows, or of the training rows: `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        validation_path: the table of the validation rows; None takes them from the split column, or carves them.
        test_path: like `validation_path`, for the test rows.
        text_column: the column of the texts.
        text_pair_column: the column of each row's second text; None: there is one text per row.
        label_column: the column of the labels: words, whole numbers or booleans.
        split_column: the column that says `train`, `validation` or `test`; a table without `split` has none, and None
            ignores it.
        test_fraction: the share of the rows that becomes the test split, if there is none.
        cache: unused; accepted because every data set takes it.
        subset: see `own.finish_own`.

    Raises:
        UserError: no file, an unreadable one, a missing column, a bad row, or too few rows or labels.
    """
    if path is None:
        raise UserError(
            "dataset=csv needs your table: set dataset.path=reviews.csv (or .tsv, .jsonl, .parquet), and "
            "dataset.text_column and dataset.label_column if its columns are not called text and label."
        )
    columns = [text_column, *([] if text_pair_column is None else [text_pair_column]), label_column]
    named = {"train": path, "validation": validation_path, "test": test_path}
    given = {split: one for split, one in named.items() if one is not None}
    extras = {split: split_column if split == "train" else None for split in given}
    frames = {split: read(locate(one, root), columns, extras[split]) for split, one in given.items()}
    labels = [value for frame in frames.values() for value in frame[label_column].tolist()]
    parts: dict[str, OwnSplit] = {}
    for split, frame in frames.items():
        extra = extras[split]
        found = frame.get(extra) if extra is not None else None
        splits = None if found is None else found.tolist()
        made = rows_of(frame, columns, str(given[split]), splits, split, beside=labels)
        if twice := sorted(made.keys() & parts.keys()):
            raise UserError(
                f"The split column of {path} has rows of {', '.join(twice)}, and dataset.{twice[0]}_path names others; "
                "take one of them, or set dataset.split_column=null."
            )
        parts |= made
    return finish_own("csv", parts, {"source": Path(path).name}, test_fraction=test_fraction, **subset)


def read(path: Path, columns: Sequence[str], split_column: str | None = None) -> pd.DataFrame:
    """Return a table that has these columns; `split_column` may be missing if it has its default name.

    Cells of CSV and TSV files are read as text: it depends on the column what they mean.

    Raises:
        UserError: no such file, another suffix, an unreadable file, or a column that is missing or there twice.
    """
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in SUFFIXES or path.name.endswith(".parquet.gz"):
        raise UserError(f"{path}: a table has one of the suffixes {', '.join(SUFFIXES)}, not {path.suffix or 'none'}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}; set dataset.path to your table (relative paths start here or in the "
                        "data folder).")  # fmt: skip
    import pandas as pd

    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif suffix == ".jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            options: dict[str, Any] = {"sep": SEPARATORS[suffix], "dtype": str, "encoding": "utf-8-sig"}
            # Without a header, because pandas renames columns of the same name and guesses at rows that are too long.
            frame = pd.read_csv(path, header=None, keep_default_na=False, skip_blank_lines=True, **options)
            frame = frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis=1)
            check_quotes(path, SEPARATORS[suffix], frame.to_numpy().flat)
    except UserError:
        raise
    except Exception as error:  # of several libraries: not UTF-8, truncated, no table, out of columns
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{path} cannot be read ({reason[:200]}); is it a complete {suffix} file in UTF-8?") from error
    there = [str(name) for name in frame.columns]
    optional = {SPLIT_COLUMN} - set(there) - set(columns)
    wanted = [*columns, *([] if split_column is None or split_column in optional else [split_column])]
    for column in wanted:
        if there.count(column) != 1:
            problem = "no column" if column not in there else "several columns"
            if len(there) == 1 and ";" in there[0] and suffix in SEPARATORS:
                raise UserError(f"{path} is separated by semicolons; save it with commas, or as .tsv with tabs.")
            raise UserError(
                f"{path} has {problem} {column!r}; its columns are {', '.join(there)}. Name yours with "
                "dataset.text_column, dataset.label_column, dataset.text_pair_column and dataset.split_column."
            )
    if frame.empty:
        raise UserError(f"{path} has no rows.")
    return frame


def check_quotes(path: Path, separator: str, cells: Iterable[Any]) -> None:
    """Check that no cell with a line break is several rows, between the open quote of one and a quote of another.

    A quoted cell ends with a quote, and then comes a separator or the end of the line. Tables with tabs often have
    texts with quotes of their own, and no cell of such a table has both a tab and a line break.

    Raises:
        UserError: names the line.
    """
    broken = [cell for cell in cells if isinstance(cell, str) and ("\n" in cell or "\r" in cell)]
    if not broken:
        return
    remedy = 'write a quote within a quoted text twice (""), or save the table as .jsonl or .parquet'
    if separator == "\t" and (joined := [cell for cell in broken if separator in cell]):
        raise UserError(f"{path}: a quote is left open in {joined[0]!r:.60}, and the rows after it are lost; {remedy}.")
    csv.field_size_limit(sys.maxsize)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            for _ in rows:
                pass
        except csv.Error as error:
            where = f"{path}, line {rows.line_num}"
            raise UserError(f"{where}: a quote is left open there or before ({error}); {remedy}.") from error


def rows_of(
    columns_by_name: Any, columns: Sequence[str], where: str, splits: Sequence[Any] | None, split: str, *,
    named: bool = False, beside: Sequence[Any] = (),
) -> dict[str, OwnSplit]:  # fmt: skip
    """Return the checked rows of a table as parts: all of them as `split`, or by the values of its split column.

    Args:
        columns_by_name: a mapping from each name to its column.
        columns: the text column, the column of second texts if there is one, and the label column.
        where: the table, for errors.
        splits: the value of the split column of each row, if there is one.
        split: the split of all rows, if there is no split column.
        named: the labels are the names of classes as they are; None is missing.
        beside: see `labels.names_of`.

    Raises:
        UserError: an empty text, a missing label, or an unknown split.
    """
    *texts, labels = (list(columns_by_name[column]) for column in columns)
    for column, values in zip(columns, texts, strict=False):
        _check_texts(values, f"{where}, column {column}")
    at = f"{where}, column {columns[-1]}"
    if not named or None in labels:
        labels = names_of(labels, at, beside)
    names = list(map(str, labels))
    pairs = texts[1] if len(texts) > 1 else None
    whole = OwnSplit(TextSplit(texts[0], np.zeros(len(names), dtype=np.int64), pairs), names, where)
    if splits is None:
        return {split: whole}
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(splits):
        name = SPLIT_NAMES.get(str(value).strip().lower())
        if name is None:
            raise UserError(
                f"{where}, row {row + 1}: the split {value!r} is not one of {', '.join(SPLIT_NAMES)}; "
                "correct it, or set dataset.split_column=null to ignore the column."
            )
        rows.setdefault(name, []).append(row)
    if "train" not in rows:
        raise UserError(f"{where} has no row whose split is train; add some, or set dataset.split_column=null.")
    return {
        name: OwnSplit(whole.examples.take(np.array(chosen)), [names[row] for row in chosen], f"{where} ({name})")
        for name, chosen in rows.items()
    }


def _check_texts(values: Sequence[Any], where: str) -> None:
    for row, text in enumerate(values):
        at = f"{where}, row {row + 1}"
        if not isinstance(text, str) and str(text).lower() not in ("none", *MISSING):
            raise UserError(f"{at}: {text!r:.40} is not a text; is it the right column?")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{at}: the text is empty; fill it or remove the row.")
        if "\0" in text:
            raise UserError(f"{at}: the text holds a NUL byte; replace the file.")
