"""Pretrained word vectors (GloVe, word2vec and fastText text files) for a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dropattack.errors import UserError


def load_vectors(path: str | Path, vocabulary: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The vectors of the vocabulary's words, from lines `word number number …`; a header line `rows size` is skipped.

    Every line's size is checked; numbers are read for the words that are needed. Of a word's several lines the first
    counts.

    Returns:
        (float32 [V, D], zero where there is no vector; bool [V], where there is one: its sum is the coverage).

    Raises:
        UserError: no such file, or a bad line, which it names by number.
    """
    path = Path(path)
    wanted = {word.encode(): row for row, word in enumerate(vocabulary)}
    found = np.zeros(len(vocabulary), dtype=bool)
    values, size = np.zeros((0, 0), np.float32), 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip().count(b" ")
                if number == 1:
                    header = _header(line)
                    size = header or fields
                    values = np.zeros((len(vocabulary), size), np.float32)
                    if header:
                        continue
                word, *numbers = line.rstrip().rsplit(b" ", size)
                # GloVe 840B has words with blanks inside; a number there means one number too many.
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
            f"{path}: no word vectors can be read there ({error.strerror}); give the path of a GloVe text file, "
            "such as glove.6B.300d.txt of https://nlp.stanford.edu/projects/glove/."
        ) from error
    if size == 0:
        raise UserError(f"{path} is empty; give a GloVe text file.")
    return torch.from_numpy(values), torch.from_numpy(found)


def _header(line: bytes) -> int:
    """The size that a word2vec header `rows size` states, else 0."""
    fields = line.split()
    return int(fields[1]) if len(fields) == 2 and all(field.isdigit() for field in fields) else 0


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
