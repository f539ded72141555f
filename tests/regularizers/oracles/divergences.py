"""Methods that compare the logits of two forwards, or look for the perturbation that moves them most."""

from torch import Tensor

from tests.regularizers.networks import Output
from tests.regularizers.oracles.landscape import (
    Expected,
    Landscape,
    Shift,
    add,
    attacked_at,
    kept,
    of_attacked,
    of_weights,
)


def divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p‖q), the mean over the batch."""
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1).mean()


def rdrop(land: Landscape, draws: list[Tensor], alpha: float) -> Expected:
    first, second = land.forward({})[0], land.forward({})[0]
    p, q = first.logits.softmax(-1), second.logits.softmax(-1)
    divergence = ((p - q) * (p.log() - q.log())).sum(-1).mean() / 2  # KL(p‖q) + KL(q‖p), halved
    total = (first.loss + second.loss) / 2 + alpha * divergence
    return Expected(of_weights(land, total), first.loss.detach(), (second.loss.detach(),), total.detach())


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
