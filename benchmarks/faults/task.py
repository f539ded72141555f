"""The task of all trainers here, the digits with a small network, and the places where a fault can strike."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dropattack.data import digits
from dropattack.data.types import Encoded
from dropattack.runs import build, experiment
from dropattack.runs.config import compose

BATCH, BATCHES, EPOCHS, SAVE_EVERY = 16, 6, 3, 3  # SAVE_EVERY: optimizer steps between checkpoints
STEPS = BATCHES * EPOCHS
RUN = ["dataset=digits", "model=cnn", "scale=smoke", "reg=none", "model.dropout=0.3", "tracker=none",
       f"dataset.train_rows={BATCH * BATCHES}", "dataset.validation_rows=32", f"trainer.batch_size={BATCH}",
       f"trainer.epochs={EPOCHS}", "trainer.device=cpu", "trainer.threads=1", "trainer.progress=plain",
       "trainer.learning_rate=3e-3", "trainer.checkpoint.share=1", "trainer.checkpoint.every_minutes=1e-9"]  # fmt: skip
Settings = Mapping[str, Any]  # changes of the config: by its keys


def composed() -> DictConfig:
    return compose(experiment.CONF, RUN)


def settled(config: DictConfig, folder: Path, settings: Settings) -> DictConfig:
    """Return the config of a run in `folder`."""
    own = copy.deepcopy(config)
    for key, value in {"paths.output": str(folder / "out"), **settings}.items():
        OmegaConf.update(own, key, value)
    return own


def put_data(folder: Path, rows: slice = slice(None)) -> None:
    """Copy the digits into `folder`; `rows` sorts their lines, which makes other data of them."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    place = folder / "sklearn" / "datasets" / "data"
    place.mkdir(parents=True, exist_ok=True)
    source = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if rows == slice(None):
        shutil.copy(source, place)
        return
    import gzip

    lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
    (place / "digits.csv.gz").write_bytes(gzip.compress(b"".join(lines[rows])))


@contextmanager
def own_data(folder: Path) -> Iterator[None]:
    """Let the loader of digits read the file in `folder`."""
    found = SimpleNamespace(origin=str(folder / "sklearn" / "__init__.py"))
    with mock.patch.object(digits, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: found))):
        yield


def data_and_model(config: DictConfig) -> tuple[Encoded, nn.Module]:
    """Return what our own run builds from the config."""
    values = experiment.resolve(config)
    _, encoded = build.load_data(values)
    return encoded, build.build_model(values, encoded)


def new_trail() -> Tensor:
    """Return memory that a child process shares: its steps and batches in row 0, then a checksum of each row read."""
    return torch.zeros(1 + 2 * STEPS, BATCH, dtype=torch.int64).share_memory_()


class Places:
    """Calls of a fault: after an optimizer step, at a training batch or a log, in a validation, in a forward.

    Each is a list of functions that get the number (from 1); batches also get the pixels [B, 1, 8, 8] and may change
    them in place.

    Args:
        trail: see `new_trail`; it is filled with what this process trains on.
    """

    def __init__(self, trail: Tensor) -> None:
        self.trail = trail
        self.after_step: list[Callable[[int], None]] = []
        self.at_batch: list[Callable[[int, Tensor], None]] = []
        self.at_log: list[Callable[[int], None]] = []
        self.at_validation: list[Callable[[int], None]] = []
        self.at_forward: list[Callable[[int], None]] = []
        self.counts = {"step": 0, "batch": 0, "log": 0, "validation": 0, "forward": 0}

    def watch(self) -> None:
        """Call the lists from now on, whatever trains."""
        register_optimizer_step_post_hook(lambda *_: self._call("step", self.after_step))
        nn.modules.module.register_module_forward_pre_hook(self._forward)

    def _forward(self, module: nn.Module, inputs: Any) -> None:
        if type(module).__name__ == "CNN":
            kind = "forward" if module.training else "validation"
            self._call(kind, self.at_forward if module.training else self.at_validation)

    def batch(self, pixels: Tensor) -> None:
        self._call("batch", self.at_batch, pixels)
        if self.counts["batch"] < len(self.trail) and len(pixels) == BATCH:
            self.trail[self.counts["batch"]] = torch.tensor([zlib.crc32(row.numpy().tobytes()) for row in pixels])
            self.trail[0, 1] = self.counts["batch"]

    def log(self) -> None:
        self._call("log", self.at_log)

    def _call(self, kind: str, actions: list[Any], *more: Any) -> None:
        self.counts[kind] += 1
        self.trail[0, 0] = self.counts["step"]
        for action in actions:
            action(self.counts[kind], *more)


def log_to(descriptor: int) -> None:
    """Send stdout and stderr of this process to a pipe."""
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with suppress(OSError):
        os.close(0)
    torch.set_num_threads(1)
