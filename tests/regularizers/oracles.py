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


def identity(land: Landscape, draws: list[Tensor]) -> Expected:
    clean = land.at({})
    return Expected(clean.weights, clean.loss, (), clean.loss)


def attacked_at(land: Landscape, name: str, clean: Point) -> Tensor:
    """Return what is attacked at the clean point; of an embedding matrix, the rows of the batch."""
    value, rows = land.theta[name].detach() if name in land.theta else clean.values[name], land.rows(name)
    return value if rows is None else value[rows]


def largest(land: Landscape, name: str, value: Tensor) -> Tensor:
    """Return the ∞-norm, in the shapes of `land.norm`."""
    dims = tuple(range(0 if name in land.theta else 1, value.dim()))
    return value.abs().amax(dims, keepdim=name not in land.theta)


def fgm(
    land: Landscape, draws: list[Tensor], epsilon: float, relative: bool = False, norm: str = "l2", weight: float = 1.0
) -> Expected:
    clean = land.at({})
    measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
    shift = {}
    for name in land.targets:
        size = measure(name, attacked_at(land, name, clean)) if relative else 1.0
        g = clean.attacked[name]
        shift[name] = epsilon * size * (land.unit(name, g) if norm == "l2" else g.sign())
    moved = land.at(shift)
    total = clean.loss + weight * moved.loss
    return Expected(add((1, clean.weights), (weight, moved.weights)), clean.loss, (moved.loss,), total)


def pgd(
    land: Landscape, draws: list[Tensor], epsilon: float, alpha: float, steps: int, relative: bool = False,
    norm: str = "l2", weight: float = 1.0,
) -> Expected:  # fmt: skip
    clean = point = land.at({})
    shift = {name: torch.zeros_like(clean.attacked[name]) for name in land.targets}
    measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
    losses = []
    for _ in range(steps):
        for name in land.targets:
            size = measure(name, attacked_at(land, name, clean)) if relative else torch.ones((), dtype=torch.float64)
            g = point.attacked[name]
            if norm == "l2":
                step = shift[name] + alpha * size * land.unit(name, g)
                shift[name] = land.project(name, step, epsilon * size)
            else:
                bound = (epsilon * size).expand_as(g)
                shift[name] = (shift[name] + alpha * size * g.sign()).clamp(-bound, bound)
        point = land.at(shift)
        losses.append(point.loss)
    total = clean.loss + weight * losses[-1]
    return Expected(add((1, clean.weights), (weight, point.weights)), clean.loss, tuple(losses), total)


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
    land: Landscape, draws: list[Tensor], epsilon: float | None, p: float, steps: int = 1, mode: str = "paper",
    projection: str | None = None, grouping: str = "sequential", relative: bool = False, attack: bool = True,
    norm: str = "l2", weight: float = 1.0,
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
        radii[name] = torch.tensor(0.1 if epsilon is None else epsilon, dtype=torch.float64)
        if relative or epsilon is None:
            measure = land.norm if norm == "l2" else lambda *args: largest(land, *args)
            radii[name] = radii[name] * measure(name, attacked_at(land, name, clean))
    assert not list(recorded), "more masks were drawn than there are targets"

    groups = [land.targets] if grouping == "joint" else [(name,) for name in land.targets]
    direction = dict(clean.attacked)
    shift = {name: torch.zeros_like(like) for name, like in clean.attacked.items()}
    for group in [group for group in groups for _ in range(steps)]:
        for name in group:
            unit = land.unit(name, direction[name]) if norm == "l2" else direction[name].sign()
            shift[name] = shift[name] + masks[name] * radii[name] * unit
            if projection == "l2":
                shift[name] = land.project(name, shift[name], radii[name])
            elif projection == "linf":
                shift[name] = shift[name].clamp(-radii[name], radii[name])
        point = land.at({name: shift[name] for name in group})
        gradients.append((weight / steps, point.weights))
        losses.append(point.loss)
        total = total + weight * point.loss / steps
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
        radius = land.norm(name, attacked_at(land, name, clean)) if is_relative else 1.0
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
    """Put the mask of an embedding's rows at those rows of the matrix; return any other mask as it is."""
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


# What is built of more than one forward, or of another function of the network than its loss.


