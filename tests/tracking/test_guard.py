"""Whatever a tracker does, the run continues without waiting, and reports once that tracking stopped."""

import errno
import threading
import time

import pytest

from dropattack.tracking import guard
from dropattack.tracking.base import NullTracker
from dropattack.tracking.guard import Guarded


class Spy(NullTracker):
    """Record the calls; the method `broken` raises `error`, the method `stuck` hangs."""

    def __init__(self, broken: str = "", error: Exception | None = None, stuck: str = ""):
        self.broken, self.error, self.stuck, self.calls = broken, error, stuck, []
        self.abandoned = threading.Event()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.broken:
            raise self.error
        if name == self.stuck:
            threading.Event().wait(60)

    def start(self, config, **options):
        self.run_id = "r"
        self._call("start")

    def log(self, metrics, step):
        self._call(f"log {step}")

    def finish(self, summary, *, failed=False):
        self._call("finish")

    def abandon(self):
        self.abandoned.set()


def follow(spy: Spy) -> Guarded:
    tracker = Guarded(spy)
    tracker.start({"seed": 1}, name="n", group="g", tags=["t"])
    for step in range(3):
        tracker.log({"a": 1.0}, step)
    tracker.finish({"b": 2.0}, failed=True)
    return tracker


def test_calls_come_in_their_order(capsys):
    spy = Spy()
    assert follow(spy).run_id == "r"
    assert spy.calls == ["start", "log 0", "log 1", "log 2", "finish"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("one\ntwo")])
@pytest.mark.parametrize(
    ("broken", "calls"),
    [
        ("start", ["start", "finish"]),
        ("log 1", ["start", "log 0", "log 1", "finish"]),
        ("finish", ["start", "log 0", "log 1", "log 2", "finish"]),
    ],
)
def test_an_error_stops_tracking_and_is_reported_once(capsys, broken, calls, error):
    spy = Spy(broken, error)
    follow(spy)
    assert spy.calls == calls
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"tracking stopped: {type(error).__name__}: ")
    assert "two" not in said


@pytest.mark.parametrize("stuck", ["start", "log 1", "finish"])
def test_hanging_calls_are_abandoned(capsys, monkeypatch, stuck):
    monkeypatch.setattr(guard, "START_SECONDS", 0.3)
    monkeypatch.setattr(guard, "FINISH_SECONDS", 0.3)
    spy, begin = Spy(stuck=stuck), time.monotonic()
    follow(spy)
    assert time.monotonic() - begin < 10  # far from the 60 that it hangs
    assert spy.abandoned.wait(10)
    (said,) = capsys.readouterr().err.splitlines()
    assert "no answer within 0.3 s" in said


def test_finish_without_a_start_does_nothing():
    spy = Spy()
    Guarded(spy).finish({})
    assert spy.calls == []
