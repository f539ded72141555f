"""Find the files and folders that a user names, and digest their content.

A run on a user's own files is identified by what they hold: the same command on a changed file is another run, and the
same file in another folder is the same run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

DIGITS = 16  # hexadecimal, of a digest


def locate(path: str | Path, root: str | Path) -> Path:
    """Return `path`, seen from the current folder, or from the data folder `root` if it only exists there."""
    here = Path(path).expanduser()
    there = Path(root) / here
    return there if not here.exists() and there.exists() else here


def digest(root: str | Path, *paths: str | Path | None) -> str | None:
    """Return a digest of the content of files or folders, in this order; None if one of them does not exist.

    The names and places of files do not count; the names inside a folder do. Hidden files are left out.

    Args:
        root: where else to look for relative paths.
        paths: the files or folders; None stands for one that was not given.
    """
    total = hashlib.sha256()
    for path in paths:
        if path is None:
            total.update(b"-")
            continue
        found = locate(path, root)
        if found.is_file():
            total.update(b"f" + _of_file(found))
        elif found.is_dir():
            total.update(b"d" + _of_folder(found))
        else:
            return None
    return total.hexdigest()[:DIGITS]


def _of_folder(folder: Path) -> bytes:
    total = hashlib.sha256()
    inside = sorted((path.relative_to(folder).as_posix(), path) for path in _files(folder))
    for name, path in inside:
        if not any(part.startswith(".") for part in name.split("/")):
            total.update(name.encode(errors="surrogateescape") + b"\0" + _of_file(path))
    return total.digest()


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, also those of folders that are links; a link to a folder around it is left out.

    `rglob` does not follow such links, so two folders of links would have the same content.
    """
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        around = {here.resolve(), *here.resolve().parents}
        folders[:] = [name for name in folders if (here / name).resolve() not in around]
        yield from (path for path in map(here.joinpath, files) if path.is_file())


def _of_file(path: Path) -> bytes:
    status = path.stat()
    return _hashed(str(path.resolve()), status.st_size, status.st_mtime_ns)


@cache  # a config is resolved several times per run
def _hashed(path: str, size: int, changed: int) -> bytes:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.digest()
