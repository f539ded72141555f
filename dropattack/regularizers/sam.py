"""SAM and ASAM: the gradient at the worst point nearby takes the clean one's place.

Foret et al. 2021 (arXiv 2010.01412); Kwon et al. 2021 (arXiv 2102.11600).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dropattack.regularizers.base import DropoutMasks, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.functional import l2_norm, rescale
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target


class SAM(Regularizer):
    """L(θ + r), r = ρ g/‖g‖ with one norm over all targets. Adaptive: r = ρ w² g/‖|w| g‖.

    Args:
        model: The network.
        targets: The weights that are moved; by default all of the model that are trainable in a step.
        rho: Radius: SAM's authors use 0.05. The adaptive form needs a larger one: 0.5 to 2 is common.
        adaptive: ASAM: measures each weight in units of its own size.
    """

    passes = 2

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] = ("*",),
        rho: float = 0.05,
        adaptive: bool = False,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
    ) -> None:
        self.rho = non_negative(rho, "rho")
        self.adaptive = adaptive
        super().__init__(model, targets, dropout_masks=dropout_masks, seed=seed)
        if activations := [t.name for t in self.targets if t.per_example]:
            raise ValueError(f"SAM moves weights, and {activations[0]!r} is an activation: name parameters")

    def _attack(self, run: Passes) -> None:
        run(keep=False, read=self.targets)
        moved = [t for t in self.targets if t.gradient is not None]
        slopes = [self._in_units(t, t.gradient) for t in moved if t.gradient is not None]
        norms = [l2_norm(slope) for slope in slopes]
        norm = l2_norm(torch.stack([n.to(norms[0].device) for n in norms])) if norms else torch.zeros(())
        self._count_skipped(norm)
        shifts = [
            rescale(self._in_units(t, s), self.rho, norm.to(s.device)) for t, s in zip(moved, slopes, strict=True)
        ]
        with self._shifted(moved, shifts):
            run()

    def _in_units(self, target: Target, x: Tensor) -> Tensor:
        """|w| x for ASAM, x for SAM."""
        return target.value().abs() * x if self.adaptive else x
