"""Run a trainer in processes of its own, with a fault, and judge how it ends."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.faults.faults import Fault
from benchmarks.faults.task import Places, log_to, own_data, put_data, settled
from benchmarks.faults.trainers import TRAINERS, weights

QUIET, LIMIT = 20.0, 300.0  # seconds without any use of the CPU, and in all, after which a run hangs
TRIES = 3  # runs in all: the first, and the same command again
EXACT, LOSS, WRONG, MESSAGE, TRACE = OUTCOMES = (
    "survived exactly", "survived with a loss", "wrong silently", "died with a clear message", "died with a trace",
)  # fmt: skip


@dataclass
class Ended:
    """How a process ended: its wait status (None: it hung and was killed), and what it printed."""

    status: int | None
    said: str

    @property
    def how(self) -> str:
        if self.status is None:
            return "hung"
        if os.WIFSIGNALED(self.status):
            return f"ended by {signal.Signals(os.WTERMSIG(self.status)).name}"
        if not os.WEXITSTATUS(self.status):
            return "finished"
        return "trace" if "Traceback" in self.said else "message"


class Process:
    """A trainer in a forked process, so that libraries are imported once."""

    def __init__(
        self, trainer: str, folder: Path, config: DictConfig, arm: Callable[[Places, Path], None] | None = None
    ) -> None:
        self.folder, self.begin = folder, time.monotonic()
        self.used, self.active = -1, self.begin
        self.reading, writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.pid = os.fork()
        if not self.pid:
            self._child(trainer, config, arm, writing)
        os.close(writing)
        self.chunks: list[bytes] = []

    def _child(self, trainer: str, config: DictConfig, arm: Any, writing: int) -> None:
        code = 1
        try:
            log_to(writing)
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):  # as in a terminal: nohup ignores some
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(self.folder)
            places = Places()
            if arm is not None:
                arm(places, self.folder)
            places.watch()
            with own_data(self.folder):
                code = TRAINERS[trainer](self.folder, config, places)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            try:
                traceback.print_exc()
            except OSError:
                code = 1
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def poll(self) -> Ended | None:
        if select.select([self.reading], [], [], 0)[0]:
            while chunk := self._read():
                self.chunks.append(chunk)
        found, status = os.waitpid(self.pid, os.WNOHANG)
        late = not found and self._hangs()
        if late:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if not (found or late):
            return None
        while chunk := self._read():
            self.chunks.append(chunk)
        os.close(self.reading)
        return Ended(status if found else None, b"".join(self.chunks).decode(errors="replace"))

    def _hangs(self) -> bool:
        now, used = time.monotonic(), sum(map(int, Path(f"/proc/{self.pid}/stat").read_text().split()[13:15]))
        if used != self.used:
            self.used, self.active = used, now
        return now - self.active > QUIET or now - self.begin > LIMIT

    def _read(self) -> bytes:
        try:
            return os.read(self.reading, 1 << 16)
        except BlockingIOError:
            return b""

    def end(self, watched: int | None = None) -> Ended:
        """Wait until it ends; kill it as soon as it made `watched` new files of checkpoints."""
        before = _files(self.folder)
        while (ended := self.poll()) is None:
            if watched is not None and len(_files(self.folder) - before) >= watched:
                os.kill(self.pid, signal.SIGKILL)
                watched = None
            time.sleep(0.0005 if watched is not None else 0.03)
        return ended


def _files(folder: Path) -> set[str]:
    found: set[str] = set()
    for top in ("out", "hf", "lightning", "accelerate"):
        for where, _, names in os.walk(folder / top):
            found |= {f"{where}/{name}" for name in names if name != "lock"}
    return found


def unbroken(trainer: str, config: DictConfig, folder: Path, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a run without faults."""
    fresh(folder)
    ended = Process(trainer, folder, settled(config, folder, settings)).end()
    found = weights(folder)
    if ended.how != "finished" or found is None:
        raise RuntimeError(f"{trainer} does not finish without a fault: {ended.said[-2000:]}")
    return found


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    put_data(folder)


def judged(
    trainer: str, fault: Fault, config: DictConfig, folder: Path, wanted: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the outcome of one fault: the run with it, and then the same command until it finishes."""
    fresh(folder)
    started = [Process(trainer, folder, settled(config, folder, {}), fault.arm) for _ in range(fault.writers)]
    ends = [process.end(fault.watched) for process in started]
    if fault.between is not None:
        fault.between(folder)
    again = fault.between is not None or bool(fault.settings)
    while len(ends) < TRIES and (again or all(end.how != "finished" for end in ends) or weights(folder) is None):
        again = False
        arm = fault.arm_again if len(ends) == 1 else None
        ends.append(Process(trainer, folder, settled(config, folder, fault.settings), arm).end())
        if ends[-1].how == "finished":
            break
    found = weights(folder)
    said = "\n".join(end.said for end in ends)
    records = "".join(path.read_text(errors="replace") for path in folder.glob("out/records/*.json"))
    last = next((end for end in reversed(ends) if end.how == "finished"), None)
    entry = {"fault": fault.name, "trainer": trainer, "ends": [end.how for end in ends], "runs": len(ends)}
    lines = [line for line in ends[0].said.splitlines() if line.strip()]
    entry["said"] = re.sub(re.escape(str(folder)), "<folder>", lines[-1])[:200] if lines else ""
    finished = last is not None and found is not None
    entry["outcome"] = _outcome(finished, found, wanted, re.search(fault.says, said + records), ends[-1])
    return entry


def _outcome(
    finished: bool, found: Mapping[str, Tensor] | None, wanted: Mapping[str, Tensor], told: Any, last: Ended
) -> str:
    if not finished or found is None:
        return MESSAGE if last.how == "message" else TRACE
    if found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted):
        return EXACT
    finite = all(bool(tensor.isfinite().all()) for tensor in found.values())
    return LOSS if told and finite else WRONG
