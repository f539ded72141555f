"""Flatness of the loss around a network's weights: sharpness, Hessian, weight noise, each with its interval.

All measures use the mean cross-entropy of the given batches in eval mode. The network itself is not modified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dropattack.batch import Batch
from dropattack.probes.directions import filter_norms, random_direction
from dropattack.probes.hessian import Hessian, double_backward
from dropattack.probes.scratch import Scratch
from dropattack.statistics import estimate

RHO = {"sharpness": 0.05, "adaptive_sharpness": 0.5}  # Foret et al. 2021; Kwon et al. 2021, for CIFAR-10
NOISE: dict[str, tuple[float, ...]] = {"noise": (0.01, 0.02), "relative_noise": (0.1, 0.2)}


def flatness(
    model: nn.Module, batches: Sequence[Batch], *, steps: int = 5, probes: int = 10, draws: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Compute all measures, each as an estimate {mean, sd, low, high, n} (95 % t-interval).

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
    """Convert an estimate of `values` to JSON; unknown numbers (spread of one value, non-finite values) become null."""
    try:
        made = asdict(estimate(values))
    except ValueError:
        return {"mean": None, "sd": None, "low": None, "high": None, "n": len(values), "why": "not finite"}
    return {key: None if value != value else value for key, value in made.items()}


def sharpness(
    scratch: Scratch, batch: Batch, *, rho: float, steps: int = 5, adaptive: bool = False
) -> tuple[float, float]:
    """Return the rise of the loss to the worst point found in a ball around the weights, after one step and at best.

    max L(θ + T e) − L(θ) over ‖e‖₂ ≤ ρ, where T is 1 (SAM: Foret et al. 2021, arXiv 2010.01412) or |θ| elementwise
    (ASAM: Kwon et al. 2021, arXiv 2102.11600), which is invariant to rescaling layers against each other. The first
    step is theirs, e = ρ T∇L/‖T∇L‖; each further step moves by ρ/2 along the gradient there and projects onto the ball.

    Args:
        scratch: a copy of the network.
        batch: the batch whose mean loss is maximised.
        rho: radius ρ.
        steps: number of gradient steps, at least 1.
        adaptive: use ASAM's T.

    Returns:
        (rise after the first step, largest rise seen); both are 0 if the gradient is zero or non-finite.
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
    """Return the rise of the mean loss under Gaussian noise on all weights, L(θ + n) − L(θ), one value per draw.

    `absolute`: n ~ N(0, σ²) for every element. `filter`: the squared norm of the noise on a filter (see
    `directions.normalised`) is on average σ² times that of the filter; each element of a bias or of a BatchNorm scale
    counts as a filter.

    The draws depend only on `seed` and the shapes of the parameters, so two networks get the same noise.
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
