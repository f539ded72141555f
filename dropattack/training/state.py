"""The loader that a training run needs, its state and its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from dropattack.batch import Batch


class LoaderLike(Protocol):
    """Batches as a pure function of the epoch; `start` skips the batches that a killed run has completed."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]: ...


class SplitLoader(LoaderLike, Protocol):
    """A loader that knows which rows of its split each batch has."""

    def rows(self, epoch: int = 0) -> list[np.ndarray]: ...


@dataclass
class TrainResult:
    """Result of a training run. Accuracies are in 0..1; times are in seconds, summed over all resumptions."""

    status: str  # finished | diverged
    error: str | None  # why it diverged
    best: dict[str, float] | None  # validation metrics of the best epoch, and `epoch` (from 1)
    best_weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    steps: int
    seconds: float
    seconds_per_step: float | None
    cpu_seconds_per_step: float | None
    peak_memory_mb: float
    topology: list[list[int]]  # [first step, processes] of each part, if the number of processes changed; else empty


@dataclass
class TrainState:
    """State of a run between two steps, all of which is stored in checkpoints."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # micro-batches completed in the current epoch
    step: int = 0  # optimizer steps completed
    stale: int = 0  # epochs without a better validation accuracy
    best: dict[str, float] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    train_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    epoch_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    topology: list[list[int]] = field(default_factory=list)
