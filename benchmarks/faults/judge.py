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
from benchmarks.faults.task import BATCHES, STEPS, Places, log_to, new_trail, own_data, put_data, settled
from benchmarks.faults.trainers import TRAINERS, weights
from dropattack import provenance

QUIET, LIMIT = 20.0, 300.0  # seconds without any use of the CPU, and in all, after which a run hangs
CHECKPOINT = re.compile(r"/\.?((?:step-|checkpoint-|step_|epoch=)[^/]*)")
TRIES = 3  # runs in all: the first, and the same command again
EXACT, LOSS, MESSAGE, TRACE, WRONG = OUTCOMES = (
    "survived exactly", "survived with a loss", "died with a clear message", "died with a trace", "wrong silently",
)  # from best to worst  # fmt: skip


@dataclass
class Ended:
    """How a process ended: its wait status (None: it hung and was killed), what it printed, and what it trained on."""

    status: int | None
    said: str
    trail: Tensor

    @property
    def how(self) -> str:
        if self.status is None:
            return "hung"
        if os.WIFSIGNALED(self.status):
            return f"ended by {signal.Signals(os.WTERMSIG(self.status)).name}"
        if not os.WEXITSTATUS(self.status):
            return "finished"
        return "trace" if "Traceback" in self.said else "message"

    @property
    def steps(self) -> int:
        return int(self.trail[0, 0])

    @property
    def batches(self) -> list[list[int]]:
        return self.trail[1 : 1 + int(self.trail[0, 1])].tolist()


class Process:
    """A trainer in a forked process, so that libraries are imported once."""

    def __init__(
        self, trainer: str, folder: Path, config: DictConfig, arm: Callable[[Places, Path], None] | None = None
    ) -> None:
        self.folder, self.begin = folder, time.monotonic()
        self.used, self.active = -1, self.begin
        self.reading, writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.trail = new_trail()
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
            places = Places(self.trail)
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
        return Ended(status if found else None, b"".join(self.chunks).decode(errors="replace"), self.trail)

    def _hangs(self) -> bool:
        state, *numbers = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        now, used = time.monotonic(), sum(map(int, numbers[10:12]))
        if used != self.used or state == "T":  # a stopped process does not hang
            self.used, self.active = used, now
        return now - self.active > QUIET or now - self.begin > LIMIT

    def _read(self) -> bytes:
        try:
            return os.read(self.reading, 1 << 16)
        except BlockingIOError:
            return b""

    def end(self, watched: int | None = None) -> Ended:
        """Wait until it ends; kill it as soon as it has made a file of `watched` checkpoints."""
        seen: set[str] = set()
        while (ended := self.poll()) is None:
            if watched is not None and len(seen := seen | _checkpoints(self.folder)) >= watched:
                os.kill(self.pid, signal.SIGKILL)
                watched = None
            time.sleep(0.0005 if watched is not None else 0.03)
        return ended


def _checkpoints(folder: Path) -> set[str]:
    """Return the names of all checkpoints that have at least one file, final or temporary."""
    found: set[str] = set()
    for top in ("out/checkpoints", "hf", "lightning", "accelerate"):
        for where, _, names in os.walk(folder / top):
            found |= {path[1] for name in names if (path := CHECKPOINT.search(f"{where}/{name}"))}
    return found


@dataclass(frozen=True)
class Whole:
    """A run without faults: its weights, and the sorted checksums of the rows of each epoch."""

    weights: Mapping[str, Tensor]
    rows: list[int]


def unbroken(trainer: str, config: DictConfig, folder: Path, settings: Mapping[str, Any]) -> Whole:
    """Return the result of a run without faults."""
    fresh(folder)
    ended = Process(trainer, folder, settled(config, folder, settings)).end()
    found = weights(folder)
    if ended.how != "finished" or found is None:
        raise RuntimeError(f"{trainer} does not finish without a fault: {ended.said[-2000:]}")
    return Whole(found, sorted(row for batch in ended.batches[:BATCHES] for row in batch))


def _epochs(batches: list[list[int]]) -> list[list[int]]:
    return [sorted(row for batch in batches[i : i + BATCHES] for row in batch)
            for i in range(0, len(batches), BATCHES)]  # fmt: skip


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    put_data(folder)


def judged(trainer: str, fault: Fault, config: DictConfig, folder: Path, wanted: Whole) -> dict[str, Any]:
    """Return the outcome of one fault: the run with it, and then the same command until it finishes."""
    fresh(folder)
    started = [Process(trainer, folder, settled(config, folder, {}), fault.arm) for _ in range(fault.writers)]
    ends = [process.end(fault.watched) for process in started]
    if fault.watched is not None and ends[0].how != "ended by SIGKILL":
        raise RuntimeError(f"{trainer}: {fault.name}: the run ended before that: {ends[0].how}")
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
    entry["said"] = [_last_line(end.said, folder) for end in ends]
    if last is None or found is None:
        entry["outcome"] = MESSAGE if ends[-1].how == "message" else TRACE
    else:
        told = re.search(fault.says, said + records) is not None
        entry["outcome"] = outcome(found, wanted, told or (fault.sound and reads_all_rows(ends[0], last, wanted.rows)))
    return entry


def reads_all_rows(first: Ended, last: Ended, rows: list[int]) -> bool:
    """Return whether every epoch read each row once, where `last` resumed what `first` had done."""
    before = STEPS - last.steps
    path = [*first.batches[: max(before, 0)], *last.batches[-last.steps :]]
    return len(path) == STEPS and all(epoch == rows for epoch in _epochs(path))


def _last_line(said: str, folder: Path) -> str:
    """Return what a process said last, without folders of this machine."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return provenance.scrubbed(lines[-1], {str(folder): "<folder>"})[:200] if lines else ""


def outcome(found: Mapping[str, Tensor], wanted: Whole, known: bool) -> str:
    """Judge the weights of a run that finished; a loss is `known` if it was reported, or no row was lost."""
    if found.keys() == wanted.weights.keys() and all(
        torch.equal(found[name], one) for name, one in wanted.weights.items()
    ):
        return EXACT
    return LOSS if known and all(bool(tensor.isfinite().all()) for tensor in found.values()) else WRONG
