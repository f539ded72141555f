"""R-Drop: two forwards with different dropout must agree (Liang et al. 2021, arXiv 2106.14448)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dropattack.regularizers.agreement import Comparison, Divergence
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import check_options, non_negative
from dropattack.regularizers.passes import Output, Passes

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class RDrop(Regularizer):
    """(L_1 + L_2)/2 + α (KL(p_1‖p_2) + KL(p_2‖p_1))/2, the KL averaged over the batch; one backward through both.

    The losses are averaged. The authors' paper adds them, so the same α weighs half as much there.

    `forward` must return an object with `.loss` and `.logits`, and the model must have dropout. With an output for each
    position ([B, T, C]) the KL is averaged over the positions that count: those that the loss does not ignore
    (`ignore_index`), or that `.mask` [B, T] names.

    Args:
        model: The network.
        alpha: Weight of the agreement. The authors' code for BERT adds the two losses, and 0.5 times a KL that is
            summed over a batch of B: α = B/4 here.
        divergence: What the logits are: `"softmax"` (one class of several), `"bernoulli"` (independent labels: the KL
            is summed over them) or `"gaussian"` (regression, of variance 1). None for what the loss makes of them.
        common: See `Regularizer`.
    """

    passes = 2
    strengths = ("alpha",)
    is_linear = False
    needs_logits = True

    def __init__(
        self, model: nn.Module, alpha: float = 1.0, divergence: Divergence | None = None, **common: Unpack[Common]
    ) -> None:
        check_options(type(self), common)  # it takes no targets
        self.alpha = non_negative(alpha, "alpha")
        self._agreement = Agreement("R-Drop", divergence, common)
        super().__init__(model, None, **common)

    def _backwards(self) -> int:
        return 1

    def _attack(self, run: Passes) -> None:
        run(lambda: self._agreement(run, self.alpha * self._factor(), self.model))


class Agreement:
    """(L_1 + L_2)/2 + α (KL(p_1‖p_2) + KL(p_2‖p_1))/2 of two forwards that differ in their dropout alone.

    Raises:
        ValueError: The dropout masks are shared.
    """

    def __init__(self, method: str, divergence: Divergence | None, common: Common) -> None:
        if common.get("dropout_masks", "fresh") != "fresh":
            raise ValueError(f"{method} compares two dropout masks, so it takes no dropout_masks='shared'")
        self._method = method
        self._comparison = Comparison(method, divergence)
        self._checked_in_mode: bool | None = None

    def __call__(self, run: Passes, alpha: float, model: nn.Module | None) -> Tensor:
        """Return the objective of two forwards, made with `run`.

        Raises:
            ValueError: As `Comparison`.
            RuntimeError: The two do not differ.
        """
        one, two = run.forward(), run.forward()
        self._check_noise(one, two, None if model is None else model.training)
        return (one.loss + two.loss) / 2 + alpha * self._comparison.symmetric(one, two)

    def _check_noise(self, one: Output, two: Output, mode: bool | None) -> None:
        """Check once, and again in another mode, because it waits for the device."""
        if mode == self._checked_in_mode:
            return
        self._checked_in_mode = mode
        p, q = self._comparison.logits(one), self._comparison.logits(two)
        if p.shape == q.shape and torch.equal(p, q):
            raise RuntimeError(
                f"{self._method}'s two forwards gave the same logits, so that they agree anyway: no dropout is at "
                "work, " + ("for the model is in eval mode: call train()" if mode is False else "give the model some")
            )
