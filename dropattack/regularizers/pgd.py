"""PGD: several projected steps, the loss at the last point (Madry et al. 2018, arXiv 1706.06083, in the 2-norm)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Norm, Regularizer
from dropattack.regularizers.checks import at_least_one, boolean, non_negative, one_of
from dropattack.regularizers.functional import add, project
from dropattack.regularizers.naming import chosen
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class PGD(Regularizer):
    """L(θ) + λ L(θ + r_K), r_0 = 0, r_{k+1} = Π_ε(r_k + α g_k/‖g_k‖).

    Several targets are moved at once, each by its own norm. The K - 1 inner passes only give directions: they add
    nothing to `.grad`.

    Args:
        model: The network.
        targets: What is attacked; None: the input embedding's weight, or an image model's input.
        epsilon: Radius of the ball.
        alpha: Length of a step.
        steps: K.
        relative: ε and α are fractions of the norm of the target, at the clean point (for an embedding: as in `FGM`).
        norm: `"l2"`, or `"linf"`: steps of α sign(g), in a cube.
        weight: λ.
        common: See `Regularizer`.
    """

    strengths = ("epsilon", "weight")
    composition = "adds"

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        alpha: float = 0.3,
        steps: int = 3,
        relative: bool = False,
        norm: Norm = "l2",
        weight: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.relative = boolean(relative, "relative")
        self.norm = one_of(norm, "norm", ("l2", "linf"))
        self.weight = non_negative(weight, "weight")
        self.passes = 1 + self.steps
        super().__init__(model, chosen(targets, model, "PGD"), **common)

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        lengths = [(self._length(t, self.alpha), self._length(t, self.epsilon)) for t in self.targets]
        shifts: list[Tensor | None] = [None] * len(self.targets)
        for k in range(1, self.steps + 1):
            shifts = [self._ascend(t, r, *both) for t, r, both in zip(self.targets, shifts, lengths, strict=True)]
            final = k == self.steps
            with self._shifted(self.targets, shifts):
                run(scale=self.weight if final else 1.0, keep=final, read=() if final else self.targets)

    def _ascend(self, target: Target, r: Tensor | None, alpha: float | Tensor, epsilon: float | Tensor) -> Tensor:
        return project(add(r, self._step(target, alpha)), epsilon, self.norm, target.per_example)
