"""RandomAttack: the control of every attack. The same targets, masks and lengths, along a random direction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from dropattack.regularizers.activations import Start
from dropattack.regularizers.base import RELATIVE_EPSILON, Common, Regularizer
from dropattack.regularizers.checks import boolean, non_negative, one_of, probability
from dropattack.regularizers.functional import bernoulli_mask, gaussian, l2_norm, rescale
from dropattack.regularizers.naming import chosen
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target, Weight, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class RandomAttack(Regularizer):
    """L(θ) + λ Σ_targets L(θ + r), r = M ⊙ ε d/‖d‖, d ~ N(0, 1), M ~ Bernoulli(p).

    If a method gains no more than this one, its gain does not come from the adversarial direction. The norms are those
    of the attacks: over the whole tensor for a weight, over the batch's rows for an embedding matrix, over each example
    for an activation. Padding is spared: an embedding's `padding_idx`, and a row that gets no gradient. It compares
    with `FGM` at `grouping="joint"`, with `DropAttack(steps=1)` at the same `p` and `grouping`.

    Args:
        model: The network.
        targets: What is attacked; None: the input embedding's weight, or an image model's input.
        epsilon: Length of the perturbation before masking; None is 0.1 of the norm of the target.
        p: Chance of each element to be attacked.
        grouping: `"sequential"`: one target after the other, 1 + targets passes. `"joint"`: all at once, 2 passes.
        relative: ε is a fraction of the 2-norm of the target (for an embedding: as in `FGM`).
        weight: λ.
        common: See `Regularizer`.

    Raises:
        ValueError: An argument is out of its range, or a target matches nothing.
    """

    strengths = ("epsilon", "weight")
    composition = "adds"
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        epsilon: float | None = None,
        p: float = 1.0,
        grouping: Literal["sequential", "joint"] = "sequential",
        relative: bool = False,
        weight: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        self.epsilon = RELATIVE_EPSILON if epsilon is None else non_negative(epsilon, "epsilon")
        self.relative = boolean(relative, "relative") or epsilon is None
        self.p = probability(p, "p")
        self.grouping = one_of(grouping, "grouping", ("sequential", "joint"))
        self.weight = non_negative(weight, "weight")
        super().__init__(model, chosen(targets, model, "RandomAttack"), **common)

    def _resolved(self) -> None:
        self._set_passes(2 if self.grouping == "joint" else 1 + len(self.targets))

    def _attack(self, run: Passes) -> None:
        # A weight's gradient tells that it takes part, and which rows of an embedding matrix the batch has. An
        # activation's is not needed: on images it would cost a pass through the first layer.
        run(read=[t for t in self.targets if not t.per_example])
        radii = [self._length(t, self.epsilon) for t in self.targets]  # of the clean point
        moves = list(zip(self.targets, radii, strict=True))
        for group in [moves] if self.grouping == "joint" else [[move] for move in moves]:
            with self._shifted([t for t, _ in group], [self._random(t, radius) for t, radius in group]):
                run(scale=self.weight)
            self._count_left_out(t for t, _ in group)

    def _random(self, target: Target, radius: float | Tensor) -> Tensor | Start:
        if target.per_example:
            return lambda value, keep: self._along(value.detach(), keep, radius, per_example=True)
        if target.gradient is None:  # left out of this step (stochastic depth)
            return self._step(target, radius)
        return self._along(target.gradient, target.rows_in_use() if isinstance(target, Weight) else None, radius)

    def _along(self, like: Tensor, keep: Tensor | None, radius: float | Tensor, per_example: bool = False) -> Tensor:
        """M ⊙ radius · d/‖d‖ in the shape of `like`; nothing where `keep` is False."""
        generator = self._generator(like.device)
        d = gaussian(upcast(like), generator)
        if keep is not None:
            d = d * keep
        norm = l2_norm(d, per_example)
        r = rescale(d, radius, norm, self._count_skipped(norm, radius))
        return r if self.p == 1 else r.mul_(bernoulli_mask(r, self.p, generator))
