"""Hostile word vectors, read by an LSTM at scale=smoke: eight numbers per word."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.data.makers import WORDS
from tests.hostile.case import Case
from tests.hostile.tables import RUN, good

EIGHT = " ".join(["0.5"] * 8)


def vectors(*lines: str | bytes) -> Callable[[Path], Sequence[str]]:
    """Write a file with these lines."""

    def make(folder: Path) -> Sequence[str]:
        data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        (folder / "glove.txt").write_bytes(data)
        good(folder)
        return [*RUN, "model.vectors=glove.txt"]

    return make


def instead(put: Callable[[Path], object]) -> Callable[[Path], Sequence[str]]:
    """Make something that is not a regular file."""

    def make(folder: Path) -> Sequence[str]:
        put(folder / "glove.txt")
        good(folder)
        return [*RUN, "model.vectors=glove.txt"]

    return make


CASES = (
    Case(
        "vectors of another size than the embeddings",
        vectors(*(f"{word} 1 2 3" for word in WORDS)),
        r"pretrained vectors are \[79, 3\], the embeddings \[79, 8\].*set model\.embedding_size=3",
    ),
    Case(
        "vectors of mixed sizes",
        vectors(f"red {EIGHT}", "green 0.5 0.5"),
        r"glove\.txt, line 2: 2 numbers where 8 are expected.*fetch it again",
    ),
    Case(
        "vectors with a word for a number",
        vectors(f"red {EIGHT[:-3]}half"),
        r"glove\.txt, line 1: could not convert .*half.*fetch the file again",
    ),
    Case(
        "vectors with NaN",
        vectors(f"red {EIGHT[:-3]}nan"),
        r"glove\.txt, line 1: a number is not finite; fetch the file again",
    ),
    Case(
        "vectors with a number beyond float32",
        vectors(f"red {EIGHT[:-3]}1e39"),
        r"glove\.txt, line 1: a number is not finite; fetch the file again",
    ),
    Case(
        "vectors of no words of the data",
        vectors(f"rojo {EIGHT}", f"verde {EIGHT}"),
        r"glove\.txt has no vector for any of the 79 words; use vectors of the data's language",
    ),
    Case(
        "vectors that are cut short",
        vectors("3 8", f"red {EIGHT}", f"green {EIGHT}"),
        r"glove\.txt has 2 of the 3 lines that its header announces; fetch the file again",
    ),
    Case(
        "a header that asks for a terabyte",
        vectors("400000 99999999999", f"red {EIGHT}"),
        r"glove\.txt, line 1: 99999999999 numbers are too many; fetch the file again",
    ),
    Case(
        "a header of 5,000 digits",
        vectors("1 " + 5_000 * "9", f"red {EIGHT}"),
        r"glove\.txt, line 1: 9+ numbers are too many; fetch the file again",
    ),
    Case(
        "a header alone",
        vectors("400000 8"),
        r"glove\.txt has 0 of the 400000 lines that its header announces; fetch the file again",
    ),
    Case("vectors of no bytes", vectors(), r"glove\.txt is empty; give a GloVe text file"),
    Case(
        "a line of 8 MB",
        vectors(8_000_000 * b"x"),
        r"glove\.txt, line 1: 0 numbers where some are expected.*fetch it again",
    ),
    Case(
        "binary vectors",
        vectors(b"3 8", bytes(range(256))),
        r"glove\.txt, line 2: 0 numbers where 8 are expected.*fetch it again",
    ),
    Case(
        "no vectors there",
        instead(lambda path: None),
        r"glove\.txt: cannot read word vectors \(No such file.*give the path of a GloVe text file",
    ),
    Case(
        "a folder for vectors",
        instead(Path.mkdir),
        r"glove\.txt: cannot read word vectors \(no file\); give the path of a GloVe text file",
    ),
    Case(
        "a pipe for vectors",
        instead(os.mkfifo),
        r"glove\.txt: cannot read word vectors \(no file\); give the path of a GloVe text file",
    ),
)
