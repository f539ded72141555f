"""Pretrained word vectors for a vocabulary: text files of GloVe, word2vec and fastText, or a Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dropattack.errors import UserError

GLOVE = "glove"  # `model.vectors=glove` takes the first of these files in the data folder
GLOVE_FILES = ("glove6b_100d/words.parquet", "glove6b_100d/glove.6B.100d.txt")
MOST_NUMBERS, LONGEST_LINE = 10_000, 1 << 20  # per word, and in bytes: bounds memory on a wrong file


def find_vectors(name: str | Path, root: str | Path) -> Path:
    """Return the file that `model.vectors` names: a path, or `glove` for GloVe 6B, 100-d, in the data folder `root`.

    Raises:
        UserError: GloVe was not found.
    """
    if str(name) != GLOVE:
        return Path(name)
    for file in GLOVE_FILES:
        if (path := Path(root) / file).is_file():
            return path
    raise UserError(
        f"No GloVe vectors were found: {Path(root)} holds neither {' nor '.join(GLOVE_FILES)}. "
        f"Prepare them with `dropattack data glove --to {root}`, or set DROPATTACK_DATA."
    )


def load_vectors(path: str | Path, vocabulary: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read the vectors of the vocabulary's words from lines `word number number …`; skip a header line `rows size`.

    A Parquet table has the columns `word` and `vector` instead. For a text file, check the size of every line and the
    number of lines in the header, but parse only the words that are needed. If a word occurs several times, use the
    first line.

    Returns:
        (float32 [V, D], zero where a word has no vector; bool [V], true where it has one: the sum is the coverage).

    Raises:
        UserError: no such file, a bad line, which the message numbers, or no vector for any of the words.
    """  # noqa: DOC501  the IsADirectoryError becomes a UserError
    path = Path(path)
    if path.suffix == ".parquet":
        return _from_parquet(path, vocabulary)
    wanted = {word.encode(): row for row, word in enumerate(vocabulary)}
    found = np.zeros(len(vocabulary), dtype=bool)
    values, size, rows, number = np.zeros((0, 0), np.float32), 0, 0, 0
    try:
        if path.exists() and not path.is_file():  # a pipe might never end
            raise IsADirectoryError(0, "no file")
        with path.open("rb") as file, np.errstate(over="ignore"):
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
                fields = line.rstrip().count(b" ")
                if number == 1:
                    rows, header = _header(line)
                    size = header or fields
                    if size > MOST_NUMBERS:
                        raise UserError(f"{path}, line 1: {size} numbers are too many; fetch the file again.")
                    values = np.zeros((len(vocabulary), size), np.float32)
                    if header:
                        continue
                word, *numbers = line.rstrip().rsplit(b" ", size)
                # GloVe 840B has words that contain spaces; a number there means one number too many.
                if size == 0 or fields < size or (fields > size and _is_number(word.rsplit(b" ", 1)[-1])):
                    raise UserError(
                        f"{path}, line {number}: {fields} numbers where {size or 'some'} are expected; "
                        "the file is truncated or of mixed sizes: fetch it again."
                    )
                row = wanted.get(word)
                if row is None or found[row]:
                    continue
                try:
                    values[row] = [float(x) for x in numbers]
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: {error}; fetch the file again.") from error
                if not np.isfinite(values[row]).all():
                    raise UserError(f"{path}, line {number}: a number is not finite; fetch the file again.")
                found[row] = True
    except OSError as error:
        raise UserError(
            f"{path}: cannot read word vectors ({error.strerror}); give the path of a GloVe text file, "
            "such as glove.6B.300d.txt of https://nlp.stanford.edu/projects/glove/."
        ) from error
    if size == 0:
        raise UserError(f"{path} is empty; give a GloVe text file.")
    if rows >= number:
        raise UserError(f"{path} has {number - 1} of the {rows} lines that its header announces; fetch the file again.")
    if not found.any():
        raise UserError(
            f"{path} has no vector for any of the {len(vocabulary)} words; use vectors of the data's language and case."
        )
    return torch.from_numpy(values), torch.from_numpy(found)


def _from_parquet(path: Path, vocabulary: Sequence[str]) -> tuple[Tensor, Tensor]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pa.parquet.read_table(path, columns=["word", "vector"])
        words, vectors = table["word"].to_pylist(), table["vector"].combine_chunks()
        numbers = vectors.values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(words), -1)
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{path}: cannot read word vectors ({reason}); it must hold the columns word and vector, with all vectors "
            "of the same length."
        ) from error
    if not np.isfinite(numbers).all():
        raise UserError(f"{path}: a number is not finite; fetch the file again.")
    wanted = {word: row for row, word in enumerate(vocabulary)}
    pairs = {wanted[word]: row for row, word in reversed(list(enumerate(words))) if word in wanted}  # first wins
    if not pairs:
        raise UserError(f"{path} has no vector for any of the {len(vocabulary)} words; use another file.")
    values, found = np.zeros((len(vocabulary), numbers.shape[1]), np.float32), np.zeros(len(vocabulary), dtype=bool)
    rows = np.fromiter(pairs, np.int64)
    values[rows], found[rows] = numbers[np.fromiter(pairs.values(), np.int64)], True
    return torch.from_numpy(values), torch.from_numpy(found)


def _header(line: bytes) -> tuple[int, int]:
    """Return (rows, size) from a word2vec header `rows size`, or zeros if the line is not a header."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return 0, 0
    return int(fields[0][:15]), int(fields[1][:15])


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
