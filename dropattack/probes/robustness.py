"""Accuracy on adversarial and corrupted inputs.

The attacks on images are Foolbox's (Rauber et al. 2020), so that a model is not judged by the code that trained it.
Attacks work on pixels in 0..1; the data's normalisation is part of the attacked model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.data.types import TensorSplit
from dropattack.probes.corruptions import IMAGE, TEXT, corrupted_image, corrupted_text
from dropattack.probes.restored import Restored

# Radii of the ℓ∞ ball, for pixels in 0..1: Madry et al. (2018) use 0.3 for MNIST and 8/255 for CIFAR-10.
EPSILONS = {1: (0.05, 0.1, 0.15, 0.2, 0.3), 3: (1 / 255, 2 / 255, 4 / 255, 8 / 255)}
ATTACKS = ("fgsm", "pgd")


class Pixels(nn.Module):
    """Wraps a model of normalised images as a model of pixels in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, C] for pixels float32 [B, channels, H, W] in 0..1."""
        return self.model(pixels=(pixels - self.mean) / self.std)


def robustness(
    run: Restored, *, rows: int = 1000, size: int = 250, seed: int = 0, epsilons: Sequence[float] | None = None,
    steps: int = 20,
) -> dict[str, Any]:  # fmt: skip
    """Return the accuracy on clean and spoilt test rows: {"clean": …, "<kind>": {"<severity>": accuracy in 0..1}}.

    Images: `fgsm` and `pgd` (ℓ∞, `epsilons`) and the corruptions in `corruptions.IMAGE`. Texts: those in
    `corruptions.TEXT`.

    Args:
        run: the run.
        rows: number of test rows, the same for every run on this data.
        size: batch size.
        seed: of the attacks' and corruptions' random choices.
        epsilons: radii; None: chosen by the number of channels.
        steps: of PGD.
    """
    split = run.split("test", rows)
    if run.mean is not None and run.std is not None:
        model = Pixels(run.model, run.mean, run.std).to(run.device).eval()
        batches = [(x.to(run.device).float() / 255, y.to(run.device)) for x, y in _cut(split, size)]
        chosen = tuple(epsilons or EPSILONS.get(split.inputs.shape[1], EPSILONS[3]))
        attacked = {name: attack_accuracy(model, batches, name, chosen, steps=steps, seed=seed) for name in ATTACKS}
        spoilt = {
            kind: {f"{s:g}": _accuracy(model, [(corrupted_image(x, kind, s, seed + i), y) for i, (x, y) in
                                               enumerate(batches)]) for s in severities}
            for kind, severities in IMAGE.items()
        }  # fmt: skip
        return {"clean": _accuracy(model, batches), **attacked, **spoilt}
    texts: dict[str, Any] = {"clean": _text_accuracy(run, split, size)}
    for kind, rates in TEXT.items():
        texts[kind] = {
            f"{r:g}": _text_accuracy(run, corrupted_text(split, run.encoded.spec, kind, r, seed), size) for r in rates
        }
    return texts


def attack_accuracy(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], name: str, epsilons: Sequence[float], *,
    steps: int = 20, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Return the accuracy under an untargeted ℓ∞ attack, by radius ε.

    `fgsm`: one signed step of length ε (Goodfellow et al. 2015). `pgd`: `steps` signed steps of length 2.5 ε/`steps`
    from a random point in the ball (Madry et al. 2018, arXiv 1706.06083). A row counts as correct only if it is correct
    both before and after the attack.

    Args:
        model: maps pixels in 0..1 to logits; in eval mode.
        batches: (float32 [B, C, H, W] in 0..1, int64 [B]).
        name: `fgsm` or `pgd`.
        epsilons: radii.
        steps: of PGD.
        seed: of the random start.

    Raises:
        ValueError: `name` is unknown.
    """
    import foolbox

    attacks = {
        "fgsm": lambda: foolbox.attacks.LinfFastGradientAttack(random_start=False),
        "pgd": lambda: foolbox.attacks.LinfProjectedGradientDescentAttack(
            rel_stepsize=2.5 / steps, steps=steps, random_start=True
        ),
    }
    if name not in attacks:
        raise ValueError(f"there is no attack {name!r}; attacks: {', '.join(attacks)}")
    device = batches[0][0].device
    wrapped, attack = foolbox.PyTorchModel(model, bounds=(0, 1), device=device), attacks[name]()
    right, total = torch.zeros(len(epsilons)), 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for images, labels in batches:
            wrong = (model(images).argmax(-1) != labels).detach()
            _, _, fooled = attack(wrapped, images, labels, epsilons=list(epsilons))
            right += (~(fooled | wrong)).sum(-1).cpu()
            total += len(labels)
    return {f"{epsilon:g}": float(r) / total for epsilon, r in zip(epsilons, right, strict=True)}


def _cut(split: TensorSplit, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(split.inputs.split(size), split.labels.split(size), strict=True))


@torch.no_grad()
def _accuracy(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    hits = sum(int((model(x).argmax(-1) == y).sum()) for x, y in batches)
    return hits / sum(len(y) for _, y in batches)


@torch.no_grad()
def _text_accuracy(run: Restored, split: TensorSplit, size: int) -> float:
    hits = 0
    for batch in run.batches(split, size=size):
        hits += int((run.model(**batch.inputs).argmax(-1) == batch.labels).sum())
    return hits / len(split)
