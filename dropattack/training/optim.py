"""Optimizers and learning rates. A rate is a pure function of the step, so it has no state to save."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

Schedule = Literal["constant", "linear", "cosine"]
Kind = Literal["adam", "adamw", "sgd"]


def make_optimizer(
    model: nn.Module, name: Kind, *, learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return an optimizer over the trainable parameters of a model that is already on its device.

    It is fused: one kernel instead of many, and with `found_inf` = 1 a fused optimizer changes nothing, without a
    synchronisation. `adamw` decays only matrices, not biases and norms, as in BERT's recipe; `sgd` has Nesterov
    momentum 0.9.

    Raises:
        ValueError: an unknown name.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)
    if name == "sgd":
        optimizer = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=True
        )
        for parameter in parameters:  # else created, uninitialised, by a first step that is skipped
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    raise ValueError(f"optimizer must be adam, adamw or sgd, not {name!r}")


def lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Restore the moments' memory format: files do not store it, and fused kernels need the weights' strides."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def rate_factor(step: int, *, steps: int, schedule: Schedule = "constant", warmup: float = 0.0) -> float:
    """Return the factor on the learning rate at `step` (from 0) of `steps`.

    During `warmup` (a fraction of all steps) it rises linearly to 1; then it stays constant (`constant`) or falls to 0
    by the end (`linear`, `cosine`).
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(1, steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def guarded_step(
    optimizer: torch.optim.Optimizer, *, clip_norm: float | None = None, scaler: torch.amp.GradScaler | None = None
) -> Tensor:
    """Clip, step and clear the gradients; leave weights and moments unchanged if a gradient is not finite.

    Returns:
        1.0 if the step was skipped, else 0.0, on the gradients' device, without synchronisation.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    skipped = (~torch.isfinite(norm)).float()
    if clip_norm is not None:
        clip_grads_with_norm_(parameters, clip_norm, norm)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        fused: Any = optimizer
        fused.found_inf = skipped  # GradScaler sets this on a fused optimizer
        fused.step()
        del fused.found_inf
    optimizer.zero_grad(set_to_none=True)
    return skipped
