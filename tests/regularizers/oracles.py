"""Every method's objective and gradient, written out by hand with `torch.autograd.grad` in float64.

Nothing of the library is imported here. No weight is ever changed: the loss is evaluated at θ + r and x + δ by handing
the sums to the network (`Landscape.at`), with r and δ constants. Each function below returns what the library must
give, and reads like the method's row in docs/architecture.md.

Passes are made in the library's order (the first pass, then target by target, step by step), because each forward
with fresh dropout consumes the global generator. Randomness of the method itself (masks, starts) is handed in.
"""

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
        """The output with its graph; for each attacked activation a zero that was added to it, and its value."""
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
        """The batch's token ids, ascending, where `name` is the matrix that they are looked up in."""
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


def identity(land: Landscape, draws: list[Tensor]) -> Expected:
    clean = land.at({})
    return Expected(clean.weights, clean.loss, (), clean.loss)


def fgm(land: Landscape, draws: list[Tensor], epsilon: float) -> Expected:
    clean = land.at({})
    moved = land.at({name: epsilon * land.unit(name, clean.attacked[name]) for name in land.targets})
    return Expected(
        add((1, clean.weights), (1, moved.weights)), clean.loss, (moved.loss,), clean.loss + moved.loss
    )  # fmt: skip


def pgd(land: Landscape, draws: list[Tensor], epsilon: float, alpha: float, steps: int) -> Expected:
    clean = point = land.at({})
    shift = {name: torch.zeros_like(clean.attacked[name]) for name in land.targets}
    losses = []
    for _ in range(steps):
        for name in land.targets:
            step = shift[name] + alpha * land.unit(name, point.attacked[name])
            shift[name] = land.project(name, step, epsilon)
        point = land.at(shift)
        losses.append(point.loss)
    return Expected(
        add((1, clean.weights), (1, point.weights)), clean.loss, tuple(losses), clean.loss + losses[-1]
    )  # fmt: skip


def freelb(
    land: Landscape, draws: list[Tensor], alpha: float, steps: int, epsilon: float | None = None, init: float = 0.1
) -> Expected:
    delta = dict(zip(land.targets, draws, strict=True))
    points = []
    for _ in range(steps):
        points.append(land.at(dict(delta)))
        for name in land.targets:
            delta[name] = delta[name] + alpha * land.unit(name, points[-1].attacked[name])
            if epsilon is not None:
                delta[name] = land.project(name, delta[name], epsilon)
    gradient = add(*[(1 / steps, point.weights) for point in points])
    losses = [point.loss for point in points]
    return Expected(gradient, losses[0], tuple(losses[1:]), sum(losses) / steps)


def dropattack(
    land: Landscape, draws: list[Tensor], epsilon: float, p: float, steps: int = 1, mode: str = "paper",
    projection: str | None = None, grouping: str = "sequential", relative: bool = False, attack: bool = True,
    parallel: bool = False,
) -> Expected:  # fmt: skip
    clean = land.at({})
    if not attack:
        return Expected(clean.weights, clean.loss, (), clean.loss)
    gradients, losses, total = [(1.0, clean.weights)], [], clean.loss
    recorded = iter(draws)
    masks, radii = {}, {}
    for name in land.targets:
        like = clean.attacked[name]
        masks[name] = torch.full_like(like, p) if p in (0, 1) else spread(land, name, next(recorded), like)
        radii[name] = torch.tensor(epsilon, dtype=torch.float64)
        if relative:
            attacked = land.theta[name].detach() if name in land.theta else clean.values[name]
            rows = land.rows(name)
            radii[name] = epsilon * land.norm(name, attacked if rows is None else attacked[rows])
    assert not list(recorded), "more masks were drawn than there are targets"

    groups = [land.targets] if grouping == "joint" else [(name,) for name in land.targets]
    order = [group for group in groups for _ in range(steps)]  # of the forwards: fresh dropout masks depend on it
    direction = dict(clean.attacked)
    shift = {name: torch.zeros_like(like) for name, like in clean.attacked.items()}
    for group in groups * steps if parallel else order:
        for name in group:
            shift[name] = shift[name] + masks[name] * radii[name] * land.unit(name, direction[name])
            if projection == "l2":
                shift[name] = land.project(name, shift[name], radii[name])
        point = land.at({name: shift[name] for name in group})
        gradients.append((1 / steps, point.weights))
        losses.append(point.loss)
        total = total + point.loss / steps
        for name in group:
            before = direction[name] if mode == "notebook" else 0.0
            direction[name] = before + point.attacked[name] / (steps if mode == "notebook" else 1)
    return Expected(add(*gradients), clean.loss, tuple(losses), total)


