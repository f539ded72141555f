"""R-Drop: two forwards with different dropout have to agree (Liang et al. 2021, arXiv 2106.14448)."""

import torch
from torch import Tensor, nn

from dropattack.regularizers.agreement import Divergence, Meaning, distance, meaning
from dropattack.regularizers.base import Regularizer
from dropattack.regularizers.checks import kind, non_negative, one_of
from dropattack.regularizers.passes import Output, Passes


class RDrop(Regularizer):
    """(L_1 + L_2)/2 + α (KL(p_1‖p_2) + KL(p_2‖p_1))/2, the KL averaged over the batch; one backward through both.

    The losses are averaged, as in the authors' code; their paper adds them, where the same α weighs half as much.

    `forward` has to return an object with `.loss` and `.logits`, and the model has to have dropout. With an output for
    each position ([B, T, C]) the KL is averaged over the positions that count: those that the loss does not ignore
    (`ignore_index`), or that `.mask` [B, T] names.

    Args:
        model: The network.
        alpha: Weight of the agreement. The authors' code for BERT adds the two losses, and 0.5 times a KL that is
            summed over a batch of B: α = B/4 here.
        divergence: What the logits are: `"softmax"` (one class of several), `"bernoulli"` (independent labels: the KL
            is summed over them) or `"gaussian"` (regression, of variance 1). None for what the loss makes of them.
    """

    passes = 2

    def __init__(
        self, model: nn.Module, alpha: float = 1.0, divergence: Divergence | None = None, *, seed: int | None = None
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        self.divergence = one_of(divergence, "divergence", (None, "softmax", "bernoulli", "gaussian"))
        self._meaning: Meaning | None = None
        self._checked_in_mode: bool | None = None
        super().__init__(model, None, seed=seed)

    def _backwards(self) -> int:
        return 1

    def _attack(self, run: Passes) -> None:
        def objective() -> Tensor:
            one, two = run.forward(), run.forward()
            if not isinstance(one.logits, Tensor) or not isinstance(two.logits, Tensor):
                what = "" if one.logits is None else f": .logits is {kind(one.logits)}"
                raise ValueError(
                    f"R-Drop needs forward to return an object with .loss and .logits{what}; wrap what your model "
                    "gives, as in return dropattack.Output(loss, logits)"
                )
            self._check_noise(one, two)
            if self._meaning is None:
                self._meaning = meaning(one.loss, one.logits, self.divergence, one.mask is not None)
            return (one.loss + two.loss) / 2 + self.alpha * distance(self._meaning, one, two)

        run(objective)

    def _check_noise(self, one: Output, two: Output) -> None:
        """Once, and again in another mode, for it waits for the device: two forwards that are one do nothing."""
        mode = None if self.model is None else self.model.training
        if mode == self._checked_in_mode:
            return
        self._checked_in_mode = mode
        assert one.logits is not None
        assert two.logits is not None
        if one.logits.shape == two.logits.shape and torch.equal(one.logits, two.logits):
            raise RuntimeError(
                "R-Drop's two forwards gave the same logits, so that they agree anyway: no dropout is at work, "
                + ("for the model is in eval mode: call train()" if mode is False else "give the model some")
            )
