"""Corruptions: noise, blur, lower contrast or brightness, and rotation of images; dropped or swapped words in texts.

Every corruption is a function of its inputs and a seed, so all methods are tested on the same corrupted data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dropattack.data.types import DataSpec, TensorSplit
from dropattack.training.seeding import derive

SPECIAL = ("[CLS]", "[SEP]", "<s>", "</s>")  # added by the tokenizer, never corrupted

# Severities from mild to strong. Noise: standard deviation, pixels in 0..1. Blur: standard deviation as a fraction of
# the image's side. Contrast and brightness: factor. Rotation: degrees.
IMAGE: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.05, 0.1, 0.2),
    "gaussian_blur": (0.02, 0.04, 0.06),
    "contrast": (0.6, 0.4, 0.2),
    "brightness": (0.6, 0.4, 0.2),
    "rotation": (10.0, 20.0, 30.0),
}
TEXT: dict[str, tuple[float, ...]] = {"word_drop": (0.1, 0.2, 0.4), "word_swap": (0.1, 0.2, 0.4)}  # rates


def corrupted_image(pixels: Tensor, kind: str, severity: float, seed: int = 0) -> Tensor:
    """Return images corrupted by torchvision's v2 transforms, in 0..1.

    Args:
        pixels: float32 [B, C, H, W] in 0..1.
        kind: one of `IMAGE`.
        severity: in the units of `IMAGE[kind]`.
        seed: of the noise; the other kinds are deterministic.

    Raises:
        ValueError: `kind` is unknown.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as T

    if kind == "gaussian_noise":
        with torch.random.fork_rng(devices=[pixels.device] if pixels.is_cuda else []):
            torch.manual_seed(derive(seed, f"{kind}/{severity}"))
            return T.gaussian_noise(pixels.cpu(), mean=0.0, sigma=severity, clip=True).to(pixels.device)
    if kind == "gaussian_blur":
        sigma = severity * pixels.shape[-1]
        size = 2 * max(1, round(2 * sigma)) + 1
        return T.gaussian_blur(pixels, kernel_size=[size, size], sigma=[sigma, sigma])
    change: dict[str, Callable[[Tensor], Tensor]] = {
        "contrast": lambda x: T.adjust_contrast(x, severity),
        "brightness": lambda x: T.adjust_brightness(x, severity),
        "rotation": lambda x: T.rotate(x, severity, interpolation=InterpolationMode.BILINEAR),
    }
    if kind not in change:
        raise ValueError(f"there is no corruption {kind!r}; corruptions: {', '.join(IMAGE)}")
    return change[kind](pixels)


def corrupted_text(split: TensorSplit, spec: DataSpec, kind: str, rate: float, seed: int = 0) -> TensorSplit:
    """Return texts with tokens dropped or swapped: words with a word vocabulary, word pieces with BERT's.

    `word_drop`: drop each token with probability `rate`; at least one remains. `word_swap`: going from left to right,
    swap each token with the next one with probability `rate`, at most once. [CLS] and [SEP] are never moved or dropped.

    Args:
        split: int32 [N, T] with lengths.
        spec: of the data; must have a padding id.
        kind: one of `TEXT`.
        rate: probability in 0..1.
        seed: of the random choices.

    Raises:
        ValueError: `kind` is unknown, or the data are not texts.
    """
    if split.lengths is None or spec.padding_id is None or kind not in TEXT:
        raise ValueError(f"there is no corruption {kind!r} for this data; corruptions of text: {', '.join(TEXT)}")
    rng = np.random.default_rng(derive(seed, f"{kind}/{rate}"))
    special = [i for i, token in enumerate(spec.vocabulary or ()) if token in SPECIAL]
    change = _dropped if kind == "word_drop" else _swapped
    inputs, lengths = split.inputs.numpy(), split.lengths.numpy()
    made = np.full_like(inputs, spec.padding_id)
    sizes = np.zeros_like(lengths)
    for row, (ids, length) in enumerate(zip(inputs, lengths, strict=True)):
        kept = change(ids[:length], np.isin(ids[:length], special), rate, rng)
        made[row, : len(kept)], sizes[row] = kept, len(kept)
    return TensorSplit(torch.from_numpy(made), split.labels, torch.from_numpy(sizes))


def _dropped(ids: np.ndarray, fixed: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    draws = rng.random(len(ids))
    kept = fixed | (draws >= rate)
    own = ~fixed
    if own.any() and not (kept & own).any():
        kept[np.flatnonzero(own)[draws[own].argmax()]] = True
    return ids[kept]


def _swapped(ids: np.ndarray, fixed: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    made, draws, i = ids.copy(), rng.random(len(ids)), 0
    while i + 1 < len(made):
        if draws[i] < rate and not fixed[i] and not fixed[i + 1]:
            made[i], made[i + 1] = made[i + 1], made[i]
            i += 1
        i += 1
    return made
