"""A finished run as the probes use it: its data, and the model with the weights that were tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dropattack.batch import Batch
from dropattack.data.loader import Loader
from dropattack.data.types import Encoded, TensorSplit
from dropattack.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Restored:
    """A finished run.

    Attributes:
        record: the run's record.
        model: in eval mode on `device`, with the weights that were tested.
        encoded: the data as tensors on the CPU.
        points: the model's attack points `input` and `hidden`, as in `runs.build.attack_points`.
    """

    path: Path
    record: dict[str, Any]
    model: nn.Module
    encoded: Encoded
    device: torch.device
    points: dict[str, str]

    @property
    def mean(self) -> Sequence[float] | None:
        """Per channel, for normalising pixels in 0..1; None for text."""
        statistics = self.encoded.train.pixel_statistics
        return None if statistics is None else statistics.mean

    @property
    def std(self) -> Sequence[float] | None:
        """Per channel, like `mean`."""
        statistics = self.encoded.train.pixel_statistics
        return None if statistics is None else statistics.std

    def split(self, name: str, rows: int | None = None) -> TensorSplit:
        """Return `rows` rows of a split (None: all), the same for every run on this data.

        Raises:
            UserError: the split is unknown.
        """
        if name not in SPLITS:
            raise UserError(f"there is no split {name!r}; splits: {', '.join(SPLITS)}")
        whole: TensorSplit = getattr(self.encoded, name)
        if rows is None or rows >= len(whole):
            return whole
        # The seed does not depend on the run, so that all runs are measured on the same rows.
        return whole.take(torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(whole))[:rows])))

    def batches(self, split: str | TensorSplit = "test", *, rows: int | None = None, size: int = 100) -> list[Batch]:
        """Return a split's batches on the model's device, as the model's loader makes them; the same on every call."""
        chosen = self.split(split, rows) if isinstance(split, str) else split
        loader = Loader(chosen, batch_size=size, shuffle=False, device=self.device, mean=self.mean, std=self.std)
        return list(loader.batches())

    def random_batches(self, split: str, *, count: int, rows: int) -> list[Batch]:
        """Return `count` disjoint batches of randomly chosen rows of a split, the same for every run on this data.

        Raises:
            UserError: there are fewer rows than batches.
        """
        whole = self.split(split, rows)
        if len(whole) < count:
            raise UserError(f"cannot split {len(whole)} rows of {split} into {count} batches: use more rows")
        order = np.random.default_rng(1).permutation(len(whole))
        made = []
        for part in np.array_split(order, count):
            made += self.batches(whole.take(torch.from_numpy(part)), size=len(part))
        return made
