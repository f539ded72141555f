"""No attack: the plain step, behind the same call."""

from collections.abc import Iterable

from torch import nn

from dropattack.regularizers.base import Regularizer
from dropattack.regularizers.passes import Passes


class Identity(Regularizer):
    """L(θ). The baseline `none`, and with dropout in the model the baseline `dropout`.

    `Identity()` is complete: it has no options. `targets` and `seed` are accepted, so that it can stand for any method.
    """

    def __init__(
        self, model: nn.Module | None = None, targets: str | Iterable[str] | None = None, *, seed: int | None = None
    ) -> None:
        super().__init__(model, None, seed=seed)

    def _attack(self, run: Passes) -> None:
        run()