def randomattack(
    land: Landscape, draws: list[Tensor], epsilon: float | None = None, p: float = 1.0, grouping: str = "sequential",
    relative: bool = False,
) -> Expected:  # fmt: skip
    """Draws: each target's direction, then its mask (none for p = 1); jointly, weights come before activations."""
    clean = land.at({})
    fraction, is_relative = (0.1, True) if epsilon is None else (epsilon, relative)
    recorded, shift = iter(draws), {}
    weights_first = sorted(land.targets, key=lambda name: name in land.activations)
    for name in weights_first if grouping == "joint" else land.targets:
        like, rows = clean.attacked[name], land.rows(name)
        direction = spread(land, name, next(recorded), like)
        if rows is not None:
            direction[PADDING] = 0.0
        elif name == land.network.embedding:
            direction = direction * (land.batch[0] != PADDING)[:, :, None]
        attacked = land.theta[name].detach() if name in land.theta else clean.values[name]
        radius = land.norm(name, attacked if rows is None else attacked[rows]) if is_relative else 1.0
        shift[name] = fraction * radius * land.unit(name, direction)
        if p != 1:
            shift[name] = shift[name] * spread(land, name, next(recorded), like)
    assert not list(recorded), "more was drawn than a direction and a mask for each target"
    groups = [shift] if grouping == "joint" else [{name: shift[name]} for name in land.targets]
    points = [land.at(group) for group in groups]
    gradient = add((1, clean.weights), *[(1, point.weights) for point in points])
    losses = tuple(point.loss for point in points)
    return Expected(gradient, clean.loss, losses, clean.loss + sum(losses))


def spread(land: Landscape, name: str, mask: Tensor, like: Tensor) -> Tensor:
    """The mask of an embedding's rows in the place of those rows in the matrix; any other mask as it is."""
    rows = land.rows(name)
    if rows is None:
        assert mask.shape == like.shape, f"{name}: a mask of shape {tuple(mask.shape)} for {tuple(like.shape)}"
        return mask
    assert mask.shape == (len(rows), like.shape[1]), f"{name}: the mask must have the batch's {len(rows)} rows"
    return torch.zeros_like(like).index_copy(0, rows, mask)


def rdrop(land: Landscape, draws: list[Tensor], alpha: float) -> Expected:
    first, second = land.forward({})[0], land.forward({})[0]
    p, q = first.logits.softmax(-1), second.logits.softmax(-1)
    divergence = ((p - q) * (p.log() - q.log())).sum(-1).mean() / 2  # KL(p‖q) + KL(q‖p), halved
    total = (first.loss + second.loss) / 2 + alpha * divergence
    grads = torch.autograd.grad(total, list(land.theta.values()), materialize_grads=True)
    gradient = dict(zip(land.theta, grads, strict=True))
    return Expected(gradient, first.loss.detach(), (second.loss.detach(),), total.detach())


def sam(land: Landscape, draws: list[Tensor], rho: float, adaptive: bool = False) -> Expected:
    clean = land.at({})
    scale = {name: land.theta[name].detach().abs() if adaptive else 1.0 for name in land.targets}
    norm = sum((scale[name] * clean.attacked[name]).pow(2).sum() for name in land.targets).sqrt()
    moved = land.at({name: rho * scale[name] ** 2 * clean.attacked[name] / norm for name in land.targets})
    return Expected(moved.weights, clean.loss, (moved.loss,), moved.loss)
