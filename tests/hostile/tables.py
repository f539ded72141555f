"""Hostile tables of text: CSV and Parquet."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.data.makers import texts, write_split, write_table
from tests.hostile.case import Case

RUN = ("dataset=imdb", "model=lstm")


def good(folder: Path) -> dict[str, list[Any]]:
    """Write a good data set; return the columns of its training table, to be modified."""
    split = texts(400)
    for part in ("train", "test"):
        write_split(folder / "data" / "imdb" / f"{part}.parquet", split)
    return {"text": split.texts, "label": split.labels.tolist()}


def rows(column: str, value: Any, at: int = 3) -> Callable[[Path], Sequence[str]]:
    """Write the training table with one cell changed."""

    def make(folder: Path) -> Sequence[str]:
        columns = good(folder)
        columns[column][at] = value
        write_table(folder / "data" / "imdb" / "train.parquet", columns)
        return RUN

    return make


def columns(change: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]) -> Callable[[Path], Sequence[str]]:
    """Write the training table with other columns."""

    def make(folder: Path) -> Sequence[str]:
        write_table(folder / "data" / "imdb" / "train.parquet", change(good(folder)))
        return RUN

    return make


def csv(data: bytes, suffix: str = ".csv") -> Callable[[Path], Sequence[str]]:
    """Write these bytes as the training table, after a line `text,label` unless they have a header."""

    def make(folder: Path) -> Sequence[str]:
        good(folder)
        place = folder / "data" / "imdb"
        (place / "train.parquet").unlink()
        (place / f"train{suffix}").write_bytes(data)
        return RUN

    return make


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Path], Sequence[str]]:
    """Write the training Parquet file with other bytes."""

    def make(folder: Path) -> Sequence[str]:
        good(folder)
        path = folder / "data" / "imdb" / "train.parquet"
        path.write_bytes(change(path.read_bytes()))
        return RUN

    return make


def directory(folder: Path) -> Sequence[str]:
    good(folder)
    path = folder / "data" / "imdb" / "train.parquet"
    path.unlink()
    path.mkdir()
    return RUN


def without_test(folder: Path) -> Sequence[str]:
    good(folder)
    (folder / "data" / "imdb" / "test.parquet").unlink()
    return RUN


def twice_the_column(folder: Path) -> Sequence[str]:
    import pyarrow as pa
    import pyarrow.parquet

    columns = good(folder)
    table = pa.table([columns["text"], columns["text"], columns["label"]], names=["text", "text", "label"])
    pa.parquet.write_table(table, folder / "data" / "imdb" / "train.parquet")
    return RUN


def held_out(folder: Path) -> Sequence[str]:
    """Write AG News with words instead of flags for the authors' validation rows; each word would count as true."""
    place, split = folder / "data" / "agnews", texts(200, classes=4)
    write_split(place / "train.parquet", split, in_author_val=["no"] * len(split))
    for name in ("test.parquet", "author_val_ag1.csv.gz", "author_test_ag1.csv.gz"):
        write_split(place / name, split)
    return ["dataset=agnews", "dataset.split=author", "model=lstm"]


