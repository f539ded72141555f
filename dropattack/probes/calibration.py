"""Calibration of a model, and its generalisation gap between train and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.batch import Batch

BINS = 15


def calibration(model: nn.Module, test: Sequence[Batch], train: Sequence[Batch]) -> dict[str, Any]:
    """Measure calibration on `test`, and the generalisation gap between `train` and `test`.

    Args:
        model: in eval mode.
        test: batches of the test split.
        train: batches of the training split.

    Returns:
        On test: `ece` (see `expected_calibration_error`), `brier` (see `brier_score`), `nll` (mean cross-entropy) and
        `accuracy`. On train: `train_accuracy` and `train_loss`. The gaps `gap_accuracy` (train − test) and `gap_loss`
        (test − train); a larger gap means worse generalisation.
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
    """Return (logits float64 [N, C], labels int64 [N]) on the CPU. The model must be in eval mode."""
    logits = [model(**batch.inputs) for batch in batches]
    return torch.cat(logits).double().cpu(), torch.cat([batch.labels for batch in batches]).cpu()


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error: Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)|.

    The top class's probability is binned into `bins` bins of equal width, (0, 1/bins], …, (1 − 1/bins, 1]: Guo,
    Pleiss, Sun and Weinberger 2017 (arXiv 1706.04599), equation 3. It is biased upwards on few rows.

    Args:
        probabilities: float [N, C].
        labels: int64 [N].
        bins: number of bins.
    """
    confidence, predicted = probabilities.max(-1)
    hits = (predicted == labels).to(confidence)
    inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    index = torch.bucketize(confidence, inner)  # bins include their right end
    gaps = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, index, hits - confidence)
    return float(gaps.abs().sum() / len(labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the multi-class Brier score (Brier 1950): the mean over rows of Σ_c (p_c − y_c)², in 0..2."""
    truth = F.one_hot(labels, probabilities.shape[-1]).to(probabilities)
    return float((probabilities - truth).square().sum(-1).mean())


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(-1) == labels).double().mean())
