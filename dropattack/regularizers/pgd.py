"""PGD: several projected steps, the loss at the last point (Madry et al. 2018, arXiv 1706.06083, in the 2-norm)."""

from collections.abc import Iterable

from torch import Tensor, nn

from dropattack.regularizers.base import DropoutMasks, Regularizer
from dropattack.regularizers.checks import at_least_one, non_negative
from dropattack.regularizers.functional import add, project_l2
from dropattack.regularizers.naming import required
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target


class PGD(Regularizer):
    """L(θ) + L(θ + r_K), r_0 = 0, r_{k+1} = Π_ε(r_k + α g_k/‖g_k‖).

    Several targets are moved at once, each by its own norm. The K - 1 inner passes only give directions: they add
    nothing to `.grad`.

    Args:
        model: The network.
        targets: What is attacked.
        epsilon: Radius of the ball.
        alpha: Length of a step.
        steps: K.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        alpha: float = 0.3,
        steps: int = 3,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
        batch_dim: int | None = None,
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.passes = 1 + self.steps
        super().__init__(
            model, required(targets, model, "PGD"), dropout_masks=dropout_masks, seed=seed, batch_dim=batch_dim
        )

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        shifts: list[Tensor | None] = [None] * len(self.targets)
        for k in range(1, self.steps + 1):
            shifts = [self._ascend(t, r) for t, r in zip(self.targets, shifts, strict=True)]
            with self._shifted(self.targets, shifts):
                run(keep=k == self.steps, read=self.targets if k < self.steps else ())

    def _ascend(self, target: Target, r: Tensor | None) -> Tensor:
        return project_l2(add(r, self._step(target, self.alpha)), self.epsilon, target.per_example)
