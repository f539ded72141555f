"""CreAT: an attack that also moves the encoder's output (Wu et al. 2023, arXiv 2305.04557)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.activations import Activation
from dropattack.regularizers.base import Common, Regularizer
from dropattack.regularizers.checks import at_least_one, non_negative
from dropattack.regularizers.functional import add, gaussian, project_l2
from dropattack.regularizers.naming import chosen, resolve_activations
from dropattack.regularizers.passes import Output, Passes, needed
from dropattack.regularizers.targets import Target, upcast

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11, and only for type checkers


class CreAT(Regularizer):
    """(L(x) + L(x + δ_K))/2, δ_{k+1} = Π_ε(δ_k + α g_k/‖g_k‖), g_k = ∇_δ [L(x + δ_k) − τ Σ_t c_t].

    c_t is the cosine of h_t(x + δ_k) and h_t(x), h the encoder's output and t its tokens; the sum is averaged over the
    batch. δ_0 ~ N(0, σ²). The passes that only give directions add nothing to `.grad`.

    Args:
        model: The network.
        targets: Activations; None: the input embedding's output, or an image model's input. An embedding's weight name
            stands for its output.
        encoder: The module whose output (or the first of its outputs) is h: [B, T, D] or [B, D]. None: the logits, so
            `forward` must return an object with `.loss` and `.logits`.
        alpha: Length of a step.
        steps: K. (The authors count the last pass too: their 2 is 1 here.)
        epsilon: Radius of the projection, of each example.
        tau: Weight of the deviation.
        sigma: Standard deviation of δ_0; what an embedding's `padding_idx` marks is spared.
        common: See `Regularizer`.
    """

    is_linear = False
    draws = True

    def __init__(
        self,
        model: nn.Module,
        targets: str | Iterable[str] | None = None,
        encoder: str | None = None,
        alpha: float = 0.1,
        steps: int = 1,
        epsilon: float = 0.1,
        tau: float = 1.0,
        sigma: float = 1e-5,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = non_negative(alpha, "alpha")
        self.steps = at_least_one(steps, "steps")
        self.epsilon = non_negative(epsilon, "epsilon")
        self.tau = non_negative(tau, "tau")
        self.sigma = non_negative(sigma, "sigma")
        self.passes = 2 + self.steps
        self._encoder_name = encoder
        self.needs_logits = encoder is None
        super().__init__(model, chosen(targets, model, "CreAT"), **common)

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve_activations(self.model, targets, "CreAT")

    def _resolved(self) -> None:
        modules = {} if self.model is None else dict(self.model.named_modules())
        if self._encoder_name is not None and self._encoder_name not in modules:
            shown = ", ".join(list(modules)[1:13])
            raise ValueError(f"encoder {self._encoder_name!r} is not a module of this model; modules: {shown}")
        self._encoder = None if self._encoder_name is None else modules[self._encoder_name]

    def _is_plain(self) -> bool:
        return self.epsilon == 0 or (self.alpha == 0 and self.sigma == 0)

    def _attack(self, run: Passes) -> None:
        clean: list[Tensor] = []

        def first() -> Tensor:
            output, h = self._forward(run)
            clean.append(h.detach())
            return output.loss

        def deviating() -> Tensor:
            output, h = self._forward(run)
            similarity = torch.cosine_similarity(h, clean[0], dim=-1).reshape(len(h), -1)
            return output.loss - self.tau * similarity.sum(1).mean()

        run(first, scale=0.5)
        shifts: list[Any] = [self._start] * len(self.targets)
        for _ in range(self.steps):
            with self._shifted(self.targets, shifts):
                run(deviating, keep=False, read=self.targets)
            shifts = [self._ascend(t) for t in self.targets]
        with self._shifted(self.targets, shifts):
            run(scale=0.5)

    def _forward(self, run: Passes) -> tuple[Output, Tensor]:
        """Run a forward; return its output and h."""
        if self._encoder is None:
            output = run.forward()
            return output, needed(output.logits, "CreAT without an encoder")
        seen: list[Any] = []
        with self._encoder.register_forward_hook(lambda module, args, result: seen.append(result)):
            output = run.forward()
        h = seen[-1] if seen else None
        if not isinstance(h, Tensor) and h is not None:
            h = h[0]
        if not isinstance(h, Tensor) or not h.is_floating_point() or h.dim() < 2:
            raise RuntimeError("CreAT's encoder gave no tensor [B, …] in this forward: name a module that gives one")
        return output, h

    def _start(self, value: Tensor, keep: Tensor | None) -> Tensor:
        noise = gaussian(upcast(value.detach()), self._generator(value.device)) * (self.sigma * self._factor())
        return noise if keep is None else noise * keep

    def _ascend(self, target: Target) -> Tensor:
        assert isinstance(target, Activation)
        factor = self._factor()
        delta = add(target.applied, self._step(target, self.alpha * factor))
        return project_l2(delta, self.epsilon * factor, per_example=True)
