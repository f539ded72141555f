"""Norms of the loss gradient with respect to the model's input, the attacked weight, and all weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.batch import Batch
from dropattack.probes.flatness import summary

INPUT = "<input>"  # an attack point: the images themselves


def gradient_norms(
    model: nn.Module, batches: Sequence[Batch], points: Mapping[str, str], *, std: Sequence[float] | None = None
) -> dict[str, Any]:
    """Compute gradient norms in eval mode, as estimates {mean, sd, low, high, n}; leave the model and `.grad` as is.

    Args:
        model: the network.
        batches: at least one batch.
        points: the model's attack points: `input` is `<input>` or the embedding's weight, `hidden` a weight.
        std: per channel. If given, norms are with respect to pixels in 0..1, before normalisation by the loader.

    Returns:
        `input`: ‖∂ℓ_i/∂x_i‖₂ over examples i, where x is the image [C, H, W] or the embedding's output [T, E].
        `hidden` and `weights`: ‖∂L/∂W‖₂ of a batch's mean loss, over batches, for one weight and for all of them.
    """
    norms = list(_norms(model, batches, points, std))
    found = {"input": summary(torch.cat([n["input"] for n in norms]).tolist())}
    for name in ("hidden", "weights"):
        if name in norms[0]:
            found[name] = summary([float(n[name]) for n in norms])
    return found


class EpochProbe:
    """Callback that measures mean gradient norms on fixed batches at the end of each epoch; uses no random numbers."""

    def __init__(
        self, model: nn.Module, batches: Sequence[Batch], points: Mapping[str, str],
        *, std: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self._measure: Callable[[], dict[str, Any]] = lambda: gradient_norms(model, batches, points, std=std)

    def __call__(self) -> dict[str, float | None]:
        """Return `input`, `hidden` and `weights`, as in `gradient_norms`."""
        return {name: found["mean"] for name, found in self._measure().items()}


def _norms(
    model: nn.Module, batches: Sequence[Batch], points: Mapping[str, str], std: Sequence[float] | None
) -> Iterator[dict[str, Tensor]]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = points.get("hidden")
    with _evaluating(model):
        for batch in batches:
            loss, x = _loss_and_input(model, batch, points["input"])
            on_x, *on_weights = torch.autograd.grad(loss, [x, *parameters.values()], materialize_grads=True)
            if std is not None and points["input"] == INPUT:
                on_x = on_x / torch.tensor(std, device=on_x.device).view(-1, *[1] * (on_x.dim() - 2))
            rows = len(batch)  # the loss is summed, so row i is the gradient of example i
            named = dict(zip(parameters, on_weights, strict=True))
            norms = {"input": on_x.flatten(1).norm(dim=1), "weights": _joint_norm(on_weights) / rows}
            if hidden in named:
                norms["hidden"] = named[hidden].norm() / rows
            yield norms


def _loss_and_input(model: nn.Module, batch: Batch, point: str) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the tensor to differentiate by: the model's input or `point`'s module's output."""
    inputs = dict(batch.inputs)
    kept: list[Tensor] = []
    if point == INPUT:
        name = next(n for n, value in inputs.items() if value.is_floating_point())
        inputs[name] = inputs[name].detach().requires_grad_()
        kept.append(inputs[name])
        logits = model(**inputs)
    else:
        module = model.get_submodule(point.rpartition(".")[0])
        handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            logits = model(**inputs)
        finally:
            handle.remove()
    return F.cross_entropy(logits.float(), batch.labels, reduction="sum"), kept[-1]


def _joint_norm(grads: Sequence[Tensor]) -> Tensor:
    return torch.stack([g.norm() for g in grads]).norm()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode, and disable cuDNN, whose RNNs have no backward in eval mode."""
    training, recurrent = model.training, any(isinstance(module, nn.RNNBase) for module in model.modules())
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
            yield
    finally:
        model.train(training)
