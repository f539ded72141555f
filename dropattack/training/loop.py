"""The one training loop: any model, any regularizer, any precision, one process or several, killed and continued."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from dropattack.record import disk_problem
from dropattack.training import optim, seeding
from dropattack.training.checkpoint import Checkpoints, Snapshot, Tensors, parameters_only
from dropattack.training.device import peak_memory_mb
from dropattack.training.evaluate import evaluate
from dropattack.training.progress import Progress, Style
from dropattack.training.signals import Interrupted, Signals
from dropattack.training.state import Batch, Loader, TrainResult, TrainState

LOOK_EVERY = 50  # steps between two looks at what waits for the device


class DivergedError(Exception):
    """No finite gradient for too many steps in a row."""


class Output(NamedTuple):
    """What a forward gives a regularizer."""

    loss: Tensor
    logits: Tensor


def train(
    model: nn.Module, reg: Any, train_loader: Loader, validation_loader: Loader, *, resume: Snapshot | None = None,
    **options: Any,
) -> TrainResult:  # fmt: skip
    """Train `model` with `reg`, from the beginning or from a checkpoint; `options` are the fields of `Trainer`.

    The model is left with the weights of the last step; those of the best epoch are in the result.

    Raises:
        Interrupted: a signal came; the state was saved first.
        ValueError: an option that does not exist or does not fit, or a checkpoint of another kind of run.
    """
    trainer = Trainer(model, reg, train_loader, validation_loader, **options)
    if resume is not None:
        trainer.restore(resume)
    return trainer.run()


@dataclass
class Trainer:
    """One training.

    Attributes:
        model: called with a batch's tensors by name, less `labels`; returns logits [B, classes].
        reg: a regularizer made over `model`; its `backward` makes the gradients of a step.
        accelerator: where to compute, in what precision: see `make_accelerator`.
        warmup: fraction of all steps; see `optim.rate_factor`.
        clip_norm: the 2-norm that gradients are clipped to; None does not clip.
        accumulation: micro-batches an optimizer step.
        max_steps: end after so many optimizer steps, in whatever epoch.
        patience: end after so many epochs without a better validation accuracy.
        max_skipped: end as diverged after so many steps in a row whose gradient is not finite. Each of them leaves the
            weights as they are.
        checkpoints: where the state is saved; None saves nothing.
        every_epochs, every_minutes: when; 0 is never. A signal saves anyway.
        on_epoch: called with each epoch's entry of the history.
        extra: JSON values that go into each checkpoint, for the caller to find there.
    """

    model: nn.Module
    reg: Any
    train_loader: Loader
    validation_loader: Loader
    _: KW_ONLY
    accelerator: Accelerator
    classes: int
    epochs: int
    learning_rate: float
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: optim.Schedule = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None
    accumulation: int = 1
    max_steps: int | None = None
    patience: int | None = None
    max_skipped: int = 10
    compile: bool = False
    progress: Style = "none"
    checkpoints: Checkpoints | None = None
    every_epochs: int = 1
    every_minutes: float = 0.0
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = self.accelerator.device
        self.raw = self.model  # without the wrappers of DDP and mixed precision: the names in checkpoints
        self.model = self.accelerator.prepare_model(self.raw)
        if self.compile:
            self.raw.compile()
        self.stepper = optim.make_optimizer(
            self.raw, self.optimizer, learning_rate=self.learning_rate, weight_decay=self.weight_decay
        )
        steps = self.epochs * math.ceil(len(self.train_loader) / self.accumulation)
        self.steps = min(steps, self.max_steps or steps)
        self.state = TrainState()
        self.best_weights: Tensors = {}
        self.sums = torch.zeros(
            4, dtype=torch.float64, device=device
        )  # rows, hits, clean loss, objective: of this epoch
        self.skips = torch.zeros(3, device=device)  # steps skipped: in all, in a row now, most in a row
        self.signals = Signals()
        self._lap = self._saved = time.monotonic()

    # The way of a run.

    def run(self) -> TrainResult:
        error = None
        style: Style = self.progress if self.accelerator.is_main_process else "none"
        self.display = Progress(style, steps=self.steps, epochs=self.epochs, passes=float(self.reg.passes))
        try:
            with self.signals:
                self._lap = self._saved = time.monotonic()
                while not self._done():
                    self._train_epoch()
                    self._end_epoch()
        except Interrupted:
            self._save()
            raise
        except DivergedError as problem:
            error = str(problem)
        finally:
            self.display.close()
        s = self.state
        return TrainResult(
            "diverged" if error else "finished", error, s.best, self.best_weights, s.history, s.step, s.seconds,
            s.train_seconds / s.step if s.step else None, s.peak_memory_mb,
        )  # fmt: skip

    def _done(self) -> bool:
        if self.state.batch:  # stopped between the last step and its epoch's evaluation
            return False
        out_of_patience = self.patience is not None and self.state.stale >= self.patience
        return self.state.epoch >= self.epochs or self.state.step >= self.steps or out_of_patience

    def _train_epoch(self) -> None:
        self.model.train()
        for micro_batches in _grouped(self.train_loader.batches(self.state.epoch, self.state.batch), self.accumulation):
            if self.state.step >= self.steps:  # max_steps, reached before a run was interrupted in its evaluation
                break
            self._step(micro_batches)
            self.state.step += 1
            self.state.batch += len(micro_batches)
            self.display.step(self.state.step, self.state.epoch, self._running)
            if self.state.step % LOOK_EVERY == 0:
                self._check_divergence()
            self._check_signals()
            if self.every_minutes and time.monotonic() - self._saved > 60 * self.every_minutes:
                self._save()
        self._check_divergence()
        self._count_time(training=True)

    def _rate(self, step: int) -> float:
        factor = optim.rate_factor(step, steps=self.steps, schedule=self.schedule, warmup=self.warmup)
        return self.learning_rate * factor

    def _step(self, micro_batches: list[Batch]) -> None:
        """One optimizer step: micro-batches weigh as their rows do, so any split of a batch gives the same gradient."""
        optim.set_rate(self.stepper, self._rate(self.state.step))
        rows = sum(len(batch["labels"]) for batch in micro_batches)
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                self._micro_step(batch, share=len(batch["labels"]) / rows)
        skipped = optim.guarded_step(self.stepper, clip_norm=self.clip_norm, scaler=self.accelerator.scaler)
        self.skips[0] += skipped
        self.skips[1] = (self.skips[1] + 1) * skipped
        torch.maximum(self.skips[2], self.skips[1], out=self.skips[2])

    def _micro_step(self, batch: Batch, share: float) -> None:
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
        hits = (clean[0].argmax(-1) == labels).sum()
        n = len(labels)
        self.sums += torch.stack([hits.new_full((), n).double(), hits.double(), losses.clean * n, losses.total * n])

    def _end_epoch(self) -> None:
        """Evaluate, keep the weights if they are the best so far (the earliest, at a tie), and save."""
        s = self.state
        metrics = evaluate(
            self.model, self.validation_loader.batches(), classes=self.classes, check=self._check_signals_alone
        )
        metrics = broadcast_object_list([metrics])[0]  # BatchNorm's statistics differ between processes
        train = self._running(reduce=True)
        s.epoch, s.batch = s.epoch + 1, 0
        better = s.best is None or metrics["accuracy"] > s.best["accuracy"]
        s.stale = 0 if better else s.stale + 1
        if better:
            s.best = {**metrics, "epoch": s.epoch}
            self.best_weights = parameters_only(self.raw.state_dict())
        self._count_time(training=False)
        entry = {
            "epoch": s.epoch, "step": s.step, "train": train, "validation": metrics,
            "learning_rate": self._rate(s.step - 1), "skipped_steps": int(self.skips[0]), "seconds": s.epoch_seconds,
        }  # fmt: skip
        s.history.append(entry)
        s.epoch_seconds = 0.0
        self.sums.zero_()
        self.display.epoch(entry, better)
        self.on_epoch(entry)
        if self.every_epochs and (s.epoch % self.every_epochs == 0 or self._done()):
            self._save()
        self._check_signals()

    # What waits for the device, and so is done seldom.

    def _running(self, reduce: bool = False) -> dict[str, float]:
        sums = self.accelerator.reduce(self.sums, "sum") if reduce else self.sums
        rows, hits, loss, objective = sums.tolist()
        return {"loss": loss / rows, "objective": objective / rows, "accuracy": hits / rows}

    def _check_divergence(self) -> None:
        if self.skips[2].item() >= self.max_skipped:
            s = self.state
            raise DivergedError(
                f"no finite gradient in {self.max_skipped} steps in a row, seen at step {s.step} (epoch {s.epoch + 1})"
            )

    def _check_signals(self) -> None:
        """Raise Interrupted between two steps; all processes of a run at the same one."""
        if self.accelerator.num_processes == 1:
            return self.signals.check()
        if self.state.step % LOOK_EVERY and self.state.batch:
            return None
        number = torch.tensor([self.signals.number or 0], device=self.accelerator.device)
        self.signals.number = int(self.accelerator.gather(number).max()) or None
        return self.signals.check()

    def _check_signals_alone(self) -> None:
        """Within an evaluation: only where no other process has to be asked."""
        if self.accelerator.num_processes == 1 and self.signals.number is not None:
            self._count_time(training=False)
            self.signals.check()

    def _count_time(self, *, training: bool) -> None:
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)
        now, s = time.monotonic(), self.state
        lap, self._lap = now - self._lap, now
        s.seconds += lap
        s.epoch_seconds += lap
        if training:
            s.train_seconds += lap
        s.peak_memory_mb = max(s.peak_memory_mb, peak_memory_mb(self.accelerator.device))

    # Checkpoints.

    def _save(self) -> None:
        """Save at a step's boundary. A full disk is said once an attempt and does not end the training."""
        if self.checkpoints is None:
            return
        self._count_time(training=self.state.batch > 0)
        own = gather_object([{"generators": seeding.generators(), "reg": self.reg.state_dict()}])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "progress": asdict(self.state), "extra": self.extra, "processes": own, "sums": self.sums,
                "skips": self.skips, "model": dict(self.raw.state_dict()), "optimizer": self.stepper.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
            }  # fmt: skip
            snapshot = Snapshot(self.state.step, state, self.best_weights)
            try:
                self.checkpoints.save(snapshot, best_version=self.state.best and self.state.best["epoch"])
            except OSError as error:
                message = disk_problem(self.checkpoints.folder, error)
                print(f"no checkpoint: {message} (the training goes on)", file=sys.stderr)
        self.accelerator.wait_for_everyone()
        self._lap = self._saved = time.monotonic()  # writing is not training

    def restore(self, snapshot: Snapshot) -> None:
        """Put everything back as it was when `snapshot` was made.

        Raises:
            ValueError: it was made by another number of processes.
        """
        state = snapshot.state
        processes = self.accelerator.num_processes
        if len(state["processes"]) != processes:
            raise ValueError(
                f"the checkpoint was made by {len(state['processes'])} processes and cannot be continued by {processes}"
            )
        self.state = TrainState(**state["progress"])
        self.best_weights = snapshot.best
        self.raw.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.sums.copy_(state["sums"])
        self.skips.copy_(state["skips"])
        own = state["processes"][self.accelerator.process_index]
        self.reg.load_state_dict(own["reg"])
        seeding.set_generators(own["generators"])


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := list(itertools.islice(batches, size)):
        yield group
