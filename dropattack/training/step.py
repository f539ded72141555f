"""One optimizer step: micro-batches, the regularizer's passes, the guarded update, and running sums per epoch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from dropattack.batch import Batch
from dropattack.regularizers import Output, Regularizer
from dropattack.training import optim, seeding
from dropattack.training.mixing import Mixup


class Stepper:
    """A model with its optimizer. `step` never synchronises with the device.

    Attributes:
        raw: the model as given, whose parameter names checkpoints use.
        model: the same model wrapped for DDP and mixed precision, used for all calls.
        mixup: draws which rows are mixed; None if no rows are. Its seed follows from torch's.
    """

    def __init__(
        self, model: nn.Module, reg: Regularizer, accelerator: Accelerator, *, optimizer: optim.Kind,
        learning_rate: float, weight_decay: float = 0.0, clip_norm: float | None = None, compile: bool = False,
        label_smoothing: float = 0.0, mixup: float = 0.0,
    ) -> None:  # fmt: skip
        if accelerator.device.type == "cuda" and accelerator.mixed_precision != "no":
            model.to(memory_format=torch.channels_last)  # affects only convolutions; the layout of tensor cores
        self.raw, self.model = model, accelerator.prepare_model(model)
        if compile:
            model.compile()
        self.reg, self.accelerator, self.clip_norm = reg, accelerator, clip_norm
        self.optimizer = optim.make_optimizer(model, optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
        self.reg.follow(self.optimizer)
        self.label_smoothing = label_smoothing
        self.mixup = Mixup(mixup, seeding.derive(torch.initial_seed(), "mixup")) if mixup else None
        # Left on the device by the steps since `_read`: logits, labels, clean loss and objective per micro-batch, and
        # whether each step was skipped. Summing immediately took 3 % of a small model's step; reading them together is
        # negligible.
        self._unread: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._unread_skips: list[Tensor] = []
        # This epoch: rows, hits, clean loss and objective (both multiplied by rows).
        self._sums = [0.0] * 4
        # All epochs: skipped steps, current run of skipped steps, longest run.
        self._skips = [0.0] * 3

    def step(self, micro_batches: list[Batch], learning_rate: float) -> None:
        """Do one update. Micro-batches are weighted by their rows, so any split of a batch gives the same gradient."""
        optim.set_rate(self.optimizer, learning_rate)
        rows = self._rows_of_a_process(micro_batches)
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                self._add_gradient(batch, share=len(batch) / rows)
        self._unread_skips.append(
            optim.guarded_step(self.optimizer, clip_norm=self.clip_norm, scaler=self.accelerator.scaler)
        )

    def _rows_of_a_process(self, micro_batches: list[Batch]) -> int | Tensor:
        """Return the mean number of rows per process, since DDP averages the gradients of unequal parts equally."""
        rows = sum(len(batch) for batch in micro_batches)
        if self.accelerator.num_processes == 1:
            return rows
        return self.accelerator.reduce(torch.tensor(float(rows), device=self.accelerator.device), "mean")

    def _add_gradient(self, batch: Batch, share: float | Tensor) -> None:
        labels = batch.labels
        pairs = None if self.mixup is None else self.mixup.draw(batch)  # the same in all passes of a step
        inputs = batch.inputs if pairs is None else pairs.inputs(batch.inputs)

        def forward() -> Output:
            logits = self.model(**inputs)

            def loss(labels: Tensor) -> Tensor:
                return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

            return Output(loss(labels) if pairs is None else pairs.loss(loss, labels), logits)

        losses = self.reg.backward(
            forward,
            # Not in `forward`: an objective need not be linear in the loss (R-Drop's KL is not).
            backward=lambda loss: self.accelerator.backward(loss * share),
            no_sync=lambda: self.accelerator.no_sync(self.model),
        )
        assert losses.logits is not None
        compared = labels if pairs is None else pairs.labels(labels)
        self._unread.append((losses.logits, compared, losses.clean, losses.total))

    # Operations that synchronise with the device. Call them regularly, or unread values pile up.

    def _read(self) -> None:
        """Add the unread values one by one, so that the sums do not depend on when they are read."""
        if self._unread:
            logits, labels, clean, total = zip(*self._unread, strict=True)
            rows = torch.tensor([len(x) for x in labels])
            self._sums[0] += int(rows.sum())
            self._sums[1] += int((torch.cat(logits).argmax(-1) == torch.cat(labels)).sum())
            for place, losses in ((2, clean), (3, total)):
                for loss in (torch.stack(losses).cpu() * rows).tolist():
                    self._sums[place] += loss
            self._unread.clear()
        if self._unread_skips:
            for skipped in torch.stack(self._unread_skips).tolist():
                all_, now, most = self._skips
                now = (now + 1) * skipped
                self._skips = [all_ + skipped, now, max(most, now)]
            self._unread_skips.clear()

    def running(self, reduce: bool = False) -> dict[str, float]:
        """Return mean clean loss, objective and accuracy of the epoch so far; over all processes with `reduce`."""
        self._read()
        sums = self._sums
        if reduce:
            here = torch.tensor(sums, dtype=torch.float64, device=self.accelerator.device)
            sums = self.accelerator.reduce(here, "sum").tolist()
        rows, hits, loss, objective = sums
        return {"loss": loss / rows, "objective": objective / rows, "accuracy": hits / rows}

    def sums(self) -> Tensor:
        """Return this process's sums of the epoch so far: rows, hits, clean loss and objective; float64 [4]."""
        self._read()
        return torch.tensor(self._sums, dtype=torch.float64)

    def start_epoch(self) -> None:
        self._read()
        self._sums = [0.0] * 4

    def skipped(self) -> int:
        """Return the number of steps without a finite gradient so far."""
        self._read()
        return int(self._skips[0])

    def skipped_in_a_row(self) -> int:
        """Return the longest run of such steps."""
        self._read()
        return int(self._skips[2])

    def state_dict(self) -> dict[str, Any]:
        sums, scaler = self.sums(), self.accelerator.scaler
        return {
            "model": dict(self.raw.state_dict()), "optimizer": self.optimizer.state_dict(),
            "sums": sums, "skips": torch.tensor(self._skips),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        optim.lay_out_as_weights(self.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._sums, self._skips = state["sums"].tolist(), state["skips"].tolist()
        self._unread.clear()
        self._unread_skips.clear()
