"""MSAM: SAM along the momentum, at no further pass (Becker et al. 2024, arXiv 2401.12033)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import non_negative
from dropattack.regularizers.functional import global_norm, rescale_together
from dropattack.regularizers.naming import resolve_weights
from dropattack.regularizers.passes import Passes
from dropattack.regularizers.targets import Target, Weight, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class MSAM(Regularizer):
    """L(θ + r), r = −ρ m/‖m‖, m the optimizer's momentum, one norm over all targets.

    The momentum is SGD's buffer or Adam's first moment: `follow(optimizer)` says whose. Until the optimizer has made a
    step there is none, and steps are plain.

    Args:
        model: The network.
        targets: The weights that are moved; all trainable ones by default.
        rho: Radius.
        common: See `Regularizer`.

    Raises:
        RuntimeError: In `backward`, where no optimizer was handed in, or its momentum has another name.
    """

    passes = 1
    strengths = ("rho",)
    composition = "alone"

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] = ("*",),
        rho: float = 3.0,
        **common: Unpack[Common],
    ) -> None:
        self.rho = non_negative(rho, "rho")
        self._optimizer: torch.optim.Optimizer | None = None
        super().__init__(model, targets, **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_weights(self.model, targets, type(self).__name__)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Hands in the optimizer whose momentum is read.

        Raises:
            ValueError: It has no momentum.
        """
        if all("betas" not in group and not group.get("momentum") for group in optimizer.param_groups):
            raise ValueError("MSAM moves along the optimizer's momentum, and this one has none: take SGD(momentum=…)")
        self._optimizer = optimizer

    def _attack(self, run: Passes) -> None:
        if self._optimizer is None:
            raise RuntimeError("MSAM reads the optimizer's momentum: call reg.follow(optimizer) before the first step")
        momenta = [(t, m) for t in self.targets if (m := self._momentum(t)) is not None]
        if not momenta and not any(t.attacked is p for g in self._optimizer.param_groups for p in g["params"]
                                   for t in self.targets):  # fmt: skip
            raise RuntimeError(
                "the optimizer that MSAM follows steps none of its targets (it may step copies of the weights): call "
                "reg.follow(optimizer) with the one that steps this model"
            )
        norm = global_norm([m for _, m in momenta])
        skipped = self._count_skipped(norm) if momenta else None
        shifts = rescale_together([m for _, m in momenta], -self.rho * self._factor(), norm, skipped)
        run.hold_hooks()
        with self._shifted([t for t, _ in momenta], shifts):
            run(moved=self.targets)

    def _momentum(self, target: Target) -> Tensor | None:
        assert self._optimizer is not None
        assert isinstance(target, Weight)
        state = self._optimizer.state.get(target.parameter) or {}
        known = [name for name in ("momentum_buffer", "exp_avg") if name in state]
        if state and not known:
            raise RuntimeError(
                f"MSAM reads momentum_buffer or exp_avg, and {type(self._optimizer).__name__} keeps "
                f"{', '.join(map(str, state))}: take SGD(momentum=…), Adam or AdamW"
            )
        return upcast(state[known[0]]) if known else None
