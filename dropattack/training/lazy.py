"""Lazy Adam: of an embedding matrix only the rows that the batch looked up cost anything, and only they move.

A dense Adam reads and writes four matrices of the vocabulary's size in each step, for a batch that has a few hundred
words. Its result differs: a word that is not in the batch keeps its moments and its weights here, where Adam lets its
moments decay and goes on moving it along them.

Fused Adam's CPU time over this one's, clipping and optimizer / whole plain step / whole DropAttack step (LSTM of 64,
embeddings of 64, batch 64 of 64 tokens, 1,000 to 1,400 distinct words; one thread, medians of 11 interleaved steps):

    10,000 words  0.6 / 0.9 / 0.9     80,000  2.1 / 1.2 / 1.1     250,000  5.3 / 1.7 / 1.1

So it costs something at 10,000 words and pays off at 80,000. Looking for the rows in a dense gradient would cost more
than all of it: 30 ms for 80,000 × 300, where the whole update by rows takes 10. On a GPU torch's sparse gradient of a
table with a padding row waits for the device once a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.rows import Rows


@dataclass
class RowGradient:
    """The gradient of the rows of one matrix: `grad` [n, D], as `parameter.grad` is where it is dense.

    Rows that stand for nothing (on a GPU, where their number is not known on the host) are zero.
    """

    parameter: Tensor
    rows: Rows
    grad: Tensor


class LazyAdam(torch.optim.Adam):
    """Adam (fused) for dense gradients; for a sparse one, of a matrix's rows, and t the matrix's steps so far:

        for each row i that was looked up, and no other:
            g = gradient_i + weight_decay · w_i
            m_i ← β₁ m_i + (1 − β₁) g
            v_i ← β₂ v_i + (1 − β₂) g²
            w_i ← w_i − lr · (m_i / (1 − β₁ᵗ)) / (√(v_i / (1 − β₂ᵗ)) + eps)

    t counts the optimizer's steps in which the matrix had a gradient, not those in which a row had one: a row that
    comes for the first time late takes a step as Adam's would be after t − 1 steps without a gradient. Where every row
    is looked up in every step it is Adam. A row that was looked up moves also if its gradient is zero; a padding row
    (`padding_idx`) never does. A step whose gradient is not finite (`found_inf`) leaves rows, moments and t alone.

    The state is Adam's, so a checkpoint of one can be continued by the other (with another result).
    """

    def __init__(self, parameters: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self._gathered: list[RowGradient] = []

    def gather(self) -> list[RowGradient]:
        """Take sparse gradients out of `.grad`, each row's parts added up, until the next `step`.

        What clips or inspects gradients before the step finds them here, under `.grad` as in a parameter.
        """
        for parameter in self._parameters():
            gradient = parameter.grad
            if gradient is not None and gradient.is_sparse:
                rows = Rows.of(gradient._indices()[0])
                self._gathered.append(RowGradient(parameter, rows, rows.sum(gradient._values(), None)))
                parameter.grad = None
        return self._gathered

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._gathered = []
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        gathered, self._gathered = self.gather(), []
        result = super().step(closure)
        skipped = getattr(self, "found_inf", None)
        options = {id(p): group for group in self.param_groups for p in group["params"]}
        for gradient in gathered:
            self._move(gradient, options[id(gradient.parameter)], skipped)
        return result

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def _move(self, gradient: RowGradient, group: dict[str, Any], skipped: Tensor | None) -> None:
        w, index, g = gradient.parameter, gradient.rows.index, gradient.grad
        state, (beta1, beta2) = self.state[w], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=w.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(w), torch.zeros_like(w)
        state["step"] += 1.0 if skipped is None else 1.0 - skipped
        t = state["step"].double()  # 1 − 0.999 has four digits in float32
        if gradient.rows.used is not None:
            # The slots that are left name the last row again: with its gradient they all write the same there.
            last = gradient.rows.used.sum() - 1
            g = g.index_select(0, torch.arange(len(g), device=g.device).minimum(last))
        old = w.index_select(0, index)
        m, v = (state[name].index_select(0, index) for name in ("exp_avg", "exp_avg_sq"))
        if group["weight_decay"]:
            g = g + group["weight_decay"] * old
        # Tensors throughout: the host does not wait for t.
        new_m, new_v = torch.lerp(m, g, 1 - beta1), (beta2 * v).addcmul_(g, g, value=1 - beta2)
        root = (new_v / (1 - beta2**t)).sqrt_().add_(group["eps"])
        new = old - group["lr"] * (new_m / (1 - beta1**t)) / root
        for matrix, now, before in ((w, new, old), (state["exp_avg"], new_m, m), (state["exp_avg_sq"], new_v, v)):
            matrix.index_copy_(0, index, now if skipped is None else torch.where(skipped > 0, before, now))


def use_row_gradients(model: nn.Module) -> list[str]:
    """Let the lookup tables of a model give sparse gradients; returns their weights' names.

    Those alone that only a plain `nn.Embedding` reads: shared weights, `max_norm` and `scale_grad_by_freq` stay dense.
    """
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    named = []
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Embedding)
            and type(module).forward is nn.Embedding.forward
            and module.weight.requires_grad
            and module.max_norm is None
            and not module.scale_grad_by_freq
            and users[id(module.weight)] == 1
        ):
            module.sparse = True
            named.append(f"{name}.weight" if name else "weight")
    return named
