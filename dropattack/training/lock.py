"""One process per run: a lock that the system releases even if its holder crashes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dropattack.errors import AlreadyRunningError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. Never remove the file: otherwise two processes could each hold a lock.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise AlreadyRunningError(f"another process is running this experiment (it holds {path})") from None
    with lock:
        yield
