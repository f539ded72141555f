"""The loss of a network as a function of what is added to its weights and activations, and sums of gradients."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from tests.regularizers.networks import PADDING, Network, Output

Shift = dict[str, Tensor]  # target → what is added to it


class Point(NamedTuple):
    """Loss at θ + r, x + δ; its gradient to every parameter and to every attacked activation; those activations."""

    loss: Tensor
    weights: Shift
    attacked: Shift
    values: Shift


class Expected(NamedTuple):
    """What a call of the library must add to `.grad`, and the losses it must return."""

    gradient: Shift
    clean: Tensor
    adversarial: tuple[Tensor, ...]
    total: Tensor


class Landscape:
    """One micro-batch's loss as a function of the shift of the weights and of the activations."""

    def __init__(self, network: Network, model: torch.nn.Module, batch, targets: Sequence[str], shared: bool = False):
        self.network, self.batch, self.shared = network, batch, shared
        self.model = copy.deepcopy(model)  # its BatchNorm statistics move with each pass; nobody else's do
        self.theta = {name: w.detach().clone().requires_grad_() for name, w in model.named_parameters()}
        self.targets = tuple(targets)
        self.activations = [name for name in targets if name not in self.theta]
        self.random_state: Tensor | None = None  # of the first pass
        self.buffers: Shift | None = None  # after the first pass

    def forward(self, shift: Shift) -> tuple[Output, Shift, Shift]:
        """Return the output with its graph, and for each attacked activation an added zero and its value."""
        if self.shared:
            if self.random_state is None:
                self.random_state = torch.get_rng_state()
            torch.set_rng_state(self.random_state)
        probes: Shift = {}
        values: Shift = {}

        def move(name: str, value: Tensor) -> Tensor:
            assert name not in values, f"{name} is called twice: what its perturbation would be is not defined"
            values[name] = value.detach()
            probes[name] = torch.zeros_like(value, requires_grad=True)
            return value + probes[name] + shift.get(name, torch.zeros_like(value))

        def hook(name: str) -> Callable:
            return lambda module, args, value: move(name, value)

        def call(*args, **kwargs):
            if "<input>" in self.activations:
                args = (move("<input>", args[0]), *args[1:])
            moved = {name: w + shift[name] if name in shift else w for name, w in self.theta.items()}
            return functional_call(self.model, moved, args, kwargs)

        hooked = [name for name in self.activations if name != "<input>"]
        handles = [self.model.get_submodule(name).register_forward_hook(hook(name)) for name in hooked]
        try:
            output = self.network.forward(call, self.batch)
        finally:
            for handle in handles:
                handle.remove()
        if self.buffers is None:
            self.buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        return output, probes, values

    def at(self, shift: Shift) -> Point:
        output, probes, values = self.forward(shift)
        leaves = {**self.theta, **probes}
        grads = torch.autograd.grad(output.loss, list(leaves.values()), materialize_grads=True)
        gradient = dict(zip(leaves, grads, strict=True))
        return Point(
            output.loss.detach(),
            {name: gradient[name] for name in self.theta},
            {name: gradient[name] for name in self.targets},
            values,
        )

    def rows(self, name: str) -> Tensor | None:
        """Return the batch's token ids, ascending, if `name` is the matrix that they are looked up in."""
        return self.batch[0].unique() if name == f"{self.network.embedding}.weight" else None

    def norm(self, name: str, value: Tensor) -> Tensor:
        """Of the whole tensor for a weight, of each example for an activation, in a shape that divides `value`."""
        if name in self.theta:
            return value.pow(2).sum().sqrt()
        return value.pow(2).sum(dim=tuple(range(1, value.dim())), keepdim=True).sqrt()

    def unit(self, name: str, value: Tensor) -> Tensor:
        norm = self.norm(name, value)
        return torch.where(norm > 0, value / norm, torch.zeros_like(value))

    def project(self, name: str, value: Tensor, radius: Tensor | float) -> Tensor:
        norm = self.norm(name, value)
        return torch.where(norm > radius, value * (radius / norm), value)


def add(*terms: tuple[float, Shift]) -> Shift:
    """Σ factor · gradient."""
    return {name: sum(factor * term[name] for factor, term in terms) for name in terms[0][1]}


def attacked_at(land: Landscape, name: str, clean: Point) -> Tensor:
    """Return what is attacked at the clean point; of an embedding matrix, the rows of the batch."""
    value, rows = land.theta[name].detach() if name in land.theta else clean.values[name], land.rows(name)
    return value if rows is None else value[rows]


def largest(land: Landscape, name: str, value: Tensor) -> Tensor:
    """Return the ∞-norm, in the shapes of `land.norm`."""
    dims = tuple(range(0 if name in land.theta else 1, value.dim()))
    return value.abs().amax(dims, keepdim=name not in land.theta)


def spread(land: Landscape, name: str, mask: Tensor, like: Tensor) -> Tensor:
    """Put the mask of an embedding's rows at those rows of the matrix; return any other mask as it is."""
    rows = land.rows(name)
    if rows is None:
        assert mask.shape == like.shape, f"{name}: a mask of shape {tuple(mask.shape)} for {tuple(like.shape)}"
        return mask
    assert mask.shape == (len(rows), like.shape[1]), f"{name}: the mask must have the batch's {len(rows)} rows"
    return torch.zeros_like(like).index_copy(0, rows, mask)


def of_weights(land: Landscape, value: Tensor) -> Shift:
    grads = torch.autograd.grad(value, list(land.theta.values()), materialize_grads=True, retain_graph=True)
    return dict(zip(land.theta, grads, strict=True))


def of_attacked(land: Landscape, value: Tensor, probes: Shift) -> Shift:
    grads = torch.autograd.grad(value, [probes[n] for n in land.targets], materialize_grads=True, retain_graph=True)
    return dict(zip(land.targets, grads, strict=True))


def kept(land: Landscape, name: str, value: Tensor) -> Tensor:
    """`value`, and zero on padding where `name` is the embedding's output."""
    return value * (land.batch[0] != PADDING)[:, :, None] if name == land.network.embedding else value
