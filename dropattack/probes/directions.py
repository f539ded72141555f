"""Directions in weight space: random ones, rescaled to a network's weights, and the difference of two networks.

A random direction depends only on a seed and on the names and shapes of the parameters. So networks of the same
architecture are probed along the same directions, each rescaled to its own weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.training.seeding import derive

Normalise = Literal["filter", "tensor", "authors"]
NORMALISE: dict[str, str] = {
    "filter": "each filter of the direction has the norm of the network's (Li et al. 2018); biases and BatchNorm's "
    "scales and shifts do not move",
    "tensor": "each weight tensor of the direction has the norm of the network's; biases and BatchNorm's scales and "
    "shifts do not move",
    "authors": "as `filter`, and every element of a bias, scale or shift moves by its own size too, as in the notebook "
    "of DropAttack's authors",
}
TINY = 1e-10


def random_direction(parameters: Mapping[str, Tensor], *, seed: int, number: int = 0) -> dict[str, Tensor]:
    """Return standard normal tensors in the shapes of `parameters`, float32 on the CPU.

    Args:
        parameters: tensors by name; only names and shapes matter.
        seed: of the draw.
        number: index of the direction for this seed.
    """
    drawn = {}
    for name, value in parameters.items():
        generator = torch.Generator().manual_seed(derive(seed, f"direction{number}/{name}"))
        drawn[name] = torch.randn(value.shape, generator=generator)
    return drawn


def normalised(
    direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor], how: Normalise = "filter"
) -> dict[str, Tensor]:
    """Return `direction` rescaled to the weights in `parameters`, on their device, without tensors that do not move.

    A filter is a slice along a weight's first dimension: the weights of one output channel, one neuron, one neuron of
    a gate, or one word. Rescaling a network's layers against each other may leave its loss unchanged but changes
    distances in weight space; distances in units of filter norms do not change (Li, Xu, Taylor, Studer and Goldstein
    2018, arXiv 1712.09913, section 4).

    Raises:
        ValueError: `how` is unknown.
    """
    if how not in NORMALISE:
        raise ValueError(f"normalise={how!r}: choose one of {', '.join(NORMALISE)}")
    moved = {}
    for name, value in parameters.items():
        if value.dim() == 0 or (value.dim() == 1 and how != "authors"):
            continue
        w, d = value.detach(), direction[name].to(value.device)
        if how == "tensor":
            moved[name] = d * (w.norm() / (d.norm() + TINY))
        else:
            size = filter_norms(w) / (filter_norms(d) + TINY)
            moved[name] = d * size
    return moved


def filter_norms(value: Tensor) -> Tensor:
    """Return the 2-norms of a weight's slices along its first dimension, in a shape that broadcasts against it."""
    flat = value.reshape(len(value), -1).norm(dim=1)
    return flat.view(-1, *[1] * (value.dim() - 1))


def between(first: nn.Module, second: nn.Module) -> dict[str, Tensor]:
    """Return `second` − `first`, over parameters and floating-point buffers.

    The ends of the line are therefore exactly the two networks, including BatchNorm statistics. In between, the
    statistics are interpolated like the weights and not re-estimated.

    Raises:
        ValueError: the architectures differ.
    """
    start, end = _floats(first), _floats(second)
    if {n: v.shape for n, v in start.items()} != {n: v.shape for n, v in end.items()}:
        raise ValueError("the two networks have different parameters, so there is no line between them")
    return {name: end[name] - value for name, value in start.items()}


def _floats(model: nn.Module) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach() for name, value in named if value.is_floating_point()}
