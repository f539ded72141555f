"""A batch of examples: loaders make it, and training, evaluation and probes take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples.

    Attributes:
        inputs: the model's arguments by name, B rows each: `model(**batch.inputs)` gives logits [B, classes].
        labels: int64 [B].
    """

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)
