"""Mixup: train on mixtures of two images and of their losses (Zhang et al. 2018, arXiv 1710.09412, equation 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropattack.batch import Batch


@dataclass(frozen=True)
class Pairs:
    """How the rows of one micro-batch are mixed.

    Attributes:
        share: λ, the share of a row itself; its partner has 1 − λ.
        partners: the row that each row is mixed with: int64 [B].
    """

    share: float
    partners: Tensor

    def inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's inputs with `pixels` [B, …] mixed."""
        pixels = inputs["pixels"]
        return {**inputs, "pixels": self.share * pixels + (1 - self.share) * pixels[self.partners]}

    def loss(self, loss: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """Return λ L(y) + (1 − λ) L(y') for a loss L of labels [B], where y' are the partners' labels."""
        return self.share * loss(labels) + (1 - self.share) * loss(labels[self.partners])

    def labels(self, labels: Tensor) -> Tensor:
        """Return the label [B] with the larger share of each row, with which its prediction is compared."""
        return labels if self.share >= 0.5 else labels[self.partners]


class Mixup:
    """Draws λ from Beta(α, α) and a partner for each row, from a generator of its own.

    Args:
        alpha: α, more than 0.
        seed: of the generator.

    Raises:
        ValueError: α is not more than 0.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        if not alpha > 0:
            raise ValueError(f"mixup must be at least 0, not {alpha!r}")
        self.alpha = alpha
        self._random = np.random.default_rng(seed)

    def draw(self, batch: Batch) -> Pairs:
        """Return how to mix the rows of `batch`.

        Raises:
            ValueError: the batch has no pixels.
        """
        if "pixels" not in batch.inputs:
            raise ValueError("mixup mixes pixels, and this batch has none: set mixup to 0")
        share = float(self._random.beta(self.alpha, self.alpha))
        partners = torch.from_numpy(self._random.permutation(len(batch)))
        return Pairs(share, partners.to(batch.labels.device, non_blocking=True))

    def state_dict(self) -> dict[str, Any]:
        return dict(self._random.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state
