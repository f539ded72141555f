"""A finished run as the probes see it: the model with the weights that were tested, and its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dropattack.data.loader import Batch, Loader
from dropattack.data.types import Encoded, TensorSplit
from dropattack.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Restored:
    """A finished run.

    Attributes:
        record: the run's record.
        model: with the weights that were tested, in eval mode, on `device`.
        encoded: the data as tensors on the CPU.
        mean, std: per channel, what pixels in 0..1 are normalised with; None for text.
    """

    path: Path
    record: dict[str, Any]
    model: nn.Module
    encoded: Encoded
    device: torch.device
    mean: list[float] | None
    std: list[float] | None

    @property
    def points(self) -> dict[str, str]:
        """What the model's config calls `input` and `hidden`, as `runs.build.attack_points`."""
        aliases = getattr(self.model, "aliases", {})
        points = self.record["config"]["model"].get("attack_points") or {}
        return {point: aliases.get(name, name) for point, name in points.items()}

    def split(self, name: str, rows: int | None = None) -> TensorSplit:
        """`rows` rows of a split, the same for every run on this data; None: all of them.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"there is no split {name!r}; splits: {', '.join(SPLITS)}")
        whole: TensorSplit = getattr(self.encoded, name)
        if rows is None or rows >= len(whole):
            return whole
        # By a seed that is no run's: two runs that are compared are measured on the same rows.
        chosen = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(whole))[:rows]))
        lengths = None if whole.lengths is None else whole.lengths[chosen]
        return TensorSplit(whole.inputs[chosen], whole.labels[chosen], lengths)

    def batches(self, split: str | TensorSplit = "test", *, rows: int | None = None, size: int = 100) -> list[Batch]:
        """A split's batches on the model's device, as the model reads them; the same in every call."""
        chosen = self.split(split, rows) if isinstance(split, str) else split
        statistics: dict[str, Any] = {} if self.mean is None else {"mean": self.mean, "std": self.std}
        loader = Loader(chosen, batch_size=size, shuffle=False, device=self.device, **statistics)
        return list(loader.batches())

    def random_batches(self, split: str, *, count: int, rows: int) -> list[Batch]:
        """`count` disjoint batches of a split's rows drawn at random, the same for every run on this data.

        Raises:
            UserError: fewer rows than batches.
        """
        whole = self.split(split, rows)
        if len(whole) < count:
            raise UserError(f"{len(whole)} rows of {split} make no {count} batches: take more rows")
        order = np.random.default_rng(1).permutation(len(whole))
        made = []
        for part in np.array_split(order, count):
            index = torch.from_numpy(part)
            lengths = None if whole.lengths is None else whole.lengths[index]
            piece = TensorSplit(whole.inputs[index], whole.labels[index], lengths)
            made += self.batches(piece, size=len(part))
        return made
