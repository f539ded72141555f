"""R-AT: two adversarial passes have to agree (Ni, Yang, Kao 2022, EMNLP Findings, 2022.findings-emnlp.480)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from dropattack.regularizers.agreement import Divergence
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import boolean, non_negative
from dropattack.regularizers.naming import chosen
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.rdrop import Agreement

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class RAT(Regularizer):
    """L(θ) + (L_1 + L_2)/2 + α (KL(p_1‖p_2) + KL(p_2‖p_1))/2, both forwards at θ + r, r = ε g/‖g‖.

    The two forwards differ in their dropout alone; the KL is averaged over the batch.

    `forward` must return an object with `.loss` and `.logits`, and the model has to have dropout.

    Args:
        model: The network.
        targets: What is attacked; None: the input embedding's weight, or an image model's input.
        epsilon: Length of the perturbation.
        alpha: Weight of the agreement.
        relative: ε is a fraction of the norm of the target (for an embedding: as in `FGM`).
        divergence: What the logits are: see `RDrop`.
        common: See `Regularizer`.
    """

    passes = 3
    strengths = ("epsilon",)
    is_linear = False
    needs_logits = True
    composition = "adds"

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        alpha: float = 1.0,
        relative: bool = False,
        divergence: Divergence | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.alpha = non_negative(alpha, "alpha")
        self.relative = boolean(relative, "relative")
        self._agreement = Agreement("R-AT", divergence, common)
        super().__init__(model, chosen(targets, model, "RAT"), **common)

    def _backwards(self) -> int:
        return 2

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        with self._shifted(self.targets, [self._step(t, self._length(t, self.epsilon)) for t in self.targets]):
            run(lambda: self._agreement(run, self.alpha, self.model))
