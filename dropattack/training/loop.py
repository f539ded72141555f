"""The training loop: any model, regularizer and precision, one process or several, resumable after a kill."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from dropattack.batch import Batch
from dropattack.errors import DivergedError, Interrupted
from dropattack.files import disk_problem
from dropattack.regularizers import Regularizer
from dropattack.training import averaging, elastic, optim, seeding
from dropattack.training.checkpoint import Checkpoints, MisfitError, Snapshot, Tensors, parameters_only
from dropattack.training.evaluate import evaluate
from dropattack.training.memory import PeakMemory
from dropattack.training.progress import Progress, Style
from dropattack.training.signals import Signals
from dropattack.training.state import LoaderLike, TrainResult, TrainState
from dropattack.training.step import Stepper

LOOK_EVERY = 50  # steps between checks that synchronise with the device
FIRST_SAVE = 0.1, 1.6e-7  # assumed cost of the first checkpoint: seconds, and seconds per parameter (16 bytes)


def train(
    model: nn.Module, reg: Regularizer, train_loader: LoaderLike, validation_loader: LoaderLike, *,
    resume: Snapshot | None = None, **options: Any,
) -> TrainResult:  # fmt: skip
    """Train `model` with `reg`, from scratch or from a checkpoint; `options` are the fields of `Trainer`.

    The model keeps the weights of the last step.

    Returns:
        The history, and the weights and validation metrics of the best epoch.

    Raises:
        Interrupted: a signal arrived; the state was saved first.
        ValueError: an unknown or invalid option.
        MisfitError: a checkpoint of another run, or of a number of processes with other batches.
    """
    trainer = Trainer(model, reg, train_loader, validation_loader, **options)
    if resume is not None:
        try:
            trainer.restore(resume)
        except MisfitError:
            raise
        except Exception as error:  # other names, shapes or methods raise many kinds of errors
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(" :")
            raise MisfitError(f"the checkpoint of step {resume.step} belongs to another run ({reason})") from error
        if trainer.accelerator.is_main_process:
            print(trainer.resumed, file=sys.stderr)
    return trainer.run()


@dataclass
class Trainer:
    """One training run.

    Attributes:
        model: called with a batch's inputs as keyword arguments; returns logits [B, classes].
        reg: a regularizer of `model`; its `backward` computes the gradients of a step.
        accelerator: device and precision: see `make_accelerator`.
        warmup: fraction of all steps; see `optim.rate_factor`.
        clip_norm: maximum 2-norm of the gradients; None does not clip.
        accumulation: micro-batches per optimizer step.
        max_steps: stop after this many optimizer steps, in any epoch.
        patience: stop after this many epochs without a better validation accuracy.
        max_skipped: stop as diverged after this many consecutive steps with a non-finite gradient. Such steps leave the
            weights unchanged.
        checkpoints: where to save the state; None saves nothing.
        every_epochs, every_minutes: how often to save; 0 is never. A signal always saves.
        share: maximum share of the time spent saving: a save that is due waits until enough time has passed; 1 sets no
            limit.
        on_epoch: called with each epoch's entry of the history.
        extra: JSON-serialisable metadata stored in each checkpoint.
        metrics: further metrics of each evaluation: see `evaluate`.
        memory: the memory measurement; None starts one here.
        label_smoothing: of the training loss: see `torch.nn.functional.cross_entropy`. Evaluations do not smooth.
        mixup: α of the Beta distribution of the mixtures of two images: see `Mixup`; 0 mixes nothing.
        average: what is evaluated, kept as best weights and tested: the weights of the last step (`none`), or their
            average, from the point where averaging has begun: see `Average`.
        average_decay: of EMA.
        average_start: fraction of the steps after which SWA averages.
    """

    model: nn.Module
    reg: Regularizer
    train_loader: LoaderLike
    validation_loader: LoaderLike
    _: KW_ONLY
    accelerator: Accelerator
    classes: int
    epochs: int
    learning_rate: float
    optimizer: optim.Kind = "adam"
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
    share: float = 1.0
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None
    extra: dict[str, Any] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    memory: PeakMemory | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    average: averaging.Kind = "none"
    average_decay: float = 0.999
    average_start: float = 0.75

    def __post_init__(self) -> None:
        self.stepper = Stepper(
            self.model, self.reg, self.accelerator, optimizer=self.optimizer, learning_rate=self.learning_rate,
            weight_decay=self.weight_decay, clip_norm=self.clip_norm, compile=self.compile,
            label_smoothing=self.label_smoothing, mixup=self.mixup,
        )  # fmt: skip
        steps = self.epochs * math.ceil(len(self.train_loader) / self.accumulation)
        self.steps = min(steps, self.max_steps or steps)
        self.averaged = None if self.average == "none" else averaging.Average(
            self.model, self.average, decay=self.average_decay, start=self.average_start, steps=self.steps
        )  # fmt: skip
        self.state = TrainState()
        self.resumed = ""  # a sentence by `restore`
        self.best_weights: Tensors = {}
        self.signals = Signals()
        self._memory = self.memory or PeakMemory(self.accelerator.device)
        self._alone = self.accelerator.num_processes == 1
        self._lap = self._saved = time.monotonic()
        self._cpu_lap = time.process_time()
        self._cost = FIRST_SAVE[0] + FIRST_SAVE[1] * sum(p.numel() for p in self.model.parameters())

    # Main loop.

    def run(self) -> TrainResult:
        error = None
        style: Style = self.progress if self.accelerator.is_main_process else "none"
        self.display = Progress(style, steps=self.steps, epochs=self.epochs, passes=float(self.reg.passes))
        try:
            with self.signals:
                self._lap = self._saved = time.monotonic()
                self._cpu_lap = time.process_time()
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
            s.train_seconds / s.step if s.step else None, s.train_cpu_seconds / s.step if s.step else None,
            s.peak_memory_mb, s.topology,
        )  # fmt: skip

    def _done(self) -> bool:
        if self.state.batch:  # interrupted between the epoch's last step and its evaluation
            return False
        out_of_patience = self.patience is not None and self.state.stale >= self.patience
        return self.state.epoch >= self.epochs or self.state.step >= self.steps or out_of_patience

    def _train_epoch(self) -> None:
        self.stepper.model.train()
        for micro_batches in _grouped(self.train_loader.batches(self.state.epoch, self.state.batch), self.accumulation):
            if self.state.step >= self.steps:  # the run was interrupted in the evaluation after max_steps
                break
            self.stepper.step(micro_batches, self._rate(self.state.step))
            self.state.step += 1
            if self.averaged is not None:
                self.averaged.update(self.state.step)
            self.state.batch += len(micro_batches)
            self.display.step(self.state.step, self.state.epoch, self.stepper.running)
            if self.state.step % LOOK_EVERY == 0:
                self._check_divergence()
            self._check_signals()
            if self.every_minutes and (self._alone or self.state.step % LOOK_EVERY == 0):
                self._save_if_due(60 * self.every_minutes)
        self._check_divergence()
        self._count_time(training=True)

    def _rate(self, step: int) -> float:
        factor = optim.rate_factor(step, steps=self.steps, schedule=self.schedule, warmup=self.warmup)
        return self.learning_rate * factor

    def _end_epoch(self) -> None:
        """Evaluate, keep the weights if they are the best so far (ties keep the earliest), and save."""
        s = self.state
        with self._evaluated_weights():
            metrics = evaluate(
                self.stepper.model,
                self.validation_loader.batches(),
                classes=self.classes,
                check=self._check_signals_alone,
                metrics=self.metrics,
            )
            metrics = broadcast_object_list([metrics])[0]  # BatchNorm's statistics differ between processes
            if not math.isfinite(metrics["loss"]):
                raise DivergedError(f"the validation loss is not finite after epoch {s.epoch + 1}")
            better = s.best is None or metrics["accuracy"] > s.best["accuracy"]
            if better:
                self.best_weights = parameters_only(self.model.state_dict())
        train = self.stepper.running(reduce=True)
        s.epoch, s.batch = s.epoch + 1, 0
        s.stale = 0 if better else s.stale + 1
        if better:
            s.best = {**metrics, "epoch": s.epoch}
        self._count_time(training=False)
        entry = {
            "epoch": s.epoch, "step": s.step, "train": train, "validation": metrics,
            "learning_rate": self._rate(s.step - 1), "skipped_steps": self.stepper.skipped(),
            "seconds": s.epoch_seconds,
        }  # fmt: skip
        s.history.append(entry)
        s.epoch_seconds = 0.0
        self.stepper.start_epoch()
        self.display.epoch(entry, better)
        self.on_epoch(entry)
        self._skip_time()
        if self.every_epochs and (s.epoch % self.every_epochs == 0 or self._done()):
            self._save_if_due()
        self._check_signals()

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the weights to evaluate."""
        if self.averaged is None:
            return nullcontext()
        return self.averaged.applied(self.stepper.model, self._training_batches())

    def _training_batches(self) -> Iterator[Batch]:
        for batch in self.train_loader.batches(self.state.epoch):
            self._check_signals_alone()
            yield batch

    # Operations that synchronise with the device; called rarely.

    def _check_divergence(self) -> None:
        if self.stepper.skipped_in_a_row() >= self.max_skipped:
            s = self.state
            raise DivergedError(
                f"no finite gradient in {self.max_skipped} steps in a row, seen at step {s.step} (epoch {s.epoch + 1})"
            )

    def _check_signals(self) -> None:
        """Raise Interrupted between two steps, after the same step in all processes."""
        if self._alone:
            return self.signals.check()
        if self.state.step % LOOK_EVERY and self.state.batch:
            return None
        number = torch.tensor([self.signals.number or 0], device=self.accelerator.device)
        agreed = int(self.accelerator.gather(number).max())
        if agreed:  # not `self.signals`, which may have changed since: one process alone would stop
            raise Interrupted(agreed)
        return None

    def _check_signals_alone(self) -> None:
        """Raise Interrupted within an evaluation, if there is only one process."""
        if self._alone and self.signals.number is not None:
            self._count_time(training=False)
            self.signals.check()

    def _count_time(self, *, training: bool) -> None:
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)
        now, cpu, s = time.monotonic(), time.process_time(), self.state
        lap, self._lap = now - self._lap, now
        cpu_lap, self._cpu_lap = cpu - self._cpu_lap, cpu
        s.seconds += lap
        s.epoch_seconds += lap
        if training:
            s.train_seconds += lap
            s.train_cpu_seconds += cpu_lap
        s.peak_memory_mb = max(s.peak_memory_mb, self._memory.mb())

    def _skip_time(self) -> None:
        """Restart the clocks: time spent in `on_epoch` (probes, a dashboard) does not count."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)
        self._lap, self._cpu_lap = time.monotonic(), time.process_time()

    # Checkpoints.

    def _save_if_due(self, seconds: float = 0.0) -> None:
        """Save if the last save is `seconds` old, and old enough for `share`; the first process decides for all."""
        enough = self._cost / self.share if self.share < 1 else 0.0
        due = time.monotonic() - self._saved >= max(seconds, enough)
        if due if self._alone else broadcast_object_list([due])[0]:
            self._save()

    def _save(self) -> None:
        """Save between two steps. A full disk is reported at each attempt but does not stop the training."""
        if self.checkpoints is None:
            return
        start = time.monotonic()
        self._count_time(training=self.state.batch > 0)
        mixup = {} if self.stepper.mixup is None else {"mixup": self.stepper.mixup.state_dict()}
        mine = {"generators": seeding.generators(), "reg": self.reg.state_dict(), "sums": self.stepper.sums(), **mixup}
        own = gather_object([mine])
        if self.accelerator.is_main_process:
            state = {
                "progress": asdict(self.state), "extra": self.extra, "processes": own,
                "batches": len(self.train_loader), **self.stepper.state_dict(),
            }  # fmt: skip
            if self.averaged is not None:
                state["average"] = self.averaged.state_dict()
            snapshot = Snapshot(self.state.step, state, self.best_weights)
            try:
                self.checkpoints.save(snapshot, best_version=self.state.best and self.state.best["epoch"])
            except OSError as error:
                message = disk_problem(self.checkpoints.folder, error)
                print(f"no checkpoint: {message} (the training goes on)", file=sys.stderr)
        self.accelerator.wait_for_everyone()
        self._lap = self._saved = time.monotonic()  # do not count the time of writing
        self._cpu_lap = time.process_time()
        self._cost = self._saved - start

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the state of `snapshot`, saved by any number of processes.

        Raises:
            MisfitError: this number of processes divides an epoch into other batches.
        """
        state, saved = snapshot.state, snapshot.state["processes"]
        now, before, rank = self.accelerator.num_processes, len(saved), self.accelerator.process_index
        self.state = TrainState(**state["progress"])
        if before == now:
            own = saved[rank]
            self.resumed = f"going on from step {snapshot.step}"
        else:
            if problem := elastic.misfit(before, now, state.get("batches"), len(self.train_loader)):
                raise MisfitError(problem)
            own = elastic.share(
                saved, rank=rank, world=now, step=snapshot.step, seed=torch.initial_seed(),
                device=self.accelerator.device,
            )  # fmt: skip
            self.state.topology = [*(self.state.topology or [[0, before]]), [snapshot.step, now]]
            self.resumed = elastic.sentence(snapshot.step, before, now)
        self.best_weights = snapshot.best
        self.stepper.load_state_dict({**state, "sums": own.get("sums", state["sums"])})
        self.reg.load_state_dict(own["reg"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["average"])
        if self.stepper.mixup is not None:
            self.stepper.mixup.load_state_dict(own["mixup"])
        seeding.set_generators(own["generators"])


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := list(itertools.islice(batches, size)):
        yield group
