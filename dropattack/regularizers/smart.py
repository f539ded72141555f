"""SMART: predictions must stay the same near each example (Jiang et al. 2020, arXiv 1911.03437).

ALUM (Liu et al. 2020, arXiv 2004.08994) takes the same regularizer to pre-training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dropattack.regularizers.activations import Activation
from dropattack.regularizers.agreement import Comparison, Divergence
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.functional import gaussian, l2_norm, rescale, unusable
from dropattack.regularizers.naming import chosen, resolve_activations
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class SMART(Regularizer):
    """L(x) + λ (KL(p̄(x) ‖ p(x + r)) + KL(p̄(x + r) ‖ p(x))), r = η g/(‖g‖_∞ + ε), g = ∇_δ KL(p̄(x) ‖ p(x + δ)).

    δ ~ N(0, σ²) on each element; a bar marks what counts as a constant. The ∞-norm is that of a token of an activation
    [B, T, D], and of an example of any other. One backward goes through the clean forward and the last one.

    `forward` must return an object with `.loss` and `.logits`.

    Args:
        model: The network.
        targets: Activations: a module's output, or the input; None: the input embedding's output, or an image model's
            input. An embedding's weight name stands for its output.
        alpha: λ.
        eta: Length of the step.
        sigma: Standard deviation of the first, random perturbation; what an embedding's `padding_idx` marks is spared.
        epsilon: Added to the norm, as in the authors' code: a gradient far below it makes a shorter step.
        divergence: What the logits are: see `RDrop`.
        common: See `Regularizer`.
    """

    passes = 3
    strengths = ("alpha", "eta")
    is_linear = False
    needs_logits = True
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        alpha: float = 1.0,
        eta: float = 1e-3,
        sigma: float = 1e-5,
        epsilon: float = 1e-6,
        divergence: Divergence | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        self.eta = non_negative(eta, "eta")
        self.sigma = non_negative(sigma, "sigma")
        self.epsilon = non_negative(epsilon, "epsilon")
        self._comparison = Comparison("SMART", divergence)
        super().__init__(model, chosen(targets, model, "SMART"), **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_activations(self.model, targets, "SMART")

    def _backwards(self) -> int:
        return 1

    def _attack(self, run: Passes) -> None:
        def objective() -> Tensor:
            clean = run.forward()
            p = self._comparison.logits(clean).detach()
            with self._shifted(self.targets, self._ascended(run, p)):
                moved = run.forward()
            q = self._comparison.logits(moved).detach()
            apart = self._comparison.directed(p, moved) + self._comparison.directed(q, clean)
            return clean.loss + self.alpha * apart

        run(objective)

    def _ascended(self, run: Passes, p: Tensor) -> list[Tensor | None]:
        """Return r of each target. Its gradient is separate from the step's: no weight gets any of it."""

        def start(value: Tensor, keep: Tensor | None) -> Tensor:
            noise = gaussian(upcast(value.detach()), self._generator(value.device)) * self.sigma
            return (noise if keep is None else noise * keep).requires_grad_()

        with self._shifted(self.targets, [start] * len(self.targets)):
            moved = run.forward(read=False)
        self._count_left_out(self.targets)
        starts = [t.applied for t in self.targets if isinstance(t, Activation)]  # None: left out of this step
        if not any(start is not None for start in starts):
            return list(starts)
        apart = self._comparison.directed(p, moved)
        found = iter(torch.autograd.grad(apart, [s for s in starts if s is not None], allow_unused=True))
        return [None if start is None else self._scaled(next(found)) for start in starts]

    def _scaled(self, g: Tensor | None) -> Tensor | None:
        if g is None:
            return None
        norm = l2_norm(g, per_example=True)
        skipped = self._count_skipped(norm)
        largest = g.abs().amax(-1 if g.dim() == 3 else tuple(range(1, g.dim())), keepdim=True)
        divisor = largest + self.epsilon
        r = rescale(g, self.eta * self._factor(), divisor, unusable(divisor))
        return r if skipped is None else r.masked_fill_(skipped, 0.0)
