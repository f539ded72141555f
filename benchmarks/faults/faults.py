"""The faults: what happens to a run while it trains, or to its files before it is resumed."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.faults.task import BATCHES, STEPS, Places, put_data
from benchmarks.faults.trainers import saved

MIDDLE = BATCHES + 5  # a step within the second epoch, after several checkpoints
ALL = ("DropAttack", "Transformers", "Lightning", "Accelerate")
OURS = ("DropAttack",)
SAYS_DATA = r"data changed|fingerprint"
SAYS_BROKEN = r"checksum|corrupt|broken"
MID_EPOCH = r"your dataloader is\s+not resumable"  # Lightning's warning that a resumed epoch may read other rows


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: for the table.
        arm: prepares the first run, in its process, before the training.
        watched: kills the run from outside as soon as it has made a file of this many checkpoints.
        between: changes the files between the first run and the second.
        settings: the config of the second run, where it differs; the result must then be that of an unbroken run.
        trainers: to which the fault can happen.
        says: regular expression of a report that makes a loss a known one, whoever says it.
        sound: whether everything that the second run reads is right. Otherwise a loss is only known if it is reported.
        writers: runs started at once.
        arm_again: prepares the second run, as `arm` the first.
    """

    name: str
    arm: Callable[[Places, Path], None] | None = None
    watched: int | None = None
    between: Callable[[Path], None] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trainers: tuple[str, ...] = ALL
    says: str = MID_EPOCH
    sound: bool = True
    writers: int = 1
    arm_again: Callable[[Places, Path], None] | None = None


def at_step(step: int, act: Callable[[Path], object]) -> Callable[[Places, Path], None]:
    def arm(places: Places, folder: Path) -> None:
        places.after_step.append(lambda number: act(folder) if number == step else None)

    return arm


def send(number: signal.Signals) -> Callable[[Path], None]:
    return lambda _: os.kill(os.getpid(), number)


KILL = send(signal.SIGKILL)


def in_validation(number: signal.Signals) -> Callable[[Places, Path], None]:
    def arm(places: Places, folder: Path) -> None:
        def act(_: int) -> None:
            if places.counts["step"] >= BATCHES:
                os.kill(os.getpid(), number)

        places.at_validation.append(act)

    return arm


def at_first_batch(places: Places, folder: Path) -> None:
    places.at_batch.append(lambda number, pixels: KILL(folder))


def pause(folder: Path) -> None:
    """Stop this process; a child wakes it after a minute."""
    parent = os.getpid()
    if not (child := os.fork()):
        time.sleep(60)
        os.kill(parent, signal.SIGCONT)
        os._exit(0)
    os.kill(parent, signal.SIGSTOP)
    os.waitpid(child, 0)


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def full_disk(first: int, last: int = STEPS + 1) -> Callable[[Places, Path], None]:
    """Let the system refuse every write from step `first` to step `last`."""

    def arm(places: Places, folder: Path) -> None:
        def act(number: int) -> None:
            if number == first:
                limit_files(0)
            if number == last:
                limit_files(resource.RLIM_INFINITY)

        places.after_step.append(act)
        if not first:
            limit_files(0)

    return arm


def unwritable(places: Places, folder: Path) -> None:
    """Put a file where each trainer makes its folder, because no folder is read-only for root."""
    for name in ("out", "hf", "lightning", "accelerate"):
        (folder / name).write_text("")


def writable_again(folder: Path) -> None:
    for name in ("out", "hf", "lightning", "accelerate"):
        if (folder / name).is_file():
            (folder / name).unlink()


def removed(folder: Path) -> None:
    for name in ("out", "hf", "lightning", "accelerate"):
        shutil.rmtree(folder / name, ignore_errors=True)


def clock(seconds: float) -> Callable[[Path], None]:
    """Let the wall clock jump, but not the monotonic one."""
    real = time.time

    def jump(_: Path) -> None:
        mock.patch("time.time", side_effect=lambda: real() + seconds).start()

    return jump


def no_files(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))


