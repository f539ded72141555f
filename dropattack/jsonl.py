"""Files of one JSON object per line, sorted by key, so that changing one object changes one line.

A file is replaced atomically, so it can be read while it is written. Processes that change it wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from dropattack.errors import UserError
from dropattack.files import disk_problem, write_atomically

DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, object as text) for each object of a file; none if the file is missing.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    for number, line in enumerate(text.split("\n"), 1):  # not `splitlines`: JSON may contain other line separators
        if line:
            yield number, line


def read(path: Path, key: Callable[[dict[str, Any]], str], remedy: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a file by key; none if the file is missing.

    Args:
        path: the file.
        key: returns the key of an object, and raises an error of `DAMAGED` if it is not one of this kind.
        remedy: tells the user, in the error message, how to fix a damaged line.

    Raises:
        UserError: the file cannot be read, or a line is damaged.
    """
    found = {}
    for number, line in lines(path):
        try:
            one = json.loads(line)
            found[key(one)] = one
        except DAMAGED as error:
            raise UserError(f"{path}, line {number} is damaged ({error}); {remedy}") from error
    return found


def write(path: Path, texts: Mapping[str, str]) -> None:
    """Replace a file by objects that are already JSON texts, given by key."""
    write_atomically(path, "".join(f"{texts[key]}\n" for key in sorted(texts)).encode(errors="backslashreplace"))


def line(content: Mapping[str, Any]) -> str:
    """Return an object as the JSON text of its line.

    Raises:
        ValueError: it contains NaN or infinity.
    """
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Make the other processes that change a file wait, inside a `with`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            yield
    except OSError as error:
        raise UserError(disk_problem(path, error)) from error