def of_weights(land: Landscape, value: Tensor) -> Shift:
    grads = torch.autograd.grad(value, list(land.theta.values()), materialize_grads=True, retain_graph=True)
    return dict(zip(land.theta, grads, strict=True))


def of_attacked(land: Landscape, value: Tensor, probes: Shift) -> Shift:
    grads = torch.autograd.grad(value, [probes[n] for n in land.targets], materialize_grads=True, retain_graph=True)
    return dict(zip(land.targets, grads, strict=True))


def divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p‖q), the mean over the batch."""
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1).mean()


def kept(land: Landscape, name: str, value: Tensor) -> Tensor:
    """`value`, and zero on padding where `name` is the embedding's output."""
    return value * (land.batch[0] != PADDING)[:, :, None] if name == land.network.embedding else value


def rat(land: Landscape, draws: list[Tensor], epsilon: float, alpha: float = 1.0, relative: bool = False) -> Expected:
    clean, shift = land.at({}), {}
    for name in land.targets:
        size = land.norm(name, attacked_at(land, name, clean)) if relative else 1.0
        shift[name] = epsilon * size * land.unit(name, clean.attacked[name])
    one, two = land.forward(shift)[0], land.forward(shift)[0]
    apart = (divergence(one.logits, two.logits) + divergence(two.logits, one.logits)) / 2
    extra = (one.loss + two.loss) / 2 + alpha * apart
    gradient = add((1, clean.weights), (1, of_weights(land, extra)))
    return Expected(gradient, clean.loss, (one.loss.detach(), two.loss.detach()), clean.loss + extra.detach())


def vat(
    land: Landscape, draws: list[Tensor], epsilon: float, alpha: float = 1.0, xi: float = 1e-3, steps: int = 1
) -> Expected:
    clean, losses = land.forward({})[0], []
    gradient, p = of_weights(land, clean.loss), clean.logits.detach()
    direction = {n: kept(land, n, d) for n, d in zip(land.targets, draws, strict=True)}
    for _ in range(steps):
        moved, probes, _ = land.forward({name: xi * land.unit(name, d) for name, d in direction.items()})
        losses.append(moved.loss.detach())
        direction = of_attacked(land, divergence(p, moved.logits), probes)
    moved = land.forward({name: epsilon * land.unit(name, d) for name, d in direction.items()})[0]
    losses.append(moved.loss.detach())
    extra = alpha * divergence(p, moved.logits)
    gradient = add((1, gradient), (1, of_weights(land, extra)))
    return Expected(gradient, clean.loss.detach(), tuple(losses), (clean.loss + extra).detach())


def smart(
    land: Landscape, draws: list[Tensor], alpha: float = 1.0, eta: float = 1e-3, sigma: float = 1e-5,
    epsilon: float = 1e-6,
) -> Expected:  # fmt: skip
    clean = land.forward({})[0]
    start = {name: sigma * kept(land, name, d) for name, d in zip(land.targets, draws, strict=True)}
    noisy, probes, _ = land.forward(start)
    shift = {}
    for name, g in of_attacked(land, divergence(clean.logits.detach(), noisy.logits), probes).items():
        dims = -1 if g.dim() == 3 else tuple(range(1, g.dim()))
        shift[name] = eta * g / (g.abs().amax(dims, keepdim=True) + epsilon)
    moved = land.forward(shift)[0]
    apart = divergence(clean.logits.detach(), moved.logits) + divergence(moved.logits.detach(), clean.logits)
    total = clean.loss + alpha * apart
    losses = (noisy.loss.detach(), moved.loss.detach())
    return Expected(of_weights(land, total), clean.loss.detach(), losses, total.detach())


