"""R-Drop: two forwards with different dropout have to agree (Liang et al. 2021, arXiv 2106.14448)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.functional import symmetric_kl
from dropattack.regularizers.passes import Passes, needed

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class RDrop(Regularizer):
    """(L_1 + L_2)/2 + α (KL(p_1‖p_2) + KL(p_2‖p_1))/2, the KL averaged over the batch; one backward through both.

    The losses are averaged, as in the authors' code; their paper adds them, where the same α weighs half as much.

    `forward` has to return an object with `.loss` and `.logits`, and the model has to have dropout.

    Args:
        model: The network.
        alpha: Weight of the agreement; the authors' is 0.5 (BERT) to 5 (translation).
        common: See `Regularizer`.
    """

    passes = 2
    strengths = ("alpha",)
    is_linear = False

    def __init__(self, model: nn.Module, alpha: float = 1.0, **common: Unpack[Common]) -> None:
        self.alpha = non_negative(alpha, "alpha")
        if common.get("dropout_masks", "fresh") != "fresh":
            raise ValueError("R-Drop compares two dropout masks, so it takes no dropout_masks='shared'")
        super().__init__(model, None, **common)

    def _backwards(self) -> int:
        return 1

    def _attack(self, run: Passes) -> None:
        def objective() -> Tensor:
            one, two = run.forward(), run.forward()
            apart = symmetric_kl(needed(one.logits, "R-Drop"), needed(two.logits, "R-Drop"))
            return (one.loss + two.loss) / 2 + self.alpha * self._factor() * apart

        run(objective)
