"""F-SAM: SAM along what is particular to this batch (Li et al. 2024, arXiv 2403.12350)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.base import Common
from dropattack.regularizers.checks import non_negative, probability
from dropattack.regularizers.rows import EmbeddingRows
from dropattack.regularizers.sam import SAM
from dropattack.regularizers.targets import Target, Weight

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class FSAM(SAM):
    """L(θ + r), r = ρ d/‖d‖, d = g − σ m, one norm over all targets; then m ← λ m + (1 − λ) g.

    m starts as the first g, whose d is g itself. m is a state of the method: it is saved with it, and every micro-batch
    moves it.

    Args:
        model: The network.
        targets: The weights that are moved; all trainable ones by default. Embedding matrices are moved whole: m is not
            confined to the rows of the batch.
        rho: Radius.
        sigma: σ.
        decay: λ.
        adaptive: As in `SAM`.
        common: See `Regularizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] = ("*",),
        rho: float = 0.2,
        sigma: float = 1.0,
        decay: float = 0.95,
        adaptive: bool = False,
        **common: Unpack[Common],
    ) -> None:
        self.sigma = non_negative(sigma, "sigma")
        self.decay = probability(decay, "decay")
        self._average: dict[str, Tensor] = {}
        self._attacked: dict[str, Any] = {}  # the weights that these are of
        super().__init__(model, targets, rho, adaptive, **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        found = super()._resolve(targets)
        return [_whole(t) if isinstance(t, EmbeddingRows) else t for t in found]

    def _resolved(self) -> None:
        # A new weight with a known name starts from nothing; one that is frozen for a while keeps its mean.
        now = {t.name: t.attacked for t in self.targets}
        for name in [n for n, weight in now.items() if self._attacked.get(n, weight) is not weight]:
            self._average.pop(name, None)
        self._attacked |= now

    def _directions(self, targets: Sequence[Target], gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        found = dict(zip([t.name for t in targets], gradients, strict=True))
        known = {name: gradient for name, gradient in found.items() if name in self._average}
        averages = [self._average[name].to(gradient) for name, gradient in known.items()]
        if known:
            own = list(known.values())
            directions = torch._foreach_sub(own, torch._foreach_mul(averages, self.sigma))
            torch._foreach_mul_(averages, self.decay)
            torch._foreach_add_(averages, torch._foreach_mul(own, 1 - self.decay))
            self._average |= zip(known, averages, strict=True)
            known = dict(zip(known, directions, strict=True))
        self._average |= {name: gradient.clone() for name, gradient in found.items() if name not in known}
        return [known.get(name, gradient) for name, gradient in found.items()]

    def _own_state(self) -> dict[str, Any]:
        return {name: average.clone() for name, average in self._average.items()}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self._average = {name: average.clone() for name, average in state.items()}


def _whole(target: EmbeddingRows) -> Weight:
    weight = Weight(target.name, target.parameter)
    weight.optional = target.optional
    return weight
