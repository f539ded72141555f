"""FGM: one step along the gradient (Miyato, Dai, Goodfellow 2017, arXiv 1605.07725)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from dropattack.regularizers.base import Common, Norm, Regularizer
from dropattack.regularizers.checks import boolean, non_negative, one_of
from dropattack.regularizers.naming import chosen
from dropattack.regularizers.passes import Passes

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class FGM(Regularizer):
    """L(θ) + λ L(θ + r), r = ε g/‖g‖.

    Several targets are moved at once, each by its own norm. An embedding's weight is attacked as a matrix (common NLP
    practice); name the module (`"embed"`) for a perturbation of its output for each example, as in the paper.

    Args:
        model: The network.
        targets: What is attacked; None: the input embedding's weight, or an image model's input.
        epsilon: Length of the perturbation.
        relative: ε is a fraction of the target's norm (for an embedding: of the batch's rows, but of all rows if it is
            tied to the head: see `DropAttack`).
        norm: `"l2"`, or `"linf"`: r = ε sign(g).
        weight: λ.
        common: See `Regularizer`.
    """

    passes = 2
    strengths = ("epsilon", "weight")
    composition = "adds"

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        relative: bool = False,
        norm: Norm = "l2",
        weight: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.relative = boolean(relative, "relative")
        self.norm = one_of(norm, "norm", ("l2", "linf"))
        self.weight = non_negative(weight, "weight")
        super().__init__(model, chosen(targets, model, "FGM"), **common)

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        with self._shifted(self.targets, [self._step(t, self._length(t, self.epsilon)) for t in self.targets]):
            run(scale=self.weight)
