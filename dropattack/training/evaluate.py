"""Accuracy, macro-F1 and loss of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def evaluate(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    *,
    classes: int,
    check: Callable[[], None] | None = None,
    metrics: Sequence[str] = (),
) -> dict[str, float]:
    """Evaluate in eval mode and restore the mode; synchronise with the device once, at the end.

    Args:
        model: the model.
        batches: dicts of the model's inputs and `labels` [B].
        classes: number of classes C; logits are [B, C].
        check: called before each batch; may raise to stop.
        metrics: names in `METRICS` of further ones.

    Returns:
        `accuracy`, `macro_f1` (over the classes that occur or were predicted, as in scikit-learn) and `loss`
        (mean cross-entropy), and the metrics asked for.

    Raises:
        ValueError: `batches` is empty.
    """
    training = model.training
    model.eval()
    confusion, loss = None, None
    try:
        with torch.no_grad():  # not inference_mode: its tensors must not end up in buffers used for training
            for batch in batches:
                if check is not None:
                    check()
                labels = batch["labels"]
                logits = model(**{name: value for name, value in batch.items() if name != "labels"}).float()
                if confusion is None or loss is None:
                    confusion = torch.zeros(classes, classes, dtype=torch.int64, device=labels.device)
                    loss = torch.zeros((), dtype=torch.float64, device=labels.device)
                confusion += _count(labels, logits.argmax(-1), classes)
                loss += F.cross_entropy(logits, labels, reduction="sum")
    finally:
        model.train(training)
    if confusion is None or loss is None:
        raise ValueError("there is nothing to evaluate: there were no batches")
    counts = confusion.cpu()
    return {
        "accuracy": counts.diagonal().sum().item() / counts.sum().item(),
        "macro_f1": macro_f1(counts),
        "loss": loss.item() / counts.sum().item(),
        **{name: METRICS[name](counts) for name in metrics},
    }


def macro_f1(confusion: Tensor) -> float:
    """Return the mean F1 over the occurring classes, from counts [C, C] (rows: true, columns: predicted)."""
    hits, true, predicted = confusion.diagonal().double(), confusion.sum(1).double(), confusion.sum(0).double()
    occurs = (true + predicted) > 0
    return (2 * hits[occurs] / (true + predicted)[occurs]).mean().item()


def f1(confusion: Tensor) -> float:
    """Return the F1 of the last class, which is `true` or 1 of two, from counts [C, C]; 0 if it never occurs."""
    hits, others = confusion[-1, -1].item(), (confusion[-1].sum() + confusion[:, -1].sum()).item()
    return 2 * hits / others if others else 0.0


def matthews(confusion: Tensor) -> float:
    """Return Matthews' correlation in −1..1 from counts [C, C], as Gorodkin (2004) defines it for C > 2.

    It is 0 if all predictions or all labels are the same, as in scikit-learn.
    """
    counts = confusion.double()
    true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
    covariance = counts.trace() * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return (covariance / spread.sqrt()).item() if spread > 0 else 0.0


METRICS: dict[str, Callable[[Tensor], float]] = {"f1": f1, "matthews": matthews}


def _count(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count confusions [C, C] with a product of one-hot matrices: exact, deterministic, no synchronisation."""
    names = torch.arange(classes, device=labels.device)
    return ((labels[:, None] == names).float().T @ (predicted[:, None] == names).float()).long()
