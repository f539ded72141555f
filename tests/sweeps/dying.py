"""Stand-ins for a run in a worker process. They import nothing else, so that workers start at once."""

import os
import signal
from pathlib import Path


def once(overrides: list[str], name: str, parent: int | None, turn: int) -> tuple[str, str]:
    """Kill this process the first time that any run is begun; later, finish at once."""
    folder = Path(next(o for o in overrides if o.startswith("paths.output=")).partition("=")[2])
    try:
        (folder / "died").touch(exist_ok=False)
    except FileExistsError:
        return name, ""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def always(overrides: list[str], name: str, parent: int | None, turn: int) -> tuple[str, str]:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
