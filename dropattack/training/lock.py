"""One process a run: a lock that the system releases whatever happens to its holder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dropattack.errors import AlreadyRunningError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, and remove it at the end.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise AlreadyRunningError(f"another process runs this experiment just now (it holds {path})") from None
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                break
        os.close(handle)  # the holder before us removed the file between our open and our lock: that lock is nobody's
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)
            path.parent.rmdir()  # only if nothing came of it
        os.close(handle)