def closed_output(folder: Path) -> None:
    """Whoever reads the output has gone, as with `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)


def raising_once(error: Callable[[], Exception]) -> Callable[[Places, Path], None]:
    def arm(places: Places, folder: Path) -> None:
        def act(number: int) -> None:
            if number == MIDDLE:
                raise error()

        places.at_forward.append(act)

    return arm


def broken_batch(places: Places, folder: Path) -> None:
    def act(number: int, pixels: Tensor) -> None:
        if number == MIDDLE:
            raise OSError(errno.EIO, "Input/output error")

    places.at_batch.append(act)


def not_finite(first: int, last: int) -> Callable[[Places, Path], None]:
    def arm(places: Places, folder: Path) -> None:
        def act(number: int, pixels: Tensor) -> None:
            if first <= number <= last:
                pixels.fill_(torch.nan)

        places.at_batch.append(act)

    return arm


def tracker(act: Callable[[], object]) -> Callable[[Places, Path], None]:
    return lambda places, folder: places.at_log.append(lambda number: act())


def fail() -> None:
    raise ConnectionError("the dashboard is gone")


def newest(folder: Path, pattern: str) -> Path:
    """Return the largest file of the newest checkpoint, or the one with a name like `pattern`."""
    checkpoint = saved(folder)[-1]
    files = [checkpoint] if checkpoint.is_file() else [*checkpoint.iterdir()]
    named = [file for file in files if file.match(pattern)] or files
    return max(named, key=lambda file: file.stat().st_size)


WEIGHTS = "*.safetensors"
STATE = "*.json"


def damaged(change: Callable[[bytes], bytes | None], pattern: str = WEIGHTS) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        file = newest(folder, pattern)
        after = change(file.read_bytes())
        file.unlink()
        if after is not None:
            file.write_bytes(after)

    return act


def flipped(data: bytes) -> bytes:
    """One bit of a weight, far from any header."""
    place = len(data) * 3 // 5
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def all_damaged(folder: Path) -> None:
    for checkpoint in saved(folder):
        for file in [checkpoint] if checkpoint.is_file() else [*checkpoint.rglob("*")]:
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-100])


def older_than_its_elders(folder: Path) -> None:
    """Date the newest checkpoint an hour back, as if the clock had been wrong."""
    checkpoint = saved(folder)[-1]
    past = time.time() - 3600
    for file in [checkpoint, *checkpoint.rglob("*")]:
        os.utime(file, (past, past))


def emptied_beside(folder: Path) -> None:
    """Make a later checkpoint without content, as a crash of the machine leaves it."""
    checkpoint = saved(folder)[-1]
    if checkpoint.is_file():
        (checkpoint.with_name("last.ckpt")).write_bytes(b"")
    elif checkpoint.name.startswith("step-"):
        checkpoint.with_name("step-00000099-1").mkdir()
    else:
        checkpoint.with_name(checkpoint.name.rstrip("0123456789") + "99").mkdir()


def record_cut(folder: Path) -> None:
    for file in folder.glob("out/records/*.json"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other_data(folder: Path) -> None:
    put_data(folder, slice(None, None, -1))


def data_cut(folder: Path) -> None:
    file = folder / "sklearn" / "datasets" / "data" / "digits.csv.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


KILLED = at_step(MIDDLE, KILL)
NO_MEMORY = raising_once(lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
SKIPS = r'"skipped_steps": [1-9]|no finite gradient'
FAULTS = (
    Fault("killed at the first batch", at_first_batch),
    Fault("killed after the first step", at_step(1, KILL)),
    Fault("killed within an epoch", KILLED),
    Fault("killed at the last step of an epoch", at_step(2 * BATCHES, KILL)),
    Fault("killed in a validation", in_validation(signal.SIGKILL)),
    Fault("killed at the last step", at_step(STEPS, KILL)),
    Fault("killed while the first checkpoint is written", watched=1),
    Fault("killed while a later checkpoint is written", watched=4),
    Fault("killed twice", KILLED, arm_again=at_step(2, KILL)),
    Fault("SIGTERM within an epoch", at_step(MIDDLE, send(signal.SIGTERM))),
    Fault("SIGINT within an epoch", at_step(MIDDLE, send(signal.SIGINT))),
    Fault("SIGUSR1 within an epoch", at_step(MIDDLE, send(signal.SIGUSR1))),
    Fault("SIGHUP within an epoch", at_step(MIDDLE, send(signal.SIGHUP))),
    Fault("SIGTERM in a validation", in_validation(signal.SIGTERM)),
    Fault("stopped for a minute", at_step(MIDDLE, pause)),
    Fault("full disk at the first checkpoint", full_disk(1, 4)),
    Fault("full disk at later checkpoints", full_disk(BATCHES + 1, 2 * BATCHES)),
    Fault("full disk from the last step on", full_disk(STEPS)),
    Fault("full disk all the time", full_disk(0)),
    Fault("output folder cannot be written", unwritable, between=writable_again),
    Fault("output folder removed while running", at_step(MIDDLE, removed)),
    Fault("no file can be opened any more", at_step(MIDDLE, no_files)),
    Fault("nobody reads the output", at_step(MIDDLE, closed_output)),
    Fault("clock jumps back an hour", at_step(MIDDLE, clock(-3600))),
    Fault("clock jumps ahead a day", at_step(MIDDLE, clock(86_400))),
    Fault("newest checkpoint older than its elders", KILLED, between=older_than_its_elders),
    Fault("bit flipped in the newest weights", KILLED, between=damaged(flipped), says=SAYS_BROKEN, sound=False),
    Fault("newest weights cut to half", KILLED, between=damaged(lambda data: data[: len(data) // 2])),
    Fault("newest weights missing", KILLED, between=damaged(lambda data: None)),
    Fault("newest state file cut to half", KILLED, between=damaged(lambda data: data[: len(data) // 2], STATE)),
    Fault("every checkpoint cut short", KILLED, between=all_damaged),
    Fault("a later checkpoint that is empty", KILLED, between=emptied_beside),
    Fault("record cut to half after the end", between=record_cut, trainers=OURS),
    Fault("two runs into one folder", writers=2),
    Fault("tracker raises", tracker(fail), says=rf"tracking stopped|{MID_EPOCH}"),
    Fault("tracker hangs", tracker(lambda: time.sleep(3600)), says=rf"tracking stopped|{MID_EPOCH}"),
    Fault("NaN in one batch", not_finite(MIDDLE, MIDDLE), says=SKIPS),
    Fault("NaN in every batch", not_finite(1, 99), says=SKIPS),
    Fault("out of memory at one step", NO_MEMORY),
    Fault("a batch cannot be read", broken_batch),
    Fault("data file replaced before resuming", KILLED, between=other_data, says=SAYS_DATA),
    Fault("data file cut short before resuming", KILLED, between=data_cut, trainers=OURS),
    # To the others, resuming means to continue with the new setting; to us, another config is another run.
    Fault("other learning rate on resuming", KILLED, settings={"trainer.learning_rate": 1e-3}, trainers=OURS),
    Fault("other batch size on resuming", KILLED, settings={"trainer.batch_size": 8}, trainers=OURS),
    Fault("other seed on resuming", KILLED, settings={"seed": 5}, trainers=OURS),
    Fault("other network on resuming", KILLED, settings={"model.dropout": 0.1}, trainers=OURS),
)
