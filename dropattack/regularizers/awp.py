"""AWP: the gradient at the worst weights nearby, measured layer by layer (Wu, Xia, Wang 2020, arXiv 2004.05884)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import at_least_one, boolean, non_negative
from dropattack.regularizers.functional import add, project_l2
from dropattack.regularizers.naming import resolve, resolve_weights
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class AWP(Regularizer):
    """L(θ + v, x + r), v = γ ‖w‖ g/‖g‖ of each weight w, g = ∇_w L(θ, x + r); r attacks `inputs`, if there are any.

    Args:
        model: The network.
        targets: The weights that are moved; None: as in the authors' code, those called a weight that have more than
            one dimension, so neither biases nor normalisation layers.
        gamma: γ.
        relative: False: ‖v‖ = γ for each weight. (‖w‖ of an embedding: of the rows that `FGM` measures.)
        inputs: What PGD attacks first, such as `"<input>"`; None: nothing.
        epsilon: Radius of r.
        alpha: Length of a step of r.
        steps: Steps of r.
        common: See `Regularizer`.
    """

    strengths = ("gamma",)

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        gamma: float = 0.01,
        relative: bool = True,
        inputs: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        alpha: float = 0.3,
        steps: int = 3,
        **common: Unpack[Common],
    ) -> None:
        self.gamma = non_negative(gamma, "gamma")
        self.relative = boolean(relative, "relative")
        self.epsilon, self.alpha = non_negative(epsilon, "epsilon"), non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self._input_names = inputs if inputs is None or isinstance(inputs, str) else list(inputs)
        self._has_inputs = inputs is not None
        self._of_any_dimension = targets is not None
        self._weights: list[Target] = []
        self._inputs: list[Target] = []
        self.passes = 2 + self.steps if self._has_inputs else 2
        super().__init__(model, "*weight*" if targets is None else targets, **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        found = resolve_weights(self.model, targets, "AWP")
        weights = [t for t in found if self._of_any_dimension or is_lazy(t.attacked) or t.attacked.dim() > 1]
        if not weights:
            raise ValueError(
                "AWP perturbs the matrices called weight, and this model has none: name the weights, targets=[…]"
            )
        inputs = [] if self._input_names is None else resolve(self.model, self._input_names)
        self._roles = [{id(t.attacked) for t in role} for role in (weights, inputs)]
        own = {id(t.attacked): t for t in weights}
        return list(dict.fromkeys([*weights, *(own.get(id(t.attacked), t) for t in inputs)]))

    def _resolved(self) -> None:
        self._weights, self._inputs = ([t for t in self.targets if id(t.attacked) in role] for role in self._roles)

    def _identity(self) -> str:
        return super()._identity() if self._input_names is None else f"{super()._identity()} of {self._input_names}"

    def _is_plain(self) -> bool:
        return self.gamma == 0 and (not self._has_inputs or self.epsilon == 0 or self.alpha == 0)

    def _attack(self, run: Passes) -> None:
        shifts: list[Tensor | None] = [None] * len(self._inputs)
        for _ in range(self.steps if self._inputs else 0):
            with self._shifted(self._inputs, shifts):
                run(keep=False, read=self._inputs)
            shifts = [self._ascend(t, r) for t, r in zip(self._inputs, shifts, strict=True)]
        with self._shifted(self._inputs, shifts):
            run(keep=False, read=self._weights)
        moved = [t for t in self._weights if t.gradient is not None]
        worst = [self._worst(t) for t in moved]
        with self._shifted(self._inputs, shifts), self._shifted(moved, worst):
            run()

    def _ascend(self, target: Target, r: Tensor | None) -> Tensor:
        factor = self._factor()
        r = add(r, self._step(target, self.alpha * factor))
        return project_l2(r, self.epsilon * factor, target.per_example)

    def _worst(self, target: Target) -> Tensor:
        return self._step(target, self._length(target, self.gamma))
