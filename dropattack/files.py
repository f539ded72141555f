"""Atomic writes (a crash leaves either the old or the new file), and messages for failed writes."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path`, sync it to disk, and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def leave_stdout() -> None:
    """Point stdout at the null device: its reader has gone, as in `… | head -1`, and the work continues without it."""
    with suppress(OSError, ValueError):  # a stdout without a file, as in tests, cannot lose its reader
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def sync_folder(folder: Path) -> None:
    """Sync a rename in `folder` to disk, if the system can open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def system_errors() -> Iterator[None]:
    """Convert safetensors' own exception for a full disk back to an OSError."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or isinstance(error, OSError):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def disk_problem(path: Path, error: OSError) -> str:
    """Return one sentence about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write {path}: no space left; free some, or choose another folder with paths.output=…"
    return f"cannot write {path}: {error.strerror or error}; is paths.output a writable folder?"
