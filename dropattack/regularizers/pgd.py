"""PGD: several projected steps, the loss at the last point (Madry et al. 2018, arXiv 1706.06083, in the 2-norm)."""

from collections.abc import Iterable

from torch import Tensor, nn

from dropattack.regularizers.base import DropoutMasks, Regularizer, at_least_one, non_negative
from dropattack.regularizers.functional import project_l2
from dropattack.regularizers.passes import Passes


class PGD(Regularizer):
    """L(θ) + L(θ + r_K), r_0 = 0, r_{k+1} = Π_ε(r_k + α g_k/‖g_k‖).

    Several targets are moved at once, each by its own norm. The K - 1 inner passes only give directions: they add
    nothing to `.grad` and skip the gradients of all weights that are not attacked.

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
        targets: str | Iterable[str],
        epsilon: float = 1.0,
        alpha: float = 0.3,
        steps: int = 3,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.passes = 1 + self.steps
        super().__init__(model, targets, dropout_masks=dropout_masks, seed=seed)

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        shifts: list[Tensor | None] = [None] * len(self.targets)
        for k in range(self.steps):
            shifts = [add(r, self._step(t, self.alpha)) for t, r in zip(self.targets, shifts, strict=True)]
            shifts = [
                r if r is None else project_l2(r, self.epsilon, t.per_example)
                for t, r in zip(self.targets, shifts, strict=True)
            ]
            final = k == self.steps - 1
            with self._shifted(self.targets, shifts):
                run(keep=final, read=() if final else self.targets)


def add(r: Tensor | None, step: Tensor | None) -> Tensor | None:
    """r + step, where None is zero."""
    return step if r is None else r if step is None else r + step
