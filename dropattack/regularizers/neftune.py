"""NEFTune: noise on the embedded text (Jain et al. 2023, arXiv 2310.05914)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.functional import uniform_start
from dropattack.regularizers.naming import chosen, resolve_activations
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class NEFTune(Regularizer):
    """L(x + n), n ~ U(−1, 1) · α/√d, d the elements of the example that are not padding: its length times the width.

    Args:
        model: The network.
        targets: Activations; None: the input embedding's output, or an image model's input. An embedding's weight name
            stands for its output.
        alpha: α. What an embedding's `padding_idx` marks is spared.
        common: See `Regularizer`.
    """

    passes = 1
    strengths = ("alpha",)
    composition = "alone"
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        alpha: float = 5.0,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        super().__init__(model, chosen(targets, model, "NEFTune"), **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_activations(self.model, targets, "NEFTune")

    def _attack(self, run: Passes) -> None:
        with self._shifted(self.targets, [self._noise] * len(self.targets)):
            run()
        self._count_left_out(self.targets)

    def _noise(self, value: Tensor, keep: Tensor | None) -> Tensor:
        return uniform_start(value.detach(), self.alpha * self._factor(), keep, self._generator(value.device))
