"""How flat the loss is around a network's weights: sharpness, Hessian, weight noise. Each with its interval.

Every number is about the mean cross-entropy of the given batches, in eval mode; the network itself is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dropattack.data.loader import Batch
from dropattack.probes.directions import filter_norms, random_direction
from dropattack.probes.hessian import Hessian, double_backward
from dropattack.probes.scratch import Scratch
from dropattack.statistics import estimate

RHO = {"sharpness": 0.05, "adaptive_sharpness": 0.5}  # Foret et al. 2021; Kwon et al. 2021, for CIFAR-10
NOISE: dict[str, tuple[float, ...]] = {"noise": (0.01, 0.02), "relative_noise": (0.1, 0.2)}


def flatness(
    model: nn.Module, batches: Sequence[Batch], *, steps: int = 5, probes: int = 10, draws: int = 10, seed: int = 0
) -> dict[str, Any]:
    """All measures, each an estimate {mean, sd, low, high, n} (95 % t-interval).

    Returns:
        `sharpness_one_step`, `sharpness`, `adaptive_sharpness_one_step`, `adaptive_sharpness`: see `sharpness`; over
        the batches. `hessian_eigenvalue`, `hessian_trace`: over the batches. `noise_<σ>`, `relative_noise_<σ>`: see
        `noise_rise`; over the draws.
    """
    scratch = Scratch(model)
    found: dict[str, Any] = {}
    for name, rho in RHO.items():
        rises = [sharpness(scratch, b, rho=rho, steps=steps, adaptive=name.startswith("adaptive")) for b in batches]
        found[f"{name}_one_step"] = [one for one, _ in rises]
        found[name] = [best for _, best in rises]
    with double_backward(model):
        hessians = [Hessian(scratch, batch) for batch in batches]
        found["hessian_eigenvalue"] = [h.largest_eigenvalue(seed=seed) for h in hessians]
        found["hessian_trace"] = [h.trace(probes=probes, seed=seed + i) for i, h in enumerate(hessians)]
    for name, sizes in NOISE.items():
        kind: Any = "filter" if name.startswith("relative") else "absolute"
        for size in sizes:
            found[f"{name}_{size:g}"] = noise_rise(scratch, batches, sigma=size, kind=kind, draws=draws, seed=seed)
    return {name: summary(values) for name, values in found.items()}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """An estimate as JSON; what is not known (no spread from one value, a value that is not finite) is null."""
    try:
        made = asdict(estimate(values))
    except ValueError:
        return {"mean": None, "sd": None, "low": None, "high": None, "n": len(values), "why": "not finite"}
    return {key: None if value != value else value for key, value in made.items()}


def sharpness(
    scratch: Scratch, batch: Batch, *, rho: float, steps: int = 5, adaptive: bool = False
) -> tuple[float, float]:
    """The rise of the loss to the worst point found in a ball around the weights, after one step and at best.

    max L(θ + T e) − L(θ) over ‖e‖₂ ≤ ρ, where T is 1 (SAM: Foret et al. 2021, arXiv 2010.01412) or |θ| element by
    element (ASAM: Kwon et al. 2021, arXiv 2102.11600), which no rescaling of layers against each other changes. The
    first step is theirs, e = ρ T∇L/‖T∇L‖; the others go on by ρ/2 along the gradient there and back onto the ball.

    Args:
        steps: gradients taken, at least 1.

    Returns:
        (after the first step, the largest seen); of a gradient that is zero or not finite both are 0.
    """
    scale = {n: w.abs() for n, w in scratch.home.items()} if adaptive else None
    scratch.move()
    clean, ball, losses = _loss(scratch, batch), None, []
    for _ in range(steps):
        grads = scratch.gradient(batch)
        ascent = {n: g if scale is None else scale[n] * g for n, g in grads.items()}
        size = _norm(ascent)
        if not (torch.isfinite(size) and size > 0):
            break
        if ball is None:
            ball = {n: rho / size * a for n, a in ascent.items()}
        else:
            ball = {n: ball[n] + rho / 2 / size * a for n, a in ascent.items()}
            shrink = (rho / _norm(ball)).clamp(max=1)
            ball = {n: shrink * e for n, e in ball.items()}
        scratch.move([(1.0, ball if scale is None else {n: scale[n] * e for n, e in ball.items()})])
        losses.append(_loss(scratch, batch))
    scratch.move()
    return (losses[0] - clean, max(losses) - clean) if losses else (0.0, 0.0)


def noise_rise(
    scratch: Scratch, batches: Sequence[Batch], *, sigma: float, kind: Literal["absolute", "filter"] = "absolute",
    draws: int = 10, seed: int = 0,
) -> list[float]:  # fmt: skip
    """The rise of the mean loss under Gaussian noise on all weights, once a draw: L(θ + n) − L(θ).

    `absolute`: n ~ N(0, σ²) for every element. `filter`: the noise on a filter (see `directions.normalised`) has on
    average σ² times its squared norm, and elements of biases and BatchNorm's scales count as filters of their own.

    The draws are a function of `seed` and the parameters' shapes: two networks meet the same noise.
    """
    scratch.move()
    clean, _ = scratch.measure(batches)
    rises = []
    for draw in range(draws):
        noise = random_direction(scratch.home, seed=seed, number=draw)
        shaped = {n: _shaped(noise[n].to(w.device), w, kind) for n, w in scratch.home.items()}
        scratch.move([(sigma, shaped)])
        rises.append(scratch.measure(batches)[0] - clean)
    scratch.move()
    return rises


def _shaped(noise: Tensor, weight: Tensor, kind: str) -> Tensor:
    if kind == "absolute" or weight.dim() == 0:
        return noise
    return noise * filter_norms(weight) / (weight[0].numel() ** 0.5)


def _norm(tensors: dict[str, Tensor]) -> Tensor:
    return torch.stack([t.double().square().sum() for t in tensors.values()]).sum().sqrt().float()


@torch.no_grad()
def _loss(scratch: Scratch, batch: Batch) -> float:
    return float(scratch.loss(batch))
