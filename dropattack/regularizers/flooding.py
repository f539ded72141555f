"""Flooding: the loss is kept from falling below a level (Ishida et al. 2020, arXiv 2002.08709)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import check_options, non_negative
from dropattack.regularizers.passes import Passes

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class Flooding(Regularizer):
    """|L(θ) − b| + b: descent above the level b, ascent below it.

    Args:
        model: The network.
        level: b, in the units of the loss of a micro-batch.
        common: See `Regularizer`. The strength is b.
    """

    passes = 1
    strengths = ("level",)
    is_linear = False

    def __init__(self, model: nn.Module, level: float = 0.1, **common: Unpack[Common]) -> None:
        check_options(type(self), common)  # it takes no targets
        self.level = non_negative(level, "level")
        super().__init__(model, None, **common)

    def _attack(self, run: Passes) -> None:
        level = self.level * self._factor()

        def objective() -> Tensor:
            apart = run.forward().loss - level
            run.turned(apart.detach().sign())
            return apart.abs() + level

        run(objective)
