"""The steps to measure: plain, with each regularizer, and as in the authors' notebooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.authors_step import bernoulli, notebook_step
from benchmarks.workloads import Setup
from dropattack import regularizers
from dropattack.regularizers import AWP, FGM, PGD, RAT, SAM, Compose, DropAttack, FreeLB, Identity, RDrop
from dropattack.regularizers.base import Regularizer
from dropattack.training.memory import keep_freed_memory

EPSILON = 5.0  # the authors'
Step = Callable[[int], None]
"""One whole step on the n-th batch (cyclic), including the optimizer step and zeroing the gradients."""


def _found(method: type[Regularizer], model: nn.Module, setup: Setup) -> Regularizer:
    takes = inspect.signature(method).parameters.get("targets")
    needs_one = takes is not None and takes.default in (None, inspect.Parameter.empty) and method is not AWP
    return method(model, setup.targets[:1]) if needs_one else method(model)


REGULARIZERS: dict[str, Callable[[nn.Module, Setup], Regularizer]] = {
    "plain": lambda model, _: Identity(model),
    "fgm": lambda model, setup: FGM(model, setup.targets[:1]),
    "pgd": lambda model, setup: PGD(model, setup.targets[:1]),
    "freelb": lambda model, setup: FreeLB(model, setup.targets[:1]),
    "dropattack": lambda model, setup: _dropattack(model, setup),
    "dropattack-joint": lambda model, setup: _dropattack(model, setup, grouping="joint"),
    "rdrop": lambda model, _: RDrop(model),
    "sam": lambda model, _: SAM(model),
}
# The others, by the names of their classes: on the first target where they take one, else on their own.
for _name, _class in {name: getattr(regularizers, name) for name in regularizers.__all__}.items():
    if isinstance(_class, type) and issubclass(_class, Regularizer) and _class not in (Regularizer, Compose, Identity):
        REGULARIZERS.setdefault(_name.lower(), partial(_found, _class))
AUTHORS = ("authors-plain", "authors")
METHODS = (*REGULARIZERS, *AUTHORS)


def _dropattack(model: nn.Module, setup: Setup, **options: Any) -> DropAttack:
    return DropAttack(model, setup.targets, EPSILON, setup.workload.p, setup.workload.steps, **options)


class Steps:
    """All steps of one workload. Ours share one model and a fused optimizer; the authors' share another, default one.

    A compiled model keeps the hooks of its first call, so with `compile` each of our steps has its own model.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._sides: dict[str, _Ours | _Theirs] = {}

    def make(self, method: str) -> tuple[Step, float]:
        """Return the step, and its number of forward-backward passes.

        The step must be made again for each timing, because an existing regularizer leaves hooks in the model; they do
        nothing in another regularizer's step but are called.
        """
        return self.side(method).make(method)

    def flops(self, method: str) -> int:
        """Return the floating-point operations in the products and convolutions of a step (none for a fused RNN)."""
        step, _ = self.make(method)
        with FlopCounterMode(display=False) as counter:
            step(0)
        return int(counter.get_total_flops())

    def side(self, method: str) -> _Ours | _Theirs:
        authors = method in AUTHORS
        key = "authors" if authors else method if self.setup.compile else "ours"
        if key not in self._sides:
            self._sides[key] = (_Theirs if authors else _Ours)(self.setup)
        return self._sides[key]


class _Ours:
    """Our steps: bucketed batches, including padding on a CPU."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.batches = setup, setup.batches(bucket=True)
        self.model = setup.model()
        if setup.device.type == "cuda" and setup.precision != "fp32":
            self.model.to(memory_format=torch.channels_last)  # as in training
        self.optimizer = setup.optimizer(self.model, fused=True)
        self._compiled: tuple[Step, float] | None = None

    def make(self, method: str) -> tuple[Step, float]:
        if self.setup.compile is None:
            return self._make(method)
        if self._compiled is None:
            torch._dynamo.config.skip_nnmodule_hook_guards = False
            self._compiled = self._make(method)  # regularizer first, so that the compiled model includes its hooks
            self.model.compile(mode=self.setup.compile)
        return self._compiled

    def _make(self, method: str) -> tuple[Step, float]:
        regularizer = REGULARIZERS[method](self.model, self.setup)
        if isinstance(regularizer, RDrop | RAT):  # the networks have no dropout, which does not change the cost
            regularizer._agreement._checked_in_mode = self.model.training
        regularizer.follow(self.optimizer)
        autocast = partial(torch.autocast, self.setup.device.type, torch.bfloat16, self.setup.precision == "bf16")

        def step(n: int) -> None:
            batch = self.batches[n % len(self.batches)]
            if self.setup.compile:
                torch.compiler.cudagraph_mark_step_begin()

            def forward() -> SimpleNamespace:
                with autocast():
                    logits = self.model(**batch.inputs)
                return SimpleNamespace(loss=F.cross_entropy(logits.float(), batch.labels), logits=logits)

            regularizer.backward(forward)
            self.optimizer.step()
            self.optimizer.zero_grad()

        return step, regularizer.passes


class _Theirs:
    """The authors' steps: unbucketed packed batches, torch's default optimizer, and `authors_step.notebook_step` as is.

    The notebooks have no image models. For images, the attacked input is the batch itself, as an untrained parameter.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.batches = setup, setup.batches(bucket=False)
        self.plain = model = setup.model()
        if hasattr(model, "packed"):
            model.packed = True
        self.optimizer = setup.optimizer(model, fused=False)
        images = setup.targets[0] == "<input>"
        self.model = _WithPixels(model, self.batches[0].inputs["pixels"]) if images else model
        self.targets = ["pixels", f"model.{setup.targets[1]}"] if images else setup.targets

    def make(self, method: str) -> tuple[Step, float]:
        w, draw = self.setup.workload, bernoulli(self.setup.workload.p)

        def step(n: int) -> None:
            batch = self.batches[n % len(self.batches)]
            inputs = dict(batch.inputs)
            if method == "authors-plain":
                F.cross_entropy(self.plain(**inputs), batch.labels).backward()
            else:
                if isinstance(self.model, _WithPixels):
                    self.model.pixels.data = inputs.pop("pixels").clone()

                def forward() -> Tensor:
                    return F.cross_entropy(self.model(**inputs), batch.labels)

                notebook_step(self.model, forward, self.targets, epsilon=EPSILON, steps=w.steps, draw=draw)
            self.optimizer.step()
            self.model.zero_grad()

        return step, 1 if method == "authors-plain" else 1 + len(self.targets) * w.steps


class _WithPixels(nn.Module):
    def __init__(self, model: nn.Module, pixels: Tensor) -> None:
        super().__init__()
        self.model, self.pixels = model, nn.Parameter(pixels.clone())

    def forward(self) -> Tensor:
        return self.model(self.pixels)


def set_up(threads: int, device: torch.device, *, system_allocator: bool = False) -> bool:
    """Configure torch as in training, but without determinism, which costs time on a GPU.

    On a CPU this includes the allocator, unless `system_allocator`. The setting is process-wide, so the authors' step
    benefits as much as ours.

    Returns:
        Whether the allocator is configured as in training.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    return device.type == "cpu" and not system_allocator and keep_freed_memory()
