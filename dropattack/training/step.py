"""One optimizer step: micro-batches, a regularizer's passes, the guarded update, and running sums on the device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from dropattack.training import optim
from dropattack.training.state import Batch


class Output(NamedTuple):
    """What a forward gives a regularizer."""

    loss: Tensor
    logits: Tensor


class Stepper:
    """A model with its optimizer. Nothing in `step` waits for the device.

    Attributes:
        raw: the model as it was given: the names in checkpoints.
        model: the same, wrapped for DDP and mixed precision: what is called.
    """

    def __init__(
        self, model: nn.Module, reg: Any, accelerator: Accelerator, *, optimizer: Literal["adam", "adamw", "sgd"],
        learning_rate: float, weight_decay: float = 0.0, clip_norm: float | None = None, compile: bool = False,
    ) -> None:  # fmt: skip
        self.raw, self.model = model, accelerator.prepare_model(model)
        if compile:
            model.compile()
        self.reg, self.accelerator, self.clip_norm = reg, accelerator, clip_norm
        self.optimizer = optim.make_optimizer(model, optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
        # Of this epoch: rows, hits, clean loss and objective (both times rows).
        self._sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)
        # Of all epochs: steps skipped, skipped in a row now, most in a row.
        self._skips = torch.zeros(3, device=accelerator.device)

    def step(self, micro_batches: list[Batch], learning_rate: float) -> None:
        """One update. Micro-batches weigh as their rows do, so any split of a batch gives the same gradient."""
        optim.set_rate(self.optimizer, learning_rate)
        rows = sum(len(batch["labels"]) for batch in micro_batches)
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                self._add_gradient(batch, share=len(batch["labels"]) / rows)
        skipped = optim.guarded_step(self.optimizer, clip_norm=self.clip_norm, scaler=self.accelerator.scaler)
        self._skips[0] += skipped
        self._skips[1] = (self._skips[1] + 1) * skipped
        self._skips[2] = torch.maximum(self._skips[2], self._skips[1])

    def _add_gradient(self, batch: Batch, share: float) -> None:
        labels = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        clean: list[Tensor] = []

        def forward() -> Output:
            logits = self.model(**inputs)
            if not clean:  # the first pass is the clean one
                clean.append(logits.detach())
            return Output(F.cross_entropy(logits, labels), logits)

        losses = self.reg.backward(
            forward,
            # Here and not in `forward`: a method's objective need not be linear in the loss (R-Drop's KL is not).
            backward=lambda loss: self.accelerator.backward(loss * share),
            no_sync=lambda: self.accelerator.no_sync(self.model),
        )
        hits, rows = (clean[0].argmax(-1) == labels).sum().double(), len(labels)
        self._sums += torch.stack([torch.full_like(hits, rows), hits, losses.clean * rows, losses.total * rows])

    # What waits for the device.

    def running(self, reduce: bool = False) -> dict[str, float]:
        """Mean clean loss, objective and accuracy of the epoch so far; of all processes with `reduce`."""
        sums = self.accelerator.reduce(self._sums, "sum") if reduce else self._sums
        rows, hits, loss, objective = sums.tolist()
        return {"loss": loss / rows, "objective": objective / rows, "accuracy": hits / rows}

    def start_epoch(self) -> None:
        self._sums.zero_()

    def skipped(self) -> int:
        """Steps without a finite gradient so far."""
        return int(self._skips[0])

    def skipped_in_a_row(self) -> int:
        """The most of them in a row."""
        return int(self._skips[2])

    def state_dict(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "model": dict(self.raw.state_dict()), "optimizer": self.optimizer.state_dict(), "sums": self._sums,
            "skips": self._skips, "scaler": scaler.state_dict() if scaler is not None else None,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._sums.copy_(state["sums"])
        self._skips.copy_(state["skips"])
