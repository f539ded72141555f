"""Graceful stopping: a signal sets a flag, and the loop stops where its state can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from dropattack.errors import Interrupted


class Signals:
    """Within `with`, SIGINT, SIGTERM and SIGUSR1 (a cluster's warning) set a flag; a second SIGINT stops at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in self.NUMBERS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise Interrupted if a signal arrived."""
        if self.number is not None:
            raise Interrupted(self.number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number
