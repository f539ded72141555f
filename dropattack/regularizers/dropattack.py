"""DropAttack: masked attacks on input and weights, one after the other (Ni, Li, Kao 2021, arXiv 2108.12805)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from dropattack.regularizers.base import RELATIVE_EPSILON, Common, Norm, Regularizer
from dropattack.regularizers.checks import at_least_one, boolean, non_negative, one_of, probability
from dropattack.regularizers.functional import add, bernoulli_mask, project
from dropattack.regularizers.naming import required
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class DropAttack(Regularizer):
    """L(θ) + λ Σ_targets (1/K) Σ_{k=1..K} L(θ + r_k), r_{k+1} = r_k + M ⊙ ε g_k/‖g_k‖, M ~ Bernoulli(p).

    The mask is drawn once per batch and target. The norm is taken before masking, and nothing is divided by p.

    Args:
        model: The network.
        targets: What is attacked; the paper attacks the embedding and a weight of the hidden layer.
        epsilon: Length of a step before masking; None: 0.1 of the target's norm. (The authors use 5.)
        p: Probability that an element is attacked.
        steps: K.
        mode: Where g_k comes from. `"paper"`: the gradient of L at θ + r_k. `"notebook"`: the authors' code, where
            gradients are not zeroed between the steps, so g_k is the clean gradient plus this target's adversarial ones
            so far. The two are one method for K = 1.
        projection: `"l2"` projects r_k on the ball of radius ε, `"linf"` on the cube; None lets steps add up, as the
            authors do.
        grouping: `"sequential"`: one target after the other, 1 + K · targets passes. `"joint"`: all targets at once,
            1 + K passes, L(θ) + (1/K) Σ_k L(θ + r_k).
        relative: ε is a fraction of the target's norm (for an embedding: of the batch's rows), so that one setting
            fits layers and initialisations of any size. An embedding that is tied to the output head gets a gradient in
            all rows, so that it is a fraction of the whole matrix's norm: give an absolute ε there, or attack the
            embedding's output.
        norm: `"l2"`, or `"linf"`: steps of ε sign(g).
        weight: λ.
        common: See `Regularizer`.

    Raises:
        ValueError: An argument is out of its range, or a target matches nothing.
    """

    strengths = ("epsilon", "weight")
    composition = "adds"

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float | None = None,
        p: float = 0.5,
        steps: int = 1,
        mode: Literal["paper", "notebook"] = "paper",
        projection: Literal["l2", "linf"] | None = None,
        grouping: Literal["sequential", "joint"] = "sequential",
        relative: bool = False,
        norm: Norm = "l2",
        weight: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = RELATIVE_EPSILON if epsilon is None else non_negative(epsilon, "epsilon")
        self.p = probability(p, "p")
        self.draws = 0 < self.p < 1
        self.steps = at_least_one(steps, "steps")
        self.mode = one_of(mode, "mode", ("paper", "notebook"))
        self.projection = one_of(projection, "projection", (None, "l2", "linf"))
        self.grouping = one_of(grouping, "grouping", ("sequential", "joint"))
        self.relative = boolean(relative, "relative") or epsilon is None
        self.norm = one_of(norm, "norm", ("l2", "linf"))
        self.weight = non_negative(weight, "weight")
        super().__init__(model, required(targets, model, "DropAttack"), **common)

    def _resolved(self) -> None:
        self._attacks = self.steps * (1 if self.grouping == "joint" else len(self.targets))
        self._set_passes(1 + self._attacks)

    def _backwards(self) -> int:
        return 1 + self._attacks

    def _attack(self, run: Passes) -> None:
        run(read=self.targets)
        radii = {t: self._length(t, self.epsilon) for t in self.targets}  # of the clean point
        for group in [self.targets] if self.grouping == "joint" else [[t] for t in self.targets]:
            self._ascend(run, group, [radii[t] for t in group])

    def _ascend(self, run: Passes, targets: Sequence[Target], radii: Sequence[float | Tensor]) -> None:
        directions: list[Any] = [t.gradient for t in targets]
        masks: list[Tensor] = []
        shifts: list[Tensor | None] = [None] * len(targets)
        for k in range(1, self.steps + 1):
            steps = [self._step(t, radius, along=g) for t, radius, g in zip(targets, radii, directions, strict=True)]
            masks = masks or [bernoulli_mask(step, self.p, self._generator(step.device)) for step in steps]
            moved = [add(r, step.mul_(mask)) for r, step, mask in zip(shifts, steps, masks, strict=True)]
            if self.projection:
                pairs = zip(targets, moved, radii, strict=True)
                moved = [project(r, e, self.projection, t.per_example) for t, r, e in pairs]
            shifts = list(moved)
            with self._shifted(targets, shifts):
                run(scale=self.weight / self.steps, read=targets if k < self.steps else ())
            if k < self.steps:
                accumulate = self.mode == "notebook"
                directions = [
                    _sum(g, t.gradient) if accumulate else t.gradient for g, t in zip(directions, targets, strict=True)
                ]


def _sum(g: Tensor | None, more: Tensor | None) -> Tensor | None:
    return g if more is None else add(g, more)
