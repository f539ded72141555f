"""Isolate a run from its tracker, so that it neither fails nor waits because of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from dropattack.tracking.base import Tracker

START_SECONDS = 60.0  # W&B's own limits (starting its service, reaching the server) add up to 40
FINISH_SECONDS = 45.0  # W&B gives up after 30


class Guarded:
    """A tracker whose calls a daemon thread makes in order.

    `log` never waits; `start` and `finish` have time limits. The first error or timeout disables tracking and is
    reported once; `finish` is still attempted after an error.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._calls: SimpleQueue[tuple[str, tuple[Any, ...], dict[str, Any], Event]] = SimpleQueue()
        self._thread: Thread | None = None
        self._stopped = False

    @property
    def run_id(self) -> str | None:
        return self.tracker.run_id

    def start(self, config: Mapping[str, Any], **options: Any) -> None:
        self._thread = Thread(target=self._work, daemon=True, name="tracker")
        self._thread.start()
        self._wait(self._call("start", config, **options), START_SECONDS)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._call("log", dict(metrics), step)

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        self._call("publish", list(files), name=name, kind=kind)

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        if self._thread is not None:
            self._wait(self._call("finish", dict(summary), failed=failed), FINISH_SECONDS)
            self._thread = None

    def _call(self, method: str, /, *args: Any, **kwargs: Any) -> Event:
        done = Event()
        self._calls.put((method, args, kwargs, done))
        return done

    def _wait(self, done: Event, seconds: float) -> None:
        if not done.wait(seconds):
            self._stop(f"no answer within {seconds:g} s")
            self._thread = None
            Thread(target=self.tracker.abandon, daemon=True).start()

    def _work(self) -> None:
        method = "start"
        while method != "finish":
            method, args, kwargs, done = self._calls.get()
            try:
                if not self._stopped or method == "finish":
                    getattr(self.tracker, method)(*args, **kwargs)
            except Exception as error:
                self._stop(reason(error))
            finally:
                done.set()

    def _stop(self, why: str) -> None:
        if not self._stopped:
            self._stopped = True
            print(f"tracking stopped: {why} (the run continues, and its record is complete)", file=sys.stderr)


def reason(error: Exception) -> str:
    """Return an exception's kind and first line; for invalid settings, their names too."""
    lines = str(error).strip().splitlines()
    if lines and "validation error" in lines[0]:  # pydantic's: the name is on the second line
        lines = [" ".join(line.strip() for line in lines[:3])]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
