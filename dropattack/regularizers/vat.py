"""VAT: predictions must stay the same where they change most (Miyato et al. 2018, arXiv 1704.03976)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dropattack.regularizers.agreement import Comparison, Divergence
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import at_least_one, non_negative
from dropattack.regularizers.functional import gaussian, l2_step
from dropattack.regularizers.naming import chosen, resolve_activations
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class VAT(Regularizer):
    """L(x) + α KL(p(x) ‖ p(x + r)), r = ε d/‖d‖, d the dominant direction of the KL by power iteration.

    d starts as a random direction of each example; each iteration takes the gradient of the KL at x + ξ d/‖d‖. p(x) is
    a constant. The labels have no part in r.

    `forward` must return an object with `.loss` and `.logits`.

    Args:
        model: The network.
        targets: Activations: a module's output, or the input; None: the input embedding's output, or an image model's
            input. An embedding's weight name stands for its output.
        epsilon: Length of the perturbation of an example.
        alpha: Weight of the KL.
        xi: Length ξ of the finite difference.
        steps: Power iterations.
        divergence: What the logits are: see `RDrop`.
        common: See `Regularizer`.
    """

    strengths = ("epsilon", "alpha")
    is_linear = False
    needs_logits = True
    composition = "adds"
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float = 1.0,
        alpha: float = 1.0,
        xi: float = 1e-3,
        steps: int = 1,
        divergence: Divergence | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = non_negative(epsilon, "epsilon")
        self.alpha = non_negative(alpha, "alpha")
        self.xi = non_negative(xi, "xi")
        self.steps = at_least_one(steps, "steps")
        self.passes = 2 + self.steps
        self._comparison = Comparison("VAT", divergence)
        super().__init__(model, chosen(targets, model, "VAT"), **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_activations(self.model, targets, "VAT")

    def _attack(self, run: Passes) -> None:
        run()
        p = self._comparison.logits(run.first)

        def divergence() -> Tensor:
            return self._comparison.directed(p, run.forward())

        shifts: list[Any] = [self._start] * len(self.targets)
        for k in range(1, self.steps + 1):
            with self._shifted(self.targets, shifts):
                run(divergence, keep=False, read=self.targets)
            length = self.xi if k < self.steps else self.epsilon * self._factor()
            shifts = [self._step(t, length) for t in self.targets]
        with self._shifted(self.targets, shifts):
            run(divergence, scale=self.alpha)

    def _start(self, value: Tensor, keep: Tensor | None) -> Tensor:
        d = gaussian(upcast(value.detach()), self._generator(value.device))
        d = d if keep is None else d * keep
        return l2_step(d, self.xi, per_example=True)