def creat(
    land: Landscape, draws: list[Tensor], encoder: str | None = None, alpha: float = 0.1, steps: int = 1,
    epsilon: float = 0.1, tau: float = 1.0, sigma: float = 1e-5,
) -> Expected:  # fmt: skip
    def forward(shift: Shift) -> tuple[Output, Tensor, Shift]:
        seen = []
        hook = land.model.get_submodule(encoder or "").register_forward_hook(lambda m, a, out: seen.append(out))
        output, probes, _ = land.forward(shift)
        hook.remove()
        return (
            output,
            output.logits if encoder is None else seen[0] if isinstance(seen[0], Tensor) else seen[0][0],
            probes,
        )

    clean, h, _ = forward({})
    delta, losses = {n: sigma * kept(land, n, d) for n, d in zip(land.targets, draws, strict=True)}, []
    for _ in range(steps):
        moved, other, probes = forward(dict(delta))
        losses.append(moved.loss.detach())
        cosine = (other * h.detach()).sum(-1) / (other.norm(dim=-1) * h.detach().norm(dim=-1))
        ascended = moved.loss - tau * cosine.reshape(len(h), -1).sum(1).mean()
        for name, g in of_attacked(land, ascended, probes).items():
            delta[name] = land.project(name, delta[name] + alpha * land.unit(name, g), epsilon)
    moved = land.forward(delta)[0]
    losses.append(moved.loss.detach())
    total = (clean.loss + moved.loss) / 2
    return Expected(of_weights(land, total), clean.loss.detach(), tuple(losses), total.detach())


def awp(
    land: Landscape, draws: list[Tensor], gamma: float, relative: bool = True, inputs: str | None = None,
    epsilon: float = 1.0, alpha: float = 0.3, steps: int = 3,
) -> Expected:  # fmt: skip
    weights = [name for name in land.targets if name != inputs]
    shift, points = {}, []
    for _ in range(steps if inputs else 0):
        points.append(land.at(dict(shift)))
        step = shift.get(inputs, 0.0) + alpha * land.unit(inputs, points[-1].attacked[inputs])
        shift[inputs] = land.project(inputs, step, epsilon)
    points.append(land.at(dict(shift)))
    for name in weights:
        size = land.norm(name, attacked_at(land, name, points[-1])) if relative else 1.0
        shift[name] = gamma * size * land.unit(name, points[-1].attacked[name])
    points.append(land.at(shift))
    losses = [point.loss for point in points]
    return Expected(points[-1].weights, losses[0], tuple(losses[1:]), losses[-1])


def rwp(land: Landscape, draws: list[Tensor], gamma: float, alpha: float = 0.5, relative: bool = True) -> Expected:
    clean, shift = land.at({}), {}
    for name, noise in zip(land.targets, draws, strict=True):
        w, rows = land.theta[name].detach(), land.rows(name)
        if rows is None and len(noise) < len(w):  # BERT's positions and token types, of which the first are looked up
            rows = torch.arange(len(noise))
        noise = noise if rows is None else torch.zeros_like(w).index_copy(0, rows, noise)
        size = w.norm() if w.dim() == 1 else w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1))
        shift[name] = gamma * noise * (size if relative else 1.0)
    moved = land.at(shift)
    gradient = add((1 - alpha, clean.weights), (alpha, moved.weights))
    return Expected(gradient, clean.loss, (moved.loss,), (1 - alpha) * clean.loss + alpha * moved.loss)


def neftune(land: Landscape, draws: list[Tensor], alpha: float = 5.0) -> Expected:
    """Take draws that are uniform in (−1, 1) · α/√d already: another test checks `uniform_start`."""
    moved = land.at(dict(zip(land.targets, draws, strict=True)))
    return Expected(moved.weights, moved.loss, (), moved.loss)


def fsam(
    land: Landscape, draws: list[Tensor], rho: float, sigma: float = 1.0, decay: float = 0.95, adaptive: bool = False
) -> Expected:
    """Compute the first step: the average starts as the gradient, which is also the direction."""
    return sam(land, draws, rho, adaptive)


def msam(land: Landscape, draws: list[Tensor], rho: float) -> Expected:
    """Use the momenta that `following` hands to the library, drawn for all parameters in their order."""
    generator = torch.Generator().manual_seed(0)
    momenta = {n: torch.randn(w.shape, dtype=w.dtype, generator=generator) for n, w in land.theta.items()}
    norm = torch.stack([momenta[name].norm() for name in land.targets]).norm()
    moved = land.at({name: -rho * momenta[name] / norm for name in land.targets})
    return Expected(moved.weights, moved.loss, (), moved.loss)


def flooding(land: Landscape, draws: list[Tensor], level: float) -> Expected:
    clean = land.at({})
    sign = 1.0 if clean.loss > level else -1.0
    return Expected(add((sign, clean.weights)), clean.loss, (), (clean.loss - level).abs() + level)