CASES = (
    Case(
        "CSV with other columns",
        csv(b"review,sentiment\nfine,1\n"),
        r"train\.csv has no column text and no column label; its columns are review, sentiment\. A table needs",
    ),
    Case(
        "CSV with a column twice",
        csv(b"text,text,label\na,b,1\n"),
        r"train\.csv has several columns text; remove all but one",
    ),
    Case("CSV of no bytes", csv(b""), r"train\.csv cannot be read: Empty CSV file\. Replace the file"),
    Case("CSV of a header alone", csv(b"text,label\n"), r"train\.csv has no rows; replace the file"),
    Case(
        "CSV in Latin-1",
        csv("text,label\ncafé,1\n".encode("latin-1")),
        r"train\.csv cannot be read: .*invalid UTF8 data\. Replace the file: .*not in UTF-8",
    ),
    Case(
        "CSV in Latin-1, in its header",
        csv("café,label\nfine,1\n".encode("latin-1")),
        r"train\.csv cannot be read: 'utf-8' codec can't decode .*not in UTF-8",
    ),
    Case("CSV in UTF-16", csv("text,label\nfine,1\n".encode("utf-16")), r"train\.csv cannot be read: .*not in UTF-8"),
    Case(
        "CSV with a NUL byte",
        csv(b"text,label\nfi\0ne,1\n"),
        r"train\.csv, row 1: .*the text holds a NUL byte; replace the file",
    ),
    Case(
        "CSV with a field of 5 MB",
        csv(b"text,label\n" + 5_000_000 * b"x" + b",1\n"),
        r"train\.csv cannot be read: a row is longer than 1 MB \(a quote left open\?\)",
    ),
    Case(
        "CSV with a quote left open",
        csv(b'text,label\nfine,1\n"bad,0\nworse,1\n'),
        r"train\.csv cannot be read: .*Expected 2 columns, got 1.*Replace the file",
    ),
    Case(
        "CSV with a row too long",
        csv(b"text,label\nfine,1\nbad,0,7\n"),
        r"train\.csv cannot be read: .*Expected 2 columns, got 3: bad,0,7\. Replace the file",
    ),
    Case(
        "CSV cut short in a row",
        csv(b"text,label\nfine,1\nba"),
        r"train\.csv cannot be read: .*got 1: ba\. Replace the file",
    ),
    Case(
        "CSV with an empty label",
        csv(b"text,label\nfine,1\nbad,\n"),
        r"train\.csv, row 2: .*label None is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "CSV with an empty text",
        csv(b"text,label\nfine,1\n,0\n"),
        r"train\.csv, row 2: .*the text is empty; fill it or remove the row",
    ),
    Case(
        "CSV with a label in words",
        csv(b"text,label\nfine,positive\n"),
        r"train\.csv, row 1: .*label 'positive' is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "CSV with a label of 30 digits",
        csv(b"text,label\nfine," + 30 * b"9" + b"\n"),
        r"train\.csv, row 1: .*label 1e\+30 is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "CSV with a terminal's escape in a column's name",
        csv(b"text,\x1b]0;owned\x07\nfine,1\n"),
        r"train\.csv has no column label; its columns are text, \\x1b\]0;owned\\x07\. A table needs",
    ),
    Case(
        "packed CSV cut short",
        csv(gzip.compress(b"text,label\n" + 99 * b"fine,1\n")[:40], ".csv.gz"),
        r"train\.csv\.gz cannot be read: Truncated compressed stream\. Replace the file",
    ),
    Case(
        "CSV that says it is packed",
        csv(b"text,label\nfine,1\n", ".csv.gz"),
        r"train\.csv\.gz cannot be read: zlib .*\. Replace the file",
    ),
    Case(
        "Parquet without a label",
        columns(lambda c: {"text": c["text"], "stars": c["label"]}),
        r"train\.parquet has no column label; its columns are text, stars\. A table needs",
    ),
    Case(
        "Parquet with a column twice", twice_the_column, r"train\.parquet has several columns text; remove all but one"
    ),
    Case(
        "Parquet without rows",
        columns(lambda c: {"text": [], "label": []}),
        r"train\.parquet has no rows; replace the file",
    ),
    Case(
        "Parquet with a null text",
        rows("text", None),
        r"train\.parquet, row 4: .*the text is empty; fill it or remove the row",
    ),
    Case(
        "Parquet with a null label",
        rows("label", None),
        r"train\.parquet, row 4: .*label None is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "Parquet with a text of blanks",
        rows("text", " \n\t"),
        r"train\.parquet, row 4: .*the text is empty; fill it or remove the row",
    ),
    Case(
        "Parquet with a label too high",
        rows("label", 2),
        r"train\.parquet, row 4: .*label 2 is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "Parquet with a negative label",
        rows("label", -1),
        r"train\.parquet, row 4: .*label -1 is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "Parquet with labels and a half",
        columns(lambda c: c | {"label": [x + 0.5 for x in c["label"]]}),
        r"train\.parquet, row 1: .*label 0\.5 is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "Parquet with labels true and false",
        columns(lambda c: c | {"label": [x > 0 for x in c["label"]]}),
        r"train\.parquet, row 1: .*label False is not a whole number from 0 to 1; correct it",
    ),
    Case(
        "Parquet with texts that are numbers",
        columns(lambda c: c | {"text": c["label"]}),
        r"train\.parquet, row 1: 0 is not a text; correct it",
    ),
    Case(
        "Parquet with texts that are lists",
        columns(lambda c: c | {"text": [[x] for x in c["text"]]}),
        r"train\.parquet, row 1: \['.* is not a text; correct it",
    ),
    Case(
        "Parquet with too few rows",
        columns(lambda c: {k: v[:20] for k, v in c.items()}),
        r"Dataset imdb: validation_rows=32 must be from 1 to 2 \(the split's rows\)",
    ),
    Case(
        "Parquet cut short",
        spoilt(lambda data: data[: len(data) // 2]),
        r"train\.parquet cannot be read: Parquet magic bytes not found.*Replace the file",
    ),
    Case(
        "Parquet with a broken page",
        spoilt(lambda data: data[:40] + bytes(200) + data[240:]),
        r"train\.parquet cannot be read: ZSTD decompression failed.*Replace the file",
    ),
    Case(
        "Parquet that is no Parquet",
        spoilt(lambda data: b"text,label\nfine,1\n"),
        r"train\.parquet cannot be read: Parquet magic bytes not found.*Replace the file",
    ),
    Case(
        "a folder in the place of a table",
        directory,
        r"imdb is incomplete: data/imdb holds test\.parquet but no train\.parquet.*dropattack data imdb",
    ),
    Case(
        "no test table",
        without_test,
        r"imdb is incomplete: data/imdb holds train\.parquet but no test\.parquet.*dropattack data imdb",
    ),
    Case(
        "marks of held-out rows that are words",
        held_out,
        r"agnews: the column in_author_val of train must hold true or false; correct it",
    ),
)
