"""Accuracy, macro-F1 and loss of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.batch import Batch
from dropattack.training.state import SplitLoader


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    classes: int,
    check: Callable[[], None] | None = None,
    metrics: Sequence[str] = (),
) -> dict[str, float]:
    """Evaluate in eval mode and restore the mode; synchronise with the device once, at the end.

    Args:
        model: the model.
        batches: of the split.
        classes: number of classes C; logits are [B, C].
        check: called before each batch; may raise to stop.
        metrics: names in `METRICS` of further ones.

    Returns:
        `accuracy`, `macro_f1` (over the classes that occur or were predicted, as in scikit-learn) and `loss`
        (mean cross-entropy), and the metrics asked for.

    Raises:
        ValueError: `batches` is empty.
    """
    totals = _Totals(classes)
    for labels, logits in _outputs(model, batches, check):
        totals.add(labels, logits)
    return totals.metrics(metrics)


@dataclass(frozen=True)
class Tested:
    """The result on a split: the metrics of `evaluate`, and each row's prediction in the split's order.

    Attributes:
        metrics: see `evaluate`.
        probabilities: of each class: float32 [N, C].
        predicted: the class with the largest logit: int64 [N]. Probabilities may round two logits to a tie.
        labels: the true classes: int64 [N].
    """

    metrics: dict[str, float]
    probabilities: Tensor
    predicted: Tensor
    labels: Tensor

    @property
    def correct(self) -> Tensor:
        """True for each row whose predicted class is the true one, as in the accuracy: bool [N]."""
        return self.predicted == self.labels


def test(model: nn.Module, loader: SplitLoader, *, classes: int, metrics: Sequence[str] = ()) -> Tested:  # noqa: PT028
    """Return the result on all rows of `loader`'s split, evaluated once, with the prediction of each row.

    Raises:
        ValueError: the split is empty.
    """
    totals = _Totals(classes)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for labels, logits in _outputs(model, loader.batches()):
        totals.add(labels, logits)
        found.append((logits.softmax(-1), logits.argmax(-1), labels))
    place = torch.from_numpy(np.concatenate(loader.rows()).argsort())  # evaluation sorts texts by length
    return Tested(totals.metrics(metrics), *(torch.cat(parts).cpu()[place] for parts in zip(*found, strict=True)))


def _outputs(
    model: nn.Module, batches: Iterable[Batch], check: Callable[[], None] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch's labels [B] and float32 logits [B, C], in eval mode and without gradients."""
    training = model.training
    model.eval()
    try:
        for batch in batches:
            if check is not None:
                check()
            with torch.no_grad():  # not inference_mode: its tensors must not end up in buffers used for training
                logits = model(**batch.inputs).float()
            yield batch.labels, logits
    finally:
        model.train(training)


class _Totals:
    """Confusions and the summed loss, left on the device until `metrics`."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion: Tensor | None = None  # [C, C]; rows: true, columns: predicted
        self.loss = torch.zeros(())

    def add(self, labels: Tensor, logits: Tensor) -> None:
        if self.confusion is None:
            self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=labels.device)
            self.loss = torch.zeros((), dtype=torch.float64, device=labels.device)
        self.confusion += _count(labels, logits.argmax(-1), self.classes)
        self.loss += F.cross_entropy(logits, labels, reduction="sum")

    def metrics(self, more: Sequence[str] = ()) -> dict[str, float]:
        if self.confusion is None:
            raise ValueError("there is nothing to evaluate: there were no batches")
        counts = self.confusion.cpu()
        rows = counts.sum().item()
        return {
            "accuracy": counts.diagonal().sum().item() / rows,
            "macro_f1": macro_f1(counts),
            "loss": self.loss.item() / rows,
            **{name: METRICS[name](counts) for name in more},
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
