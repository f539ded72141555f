"""RWP: half of the gradient at randomly perturbed weights (Li et al. 2022, arXiv 2211.11489)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import boolean, non_negative, probability
from dropattack.regularizers.functional import gaussian, l2_norm
from dropattack.regularizers.naming import resolve_weights
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.rows import EmbeddingRows
from dropattack.regularizers.targets import Target, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class RWP(Regularizer):
    """(1 − α) L(θ) + α L(θ + n), n ~ N(0, γ² ‖w‖²) for each element of a filter w.

    A filter is what one index of the first dimension holds; a vector is one filter. Rows of an embedding matrix outside
    the batch are left alone: they have no part in the loss.

    Args:
        model: The network.
        targets: The weights that are moved; all trainable ones by default.
        gamma: γ.
        alpha: α.
        relative: False: the standard deviation of the noise is γ.
        common: See `Regularizer`.
    """

    passes = 2
    strengths = ("gamma", "alpha")
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] = ("*",),
        gamma: float = 0.01,
        alpha: float = 0.5,
        relative: bool = True,
        **common: Unpack[Common],
    ) -> None:
        self.gamma = non_negative(gamma, "gamma")
        self.alpha = probability(alpha, "alpha")
        self.relative = boolean(relative, "relative")
        super().__init__(model, targets, **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_weights(self.model, targets, type(self).__name__)

    def _attack(self, run: Passes) -> None:
        # An embedding matrix alone is read: its rows of the batch are known after that.
        run(scale=1 - self.alpha, read=[t for t in self.targets if isinstance(t, EmbeddingRows)])
        with self._shifted(self.targets, [self._noise(t) for t in self.targets]):
            run(scale=self.alpha, moved=self.targets)

    def _noise(self, target: Target) -> Tensor:
        w = upcast(target.value())
        noise = gaussian(w, self._generator(w.device)).mul_(self.gamma * self._factor())
        return noise.mul_(l2_norm(w, per_example=w.dim() > 1)) if self.relative else noise
