"""The inputs that `predict` and `evaluate` are given: texts and images, in files or on the command line."""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands.parsing import add_places
from dropattack.data.tables import check_quotes
from dropattack.errors import UserError
from dropattack.runs import store
from dropattack.runs.reader import IMAGES

if TYPE_CHECKING:
    from dropattack.runs.trained import Trained

IMAGE = "image"  # the column of image files
TABLES = {".csv": ",", ".tsv": "\t"}
FRAMES = (".jsonl", ".parquet")
OTHER_TABLES = (".json", ".xlsx", ".gz")
ALL = ".csv, .tsv, .jsonl or .parquet"


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns: those of the table that the model was trained on, then the default ones."""

    text: tuple[str, ...]
    pair: tuple[str, ...]
    label: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Mapping[str, str | None]]) -> Columns:
        """Return the names for the model of a run, given its config."""
        own = config["dataset"]
        first = [own.get(f"{name}_column") for name in ("text", "text_pair", "label")]
        names = zip(first, ("text", "text_pair", "label"), strict=True)
        return cls(*(tuple(dict.fromkeys(filter(None, both))) for both in names))


def add_model(parser: argparse.ArgumentParser, *, printing: bool = True) -> None:
    """Add the options that find a trained model, and `--json` if the command prints values."""
    parser.add_argument("record", help="the record of a finished run, its run id, or its name")
    runs = "the output folder of the run (default: that of the record; outputs for an id)"
    add_places(parser, runs, "--data-folder")
    if printing:
        parser.add_argument("--json", action="store_true", help="print JSON")


def record_of(args: argparse.Namespace) -> Path:
    """Return the path of the record that `add_model`'s options name."""
    return store.named(args.record, args.runs or Path("outputs"))


def trained(args: argparse.Namespace) -> Trained:
    """Load the model that `add_model`'s options name."""
    path = record_of(args)
    check_device(args.device)
    from dropattack.runs.trained import load

    return load(path, data=args.data_folder, output=args.runs, device=args.device)


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UserError: names it.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device={device} is not available; take cpu") from error


def read_texts(path: Path, names: Columns) -> tuple[list[str], list[str]]:
    """Return the texts of a file, and the second texts of a table of pairs (or none).

    Args:
        path: a table (`ALL`), or a file with one text per line; `-` is stdin. A blank line is an empty text.
        names: the columns of a table.

    Raises:
        UserError: the file cannot be read, or has no text.
    """
    pairs: list[str] = []
    if path.suffix.lower() in (*TABLES, *FRAMES):
        columns = read_table(path, blank=True)
        texts = texts_of(path, columns, names.text)
        if any(name in columns for name in names.pair):
            pairs = texts_of(path, columns, names.pair)
    elif path.suffix.lower() in OTHER_TABLES:
        raise UserError(f"{path}: write the texts as a table ({ALL}), or as a file with one text per line")
    else:
        try:
            whole = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        texts = whole.removesuffix("\n").split("\n")
    if not any(map(str.strip, texts)):
        raise UserError(f"{path} has no text")
    return texts, pairs


def texts_of(path: Path, columns: Mapping[str, Sequence[object]], names: Sequence[str]) -> list[str]:
    """Return the first column of `names` that a table has, whose cells are texts.

    Raises:
        UserError: it has none of them, or a cell is missing or of another kind.
    """
    texts = []
    for row, cell in enumerate(column(path, columns, names), 1):
        if not isinstance(cell, str):
            missing = cell is None or cell != cell  # pandas reads null as NaN
            problem = "the text is missing" if missing else f"{cell!r:.40} is not a text; is it the right column?"
            raise UserError(f"{path}, row {row}: {problem}")
        texts.append(cell)
    return texts


def column(path: Path, columns: Mapping[str, Sequence[object]], names: Sequence[str]) -> Sequence[object]:
    """Return the first column of `names` that a table has.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if name in columns:
            return columns[name]
    raise UserError(f"{path} has no column {' or '.join(map(repr, names))}; its columns are {', '.join(columns)}")


def read_table(path: Path, *, blank: bool = False) -> dict[str, list[object]]:
    """Return the columns of a table; the cells of CSV and TSV files, whose first line names the columns, are texts.

    Args:
        path: the table.
        blank: read a blank line of a CSV or TSV file as a row of empty cells; otherwise skip it, as the training does.

    Raises:
        UserError: the file cannot be read, has no rows, or a row with another number of cells.
    """
    if path.suffix.lower() in FRAMES:
        import pandas as pd

        try:
            frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_json(
                path, lines=True, dtype=False)  # fmt: skip
        except Exception as error:  # of several libraries
            raise UserError(f"cannot read {path}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
        if frame.empty:
            raise UserError(f"{path} has no rows")
        _check_names(path, list(map(str, frame.columns)))
        return {str(name): frame[name].tolist() for name in frame}
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter=TABLES.get(path.suffix.lower(), ",")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    header = next(filter(None, rows), [])
    body = rows[rows.index(header) + 1 :] if header else []
    body = [row or [""] * len(header) for row in body if row or blank]
    if not body:
        raise UserError(f"{path} has no rows below a line of column names, such as text,label")
    for number, row in enumerate(body, 1):
        if len(row) != len(header):
            raise UserError(f"{path}, row {number}: {len(row)} cells, but there are {len(header)} columns")
    _check_names(path, [name.strip() for name in header])
    check_quotes(path, TABLES.get(path.suffix.lower(), ","), itertools.chain.from_iterable(body))
    return {name.strip(): [row[place] for row in body] for place, name in enumerate(header)}


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"{path} has several columns {twice[0]!r}; remove or rename all but one")


def image_files(places: Sequence[Path]) -> list[Path]:
    """Return the image files of folders and the files that are named.

    Raises:
        UserError: a place does not exist, or a folder has no image.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
            if not inside:
                raise UserError(f"there is no image in {place} ({', '.join(IMAGES)})")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise UserError(f"there is no file {place}")
    return found
