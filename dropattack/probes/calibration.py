"""Whether a model knows what it does not know, and what it lost between train and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.data.loader import Batch

BINS = 15


def calibration(model: nn.Module, test: Sequence[Batch], train: Sequence[Batch]) -> dict[str, Any]:
    """Calibration on `test`, and the generalisation gap between `train` and it; the model in eval mode.

    Returns:
        `ece` (see `expected_calibration_error`), `brier` (see `brier_score`), `nll` (mean cross-entropy), `accuracy`
        of test; `train_accuracy`, `train_loss`; `gap_accuracy` (train − test) and `gap_loss` (test − train): both are
        larger where the model generalises less.
    """
    logits, labels = predictions(model, test)
    train_logits, train_labels = predictions(model, train)
    probabilities = logits.softmax(-1)
    accuracy, nll = _accuracy(logits, labels), float(F.cross_entropy(logits, labels))
    train_accuracy, train_loss = (
        _accuracy(train_logits, train_labels),
        float(F.cross_entropy(train_logits, train_labels)),
    )
    return {
        "ece": expected_calibration_error(probabilities, labels), "brier": brier_score(probabilities, labels),
        "nll": nll, "accuracy": accuracy, "train_accuracy": train_accuracy, "train_loss": train_loss,
        "gap_accuracy": train_accuracy - accuracy, "gap_loss": nll - train_loss,
    }  # fmt: skip


@torch.no_grad()
def predictions(model: nn.Module, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """(logits float64 [N, C], labels int64 [N]) on the CPU; the model has to be in eval mode."""
    logits = [model(**{k: v for k, v in batch.items() if k != "labels"}) for batch in batches]
    return torch.cat(logits).double().cpu(), torch.cat([batch["labels"] for batch in batches]).cpu()


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)| over `bins` bins of equal width of the top class's probability.

    The bins are (0, 1/bins], …, (1 − 1/bins, 1]: Guo, Pleiss, Sun and Weinberger 2017 (arXiv 1706.04599), equation 3.
    It is biased upwards where rows are few.

    Args:
        probabilities: [N, C].
        labels: int64 [N].
    """
    confidence, predicted = probabilities.max(-1)
    hits = (predicted == labels).to(confidence)
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    number = torch.bucketize(confidence, inner)  # right ends belong to their bin
    gaps = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, number, hits - confidence)
    return float(gaps.abs().sum() / len(labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean over rows of Σ_c (p_c − y_c)², in 0..2, as Brier (1950) has it for several classes."""
    truth = F.one_hot(labels, probabilities.shape[-1]).to(probabilities)
    return float((probabilities - truth).square().sum(-1).mean())


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(-1) == labels).double().mean())
