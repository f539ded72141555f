"""FGM: one step along the gradient (Miyato, Dai, Goodfellow 2017, arXiv 1605.07725)."""

from collections.abc import Iterable

from torch import nn

from dropattack.regularizers.base import DropoutMasks, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.naming import required
from dropattack.regularizers.passes import Passes


class FGM(Regularizer):
    """L(θ) + L(θ + r), r = ε g/‖g‖.

    Several targets are moved at once, each by its own norm. An embedding's weight is attacked as a matrix (common NLP
    practice); name the module (`"embed"`) for a perturbation of its output for each example, as in the paper.

    Args:
        model: The network.
        targets: What is attacked.
        epsilon: Length of the perturbation.
    """

    passes = 2

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
        batch_dim: int | None = None,
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        super().__init__(
            model, required(targets, model, "FGM"), dropout_masks=dropout_masks, seed=seed, batch_dim=batch_dim
        )

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        with self._shifted(self.targets, [self._step(t, self.epsilon) for t in self.targets]):
            run()
