"""FreeLB: every pass's gradient serves the ascent and the descent (Zhu et al. 2020, arXiv 1909.11764, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.activations import Activation, Start
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import at_least_one, non_negative
from dropattack.regularizers.functional import add, project_l2, uniform_start
from dropattack.regularizers.naming import chosen, resolve_activations
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class FreeLB(Regularizer):
    """(1/K) Σ_{k<K} L(x + δ_k), δ_{k+1} = Π_ε(δ_k + α g_k/‖g_k‖), δ_0 uniform, each example by its own norm.

    Its targets are activations: a module's output, or the input. An embedding's weight name stands for the embedding's
    output. There is no clean pass: the first pass is already perturbed by δ_0 (it is the one that BatchNorm sees).

    Args:
        model: The network.
        targets: What is attacked; None: the input embedding's output, or an image model's input.
        alpha: Length of a step ("adversarial learning rate").
        steps: K.
        epsilon: Radius of the projection; None for no projection. (The authors' settings have both.)
        init: Bound on ‖δ_0‖ of an example ("initial magnitude"); what an embedding's `padding_idx` marks is spared.
        common: See `Regularizer`.
    """

    composition = "alone"
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        alpha: float = 0.1,
        steps: int = 3,
        epsilon: float | None = None,
        init: float = 0.1,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.epsilon = None if epsilon is None else non_negative(epsilon, "epsilon")
        self.init = non_negative(init, "init")
        self.passes = self.steps
        super().__init__(model, chosen(targets, model, "FreeLB"), **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_activations(self.model, targets, type(self).__name__)

    def _is_plain(self) -> bool:
        return self.alpha == 0 and self.init == 0

    def _attack(self, run: Passes) -> None:
        shifts: list[Tensor | Start | None] = [self._start] * len(self.targets)
        for k in range(self.steps):
            final = k == self.steps - 1
            with self._shifted(self.targets, shifts):
                run(scale=1 / self.steps, read=() if final else self.targets)
            if not final:
                shifts = [self._ascend(t) for t in self.targets]

    def _start(self, value: Tensor, keep: Tensor | None) -> Tensor:
        return uniform_start(value.detach(), self.init * self._factor(), keep, self._generator(value.device))

    def _ascend(self, target: Target) -> Tensor:
        assert isinstance(target, Activation)
        delta = add(target.applied, self._step(target, self._length(target, self.alpha)))
        return delta if self.epsilon is None else project_l2(delta, self.epsilon * self._factor(), per_example=True)
