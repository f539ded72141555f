"""One process a run: a lock that the system releases whatever happens to its holder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dropattack.errors import AlreadyRunningError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The file stays: if it were removed, two processes could hold a lock each.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise AlreadyRunningError(f"another process runs this experiment just now (it holds {path})") from None
    with lock:
        yield
