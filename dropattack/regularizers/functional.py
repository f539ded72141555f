"""The mathematics of the methods, as pure functions of tensors.

`per_example=False` takes one norm over the whole tensor (a weight); `per_example=True` one norm for each index of the
first dimension (an activation). Norms of 16-bit tensors are taken in float32. Nothing here waits for the device.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid


def l2_norm(x: Tensor, per_example: bool = False) -> Tensor:
    """Return the 2-norm of `x`: shape [] for the whole tensor, [B, 1, …, 1] per example."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not per_example:
        return torch.linalg.vector_norm(x, dtype=dtype)
    norms = torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1, dtype=dtype)
    return norms.reshape(-1, *[1] * (x.dim() - 1))


def norm(x: Tensor, which: str, per_example: bool = False) -> Tensor:
    """Return the 2-norm (`"l2"`) or ∞-norm (`"linf"`) of `x`, in the shapes of `l2_norm`."""
    if which == "l2":
        return l2_norm(x, per_example)
    if not per_example:
        return torch.linalg.vector_norm(x, float("inf"))
    return torch.linalg.vector_norm(x.reshape(len(x), -1), float("inf"), dim=1).reshape(-1, *[1] * (x.dim() - 1))


def global_norm(parts: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm [] of all `parts` together, on the device of the first; zero if there are none."""
    norms: Sequence[Tensor]
    if parts and all(type(x) is Tensor and x.device.type == "cpu" and x.dtype == torch.float32 for x in parts):
        norms = torch._foreach_norm(list(parts))  # not on a GPU, where it would round differently
    else:
        norms = [l2_norm(part) for part in parts]
    return l2_norm(torch.stack([n.to(norms[0].device) for n in norms])) if norms else torch.zeros(())


# The least norm whose sum of squares is not rounded away: 1e-18 in float32.
_LEAST = {dtype: 10 * torch.finfo(dtype).tiny ** 0.5 for dtype in (torch.float32, torch.float64)}


def usable(norm: Tensor) -> Tensor:
    """Return a bool for each 2-norm: False where it gives no direction because it is zero (to rounding), inf or nan."""
    return (norm > _LEAST[norm.dtype]) & (norm < float("inf"))


def is_at_hand(x: Tensor) -> bool:
    """Return whether Python can look at the values of `x` without waiting for a device."""
    return x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)


def all_usable(norm: Tensor) -> bool:
    """Return whether all norms are known to be usable. On a GPU, where that would wait for the device, False."""
    if not is_at_hand(norm):
        return False
    low, high = (norm, norm) if norm.dim() == 0 else norm.aminmax()  # nan if one of them is
    return low.item() > _LEAST[norm.dtype] and high.item() < float("inf")


def unusable(norm: Tensor) -> Tensor | None:
    """Return a bool for each norm: True where it is not usable. None if all are known to be."""
    return None if all_usable(norm) else ~usable(norm)


def rescale(x: Tensor, length: float | Tensor, norm: Tensor, skipped: Tensor | None) -> Tensor:
    """Return `x` · `length` / `norm`, and exactly zero where it is `skipped`: `unusable(norm)`."""
    r = x * (length / norm)
    return r if skipped is None else r.masked_fill_(skipped, 0.0)


def rescale_together(
    xs: Sequence[Tensor], length: float | Tensor, norm: Tensor, skipped: Tensor | None
) -> list[Tensor]:
    """Return `rescale` of each of `xs`, all by one `norm` []; in one call where they are on its device."""
    if not xs or any(type(x) is not Tensor or x.device != norm.device for x in xs):
        return [rescale(x, length, norm.to(x.device), None if skipped is None else skipped.to(x.device)) for x in xs]
    rescaled = list(torch._foreach_mul(list(xs), length / norm))
    return rescaled if skipped is None else [r.masked_fill_(skipped, 0.0) for r in rescaled]


def l2_step(gradient: Tensor, epsilon: float | Tensor, per_example: bool = False) -> Tensor:
    """Return the step of length ε along the gradient: ε g / ‖g‖₂ (zero if ‖g‖ is zero to rounding, or not finite).

    Example:
        >>> l2_step(torch.tensor([3.0, 4.0]), epsilon=1.0)
        tensor([0.6000, 0.8000])
    """
    norm = l2_norm(gradient, per_example)
    return rescale(gradient, epsilon, norm, unusable(norm))


def add(r: Tensor | None, step: Tensor) -> Tensor:
    """Return r + step; no r yet counts as zero."""
    return step if r is None else r + step


def project_l2(r: Tensor, radius: float | Tensor, per_example: bool = False) -> Tensor:
    """Return the nearest point to `r` in the ball of this radius: r · min(1, radius / ‖r‖₂)."""
    norm = l2_norm(r, per_example)
    return r * torch.where(norm > radius, radius / norm, 1.0).to(r.dtype)


def project(r: Tensor, radius: float | Tensor, which: str, per_example: bool = False) -> Tensor:
    """Return the nearest point to `r` in the ball of this radius, in the 2-norm or the ∞-norm."""
    if which == "l2":
        return project_l2(r, radius, per_example)
    bound = torch.as_tensor(radius, dtype=r.dtype, device=r.device)
    return torch.minimum(torch.maximum(r, -bound), bound)


def bernoulli_mask(like: Tensor, p: float, generator: Generator | None = None) -> Tensor:
    """Draw M ~ Bernoulli(p) per element, as 0/1 in the shape and dtype of `like`; p is the chance of a 1."""
    # A quarter of the time of Tensor.bernoulli_ on a CPU. `uniform_` is in [0, 1), so p = 0 and p = 1 are exact.
    return torch.empty_like(like).uniform_(generator=generator).lt_(p)


def gaussian(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw N(0, 1) per element, in the shape and dtype of `like`: a direction that favours none."""
    return torch.empty_like(like).normal_(generator=generator)


def uniform_start(like: Tensor, magnitude: float, keep: Tensor | None, generator: Generator | None = None) -> Tensor:
    """Return FreeLB's δ₀ ~ U(-1, 1) · magnitude / √d per example (Zhu et al. 2020, section 3 and their code).

    Args:
        like: The activation, [B, …].
        magnitude: Bound on ‖δ₀‖₂ of an example.
        keep: [B, …] broadcastable to `like`, False on padding; None keeps all. d counts an example's kept elements.
        generator: Source of the random numbers; None: torch's global one.
    """
    noise = torch.empty_like(like).uniform_(-1, 1, generator=generator)
    if keep is None:
        return noise * (magnitude / max(1, like.numel() // len(like)) ** 0.5)
    keep = keep.expand_as(like)
    d = keep.reshape(len(like), -1).sum(1).clamp(min=1).reshape(-1, *[1] * (like.dim() - 1))
    return noise * keep * (magnitude / d.to(like.dtype).sqrt())


def kl(p_logits: Tensor, q_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return KL(p‖q) of two softmaxes, averaged over all positions. Arguments as in `symmetric_kl`."""
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return _mean(_expected(p, q).sum(-1), mask)


def bernoulli_kl(p_logits: Tensor, q_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the same for C independent yes/no decisions per position, summed: logits [..., C] of sigmoids."""
    yes, no = (_expected(logsigmoid(sign * p_logits), logsigmoid(sign * q_logits)) for sign in (1, -1))
    return _mean((yes + no).sum(-1), mask)


def symmetric_kl(p_logits: Tensor, q_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return (KL(p‖q) + KL(q‖p)) / 2 of two softmaxes, averaged over all positions. Logits [..., C].

    A class that both rule out (a logit of -inf) adds nothing.

    Args:
        p_logits: Of p.
        q_logits: Of q.
        mask: [...], True where a position counts; None for all.
    """
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return 0.5 * _mean(((p.exp() - q.exp()) * _difference(p, q)).sum(-1), mask)


def symmetric_bernoulli_kl(p_logits: Tensor, q_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the same for C independent yes/no decisions per position, summed: logits [..., C] of sigmoids."""
    return 0.5 * _mean(((p_logits.sigmoid() - q_logits.sigmoid()) * _difference(p_logits, q_logits)).sum(-1), mask)


def gaussian_kl(p_mean: Tensor, q_mean: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the KL of two normal distributions of variance 1, in either direction: ‖p - q‖² / 2 of means [..., C]."""
    return 0.5 * _mean((p_mean - q_mean).square().sum(-1), mask)


def _expected(p: Tensor, q: Tensor) -> Tensor:
    """Return exp(p) (p - q) of log-probabilities, and zero where p rules a class out."""
    return p.exp() * (p - q).masked_fill(p == float("-inf"), 0.0)


def _difference(p: Tensor, q: Tensor) -> Tensor:
    """Return p - q, and zero where they are equal, because -inf minus -inf would be nan."""
    return (p - q).masked_fill(p == q, 0.0)


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    return x.mean() if mask is None else x.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
