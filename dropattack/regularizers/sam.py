"""SAM and ASAM: the gradient at the worst point nearby takes the clean one's place.

Foret et al. 2021 (arXiv 2010.01412); Kwon et al. 2021 (arXiv 2102.11600).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import boolean, non_negative
from dropattack.regularizers.functional import global_norm, rescale_together
from dropattack.regularizers.naming import resolve_weights
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class SAM(Regularizer):
    """L(θ + r), r = ρ g/‖g‖ with one norm over all targets. Adaptive: r = ρ w² g/‖|w| g‖.

    Args:
        model: The network.
        targets: The weights that are moved; by default all of the model that are trainable in a step.
        rho: Radius: SAM's authors use 0.05. The adaptive form needs a larger one: 0.5 to 2 is common.
        adaptive: ASAM: measures each weight in units of its own size.
        common: See `Regularizer`.
    """

    passes = 2
    strengths = ("rho",)

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] = ("*",),
        rho: float = 0.05,
        adaptive: bool = False,
        **common: Unpack[Common],
    ) -> None:
        self.rho = non_negative(rho, "rho")
        self.adaptive = boolean(adaptive, "adaptive")
        super().__init__(model, targets, **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_weights(self.model, targets, type(self).__name__)

    def _attack(self, run: Passes) -> None:
        run(keep=False, read=self.targets)
        moved = [t for t in self.targets if t.gradient is not None]
        gradients = [t.gradient for t in moved if t.gradient is not None]
        directions = self._directions(moved, gradients, run)
        slopes = [self._in_units(t, d) for t, d in zip(moved, directions, strict=True)]
        norm = global_norm(slopes)
        skipped = self._count_skipped(norm)
        self._remember(moved, gradients, run, norm)
        rho = self.rho * self._factor()
        scaled = [self._in_units(t, s) for t, s in zip(moved, slopes, strict=True)]
        shifts = rescale_together(scaled, rho, norm, skipped)
        with self._shifted(moved, shifts):
            run()

    def _directions(self, targets: Sequence[Target], gradients: Sequence[Tensor], run: Passes) -> Sequence[Tensor]:
        return gradients

    def _remember(self, targets: Sequence[Target], gradients: Sequence[Tensor], run: Passes, norm: Tensor) -> None:
        """Keep what later steps need of these gradients; `norm` [] is that of their directions."""

    def _in_units(self, target: Target, x: Tensor) -> Tensor:
        """|w| x for ASAM, x for SAM."""
        return target.value().abs() * x if self.adaptive else x
