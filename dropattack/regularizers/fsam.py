"""F-SAM: SAM along what is particular to this batch (Li et al. 2024, arXiv 2403.12350)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dropattack.regularizers import functional
from dropattack.regularizers.base import Common
from dropattack.regularizers.checks import non_negative, probability
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.rows import EmbeddingRows
from dropattack.regularizers.sam import SAM
from dropattack.regularizers.targets import Target, Weight

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class FSAM(SAM):
    """L(θ + r), r = ρ d/‖d‖, d = g − σ m, one norm over all targets; then m ← λ m + (1 − λ) g.

    m starts as the first g, whose d is g itself. m is a state of the method: it is saved with it, and every micro-batch
    moves it, unless its g has no usable norm. g is that of the loss before `backward` scales it (loss scaling,
    accumulation).

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
        self._begun: dict[str, Tensor] = {}  # on a GPU: whether there has been a gradient with a usable norm
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
            self._begun.pop(name, None)
        self._attacked |= now

    def _attack(self, run: Passes) -> None:
        run.measure_scale()
        super()._attack(run)

    def _directions(self, targets: Sequence[Target], gradients: Sequence[Tensor], run: Passes) -> Sequence[Tensor]:
        directions = list(gradients)
        known = [i for i, target in enumerate(targets) if target.name in self._average]
        if known:
            averages = [self._average[targets[i].name].to(gradients[i]) for i in known]
            expected = torch._foreach_mul(averages, self.sigma * run.scale_on(gradients[0].device))
            for i, direction in zip(known, torch._foreach_sub([gradients[i] for i in known], expected), strict=True):
                directions[i] = direction
        return directions

    def _remember(self, targets: Sequence[Target], gradients: Sequence[Tensor], run: Passes, norm: Tensor) -> None:
        named = {target.name: gradient for target, gradient in zip(targets, gradients, strict=True)}
        if not functional.is_at_hand(norm):
            self._remember_without_waiting(named, run, norm)
            return
        scale = float(run.scale_on(norm.device))
        if not (norm < float("inf") and scale > 0):
            return
        known = [name for name in named if name in self._average]
        if known:
            averages = [self._average[name].to(named[name]) for name in known]
            torch._foreach_mul_(averages, self.decay)
            torch._foreach_add_(averages, torch._foreach_mul([named[n] for n in known], (1 - self.decay) / scale))
            self._average |= zip(known, averages, strict=True)
        self._average |= {name: gradient / scale for name, gradient in named.items() if name not in self._average}

    def _remember_without_waiting(self, named: dict[str, Tensor], run: Passes, norm: Tensor) -> None:
        """Do the same on a GPU, where it is not known here whether the gradients are usable."""
        none_yet = torch.zeros((), dtype=torch.bool, device=norm.device)
        groups = defaultdict(list)
        for name, gradient in named.items():
            if name not in self._average:
                self._average[name], self._begun[name] = torch.zeros_like(gradient), none_yet
            groups[id(self._begun.get(name)), gradient.device].append(name)
        for (_, device), names in groups.items():
            usable, begun = norm.to(device) < float("inf"), self._begun.get(names[0])
            decay = self.decay if begun is None else torch.where(begun.to(device), self.decay, 0.0)
            share = torch.where(usable, (1 - decay) / run.scale_on(device), 0.0)
            own = [torch.where(usable, named[name], 0.0) for name in names]
            averages = [self._average[name].to(gradient) for name, gradient in zip(names, own, strict=True)]
            torch._foreach_mul_(averages, torch.where(usable, decay, 1.0))
            torch._foreach_add_(averages, torch._foreach_mul(own, share))
            self._average |= zip(names, averages, strict=True)
            if begun is not None:
                self._begun |= dict.fromkeys(names, begun.to(device) | usable)

    def _own_state(self) -> dict[str, Any]:
        return {name: m.clone() for name, m in self._average.items() if self._begun.get(name, True)}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self._average, self._begun = {name: average.clone() for name, average in state.items()}, {}


def _whole(target: EmbeddingRows) -> Weight:
    weight = Weight(target.name, target.parameter)
    weight.optional = target.optional
    return weight
