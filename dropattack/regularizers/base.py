"""Base class of all methods: one call adds the objective's gradient to `.grad`."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from dropattack.regularizers import functional
from dropattack.regularizers.activations import Activation
from dropattack.regularizers.checks import at_least_one, check_options, integer, kind, one_of, whole
from dropattack.regularizers.gradients import is_sharded
from dropattack.regularizers.naming import resolve, unwrapped
from dropattack.regularizers.passes import Forward, Losses, Passes
from dropattack.regularizers.persistent import Persistent
from dropattack.regularizers.state import Moving, State
from dropattack.regularizers.targets import Target, Weight, shifted

DropoutMasks = Literal["fresh", "shared"]
Norm = Literal["l2", "linf"]
Schedule = Callable[[int], float]
RELATIVE_EPSILON = 0.1
"""The meaning of `epsilon=None`: this fraction of the target's norm."""


class Common(TypedDict, total=False):
    """The keyword arguments that every method takes; `Regularizer` documents them."""

    dropout_masks: DropoutMasks
    seed: int | None
    batch_dim: int | None
    every: int
    start_step: int
    warmup: int
    schedule: Schedule | None


class Regularizer(Persistent):
    """A method: its targets, and the passes of one step.

    A subclass sets `passes` and writes `_attack`, which calls `run(...)` once for each forward-backward.

    Args:
        model: The network, or its `torch.compile`, DataParallel or DDP wrapper.
        targets: What is attacked: see `resolve`.
        dropout_masks: `"fresh"` draws new masks in every pass of a step, `"shared"` repeats those of the first. (cuDNN
            draws the masks between an RNN's layers itself; they are always fresh.)
        seed: Seeds the method's own random numbers; None: a number derived from `torch.initial_seed()`. (Not that seed
            itself, with which a method would draw the numbers of the initial weights again.)
        batch_dim: The batch dimension of an attacked activation. None: the first, or an error if a module of the model
            takes sequences first (`batch_first=False`), because it may be another.
        every: Attack every n-th call, from `start_step` on; the other calls are plain steps.
        start_step: Calls before the first attack; they are plain steps.
        warmup: Calls after `start_step` over which the strength grows linearly to its full value.
        schedule: The strength is multiplied by `schedule(n)`, a finite number >= 0, at the n-th call after
            `start_step`, n from 0.
        unknown: Options that the method does not have.

    Each call handles one micro-batch. If the strength is zero, the step is plain: one pass, bit for bit plain training.

    Attributes:
        passes: Forward-backward passes per step: the cost in plain steps (a mean over `every` calls).
        strengths: Names of the attributes that make the step plain if one of them is zero.
        composition: How `Compose` may use it. `"adds"`: its first pass is the clean one, and everything else is
            added to L(θ). `"leads"`: its first pass is at the clean point, and its objective replaces L(θ).
            `"alone"`: it cannot be composed.
        is_linear: Whether the objective is linear in the loss, so that `forward` may scale the loss.
        needs_logits: Whether `forward` must return logits as well as the loss.
        draws: Whether it draws random numbers from its seed.
    """

    passes: float = 1
    strengths: ClassVar[tuple[str, ...]] = ()
    composition: ClassVar[Literal["adds", "leads", "alone"]] = "leads"
    is_linear: bool = True
    needs_logits: bool = False
    draws: bool = False
    common: ClassVar[tuple[str, ...]] = tuple(Common.__annotations__)
    norm: Norm = "l2"
    relative: bool = False

    def __init__(
        self,
        model: nn.Module | None,
        targets: str | Iterable[str] | None,
        *,
        dropout_masks: DropoutMasks = "fresh",
        seed: int | None = None,
        batch_dim: int | None = None,
        every: int = 1,
        start_step: int = 0,
        warmup: int = 0,
        schedule: Schedule | None = None,
        **unknown: object,
    ) -> None:
        check_options(type(self), unknown)
        super().__init__(targets if targets is None or isinstance(targets, str) else _listed(targets), seed)
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model must be the nn.Module itself, not {kind(model)}")
        if model is None and targets is not None:
            raise TypeError(f"{type(self).__name__} needs the model whose weights or modules {targets!r} names")
        self.model = None if model is None else unwrapped(model)
        self._batch_dim = None if batch_dim is None else integer(batch_dim, "batch_dim")
        self.targets: list[Target] = []
        self._moving = Moving()
        self._outside: list[Tensor] | None = None  # weights that the loss reaches and the model does not have
        self._seen: Any = None
        self.dropout_masks = one_of(dropout_masks, "dropout_masks", ("fresh", "shared"))
        self.every = at_least_one(every, "every")
        self.start_step, self.warmup = whole(start_step, "start_step"), whole(warmup, "warmup")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule must be a function of the step, not {kind(schedule)}")
        self.schedule = schedule
        self._set_passes(self.passes)
        self._modules, self._parameters = self._look()

    def _set_passes(self, passes: float) -> None:
        """Set the passes of a step that attacks; `passes` becomes the mean over all steps."""
        self._full_passes = passes
        mean = 1.0 if self._is_plain() else 1 + (passes - 1) / self.every
        self.passes = int(mean) if mean == int(mean) else mean

    def backward(
        self,
        forward: Forward,
        *,
        backward: Callable[[Tensor], object] = Tensor.backward,
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
    ) -> Losses:
        """Add the gradient of the method's objective on this micro-batch to `.grad`.

        It never steps, zeroes, scales or unscales anything, and every weight is bit for bit what it was when it returns
        or raises. (After an exception `.grad` holds the passes that were completed: zero it before you continue.)

        Args:
            forward: Runs the model on this micro-batch; returns a scalar loss, or an object with `.loss` and `.logits`.
                It is called once per pass.
            backward: Called with the loss of each pass: `scaler.scale(loss).backward()`, `accelerator.backward`, …
            no_sync: Makes the context of all passes except the last: DDP's `model.no_sync`.

        Returns:
            The losses, and the first pass's logits if `forward` returned them: the training accuracy needs no further
            pass. Nothing in it synchronises with the device.

        Raises:
            TypeError: `forward` is not a function. It is called once per pass and must recompute the loss.
            RuntimeError: Gradients are off or parametrizations cached, a target is not part of the forward, or the
                forward runs another model.
            ValueError: `forward` returned no scalar with a graph, `schedule` no finite number >= 0, or the model has
                changed and no longer has a target.
        """
        for name, value in (("forward", forward), ("backward", backward), ("no_sync", no_sync)):
            if not callable(value):
                raise TypeError(f"{name} must be a function, as in reg.backward(lambda: loss), not {kind(value)}")
        if not torch.is_grad_enabled():
            raise RuntimeError("backward was called inside no_grad or inference_mode: gradients are needed here")
        self._modules, self._parameters = self._look()
        attacks = self._attacks_now()
        total = self._backwards() if attacks else 1
        several = attacks and max(total, self._full_passes) > 1
        if several and torch.nn.utils.parametrize._cache_enabled:
            raise RuntimeError(
                "backward was called inside torch.nn.utils.parametrize.cached(), which keeps the weights of the first "
                "pass for all others: move the with block into forward"
            )
        self._check_rnns()
        run = Passes(
            self.model,
            self.targets,
            forward=forward,
            backward=backward,
            no_sync=no_sync,
            total=total,
            parameters=self._parameters,
            outside=self._outside,
            state=self._state() if several else None,
        )
        try:
            self._attack(run) if attacks else run()
            losses = run.finish()
        finally:
            run.close()
        run.call_late_hooks()
        self._outside = run.outside
        self._calls += 1
        return losses

    def _state(self) -> State:
        attacked = frozenset(id(t.attacked) for t in self.targets)
        return State(self._modules, self._parameters, self._moving, self.dropout_masks == "shared", attacked)

    def _attack(self, run: Passes) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define _attack(self, run), with one run(...) per pass")

    def _backwards(self) -> int:
        """Return the number of calls of `run` in a step that attacks."""
        return int(self._full_passes)

    def _is_plain(self) -> bool:
        return any(getattr(self, name) == 0 for name in self.strengths)

    def _attacks_now(self) -> bool:
        step = self._calls - self.start_step
        return step >= 0 and step % self.every == 0 and not self._is_plain() and self._factor() != 0

    def _factor(self) -> float:
        """Return the factor on the strength in this call."""
        step = self._calls - self.start_step
        factor = 1.0 if step + 1 >= self.warmup else (step + 1) / self.warmup
        if self.schedule is None:
            return factor
        scheduled = float(self.schedule(step))
        if not 0 <= scheduled < float("inf"):
            raise ValueError(
                f"schedule({step}) is {scheduled}, and the strength is multiplied by it: return a finite number >= 0"
            )
        return factor * scheduled

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Hand the method the optimizer that steps these weights. It reads the optimizer's state and changes nothing.

        A training loop calls it once, for any method; most ignore it. A method's card says if it needs it.
        """

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve(self.model, targets)

    def _resolved(self) -> None:
        """React to new `targets`: at the start, and whenever the model has changed."""

    def _look(self) -> tuple[list[nn.Module], list[nn.Parameter]]:
        """Return the model's current modules and parameters; find the targets again if these have changed.

        A layer may be unfrozen, replaced, tied or added after the regularizer was made.
        """
        if self.model is None:
            if self._seen is None:
                self._seen = ()
                self._resolved()
            return [], []
        modules = list(self.model.modules())
        parameters = list({p: None for m in modules for p in m._parameters.values() if p is not None})
        # Places, and not parameters alone: two layers may share one from now on.
        places = [id(p) for m in modules for p in m._parameters.values()]
        flags = [(p.requires_grad, is_sharded(p)) for p in parameters]
        seen = (*map(id, modules), *places, *flags, *(m.training for m in modules))
        if seen != self._seen:
            if self._names is not None:
                self._retarget(self._names)
            self._resolved()
            self._moving.forget()
            self._outside = None
            self._seen = seen
        return modules, parameters

    def _retarget(self, names: str | list[Any]) -> None:
        known = {(t.name, id(t.attacked)): t for t in self.targets}
        try:
            found = self._resolve(names)
        except ValueError as error:
            if self._seen is None:
                raise
            raise ValueError(f"the model has changed since {type(self).__name__} was made of it: {error}") from error
        # The same objects where the same is attacked: a compiled model keeps their hooks.
        self.targets = [_either(known.get((t.name, id(t.attacked))), t) for t in found]
        modules = self.model.named_modules() if self.model is not None else ()
        recurrent = [(name, m) for name, m in modules if isinstance(m, nn.RNNBase | nn.MultiheadAttention)]
        sequence_first = next((name or "the model" for name, m in recurrent if not m.batch_first), None)
        for target in self.targets:
            if isinstance(target, Activation):
                target.batch_dim, target.sequence_first = self._batch_dim, sequence_first

    # Tools for writing a method.

    def _step(self, target: Target, length: float | Tensor, along: Tensor | None = None) -> Tensor:
        """Return `length` · g/‖g‖ for the target's gradient g (or `along`); zero, and counted, where unusable."""
        gradient = target.gradient if along is None else along
        if gradient is None:  # it was left out of this step (stochastic depth); `Passes` raises where it never was in
            gradient = torch.zeros_like(target.value())
        norm = functional.l2_norm(gradient, target.per_example)
        skipped = self._count_skipped(norm, length)
        if self.norm == "l2":
            return functional.rescale(gradient, length, norm, skipped)
        return functional.rescale(gradient.sign(), length, torch.ones_like(norm), skipped)

    def _length(self, target: Target, length: float) -> float | Tensor:
        """Return `length` in this call: scheduled, and times the target's norm if the method is `relative`."""
        length *= self._factor()
        if not self.relative:
            return length
        return length * functional.norm(target.measured(), self.norm, target.per_example)

    def _shifted(self, targets: Iterable[Target], shifts: Iterable[Any]) -> AbstractContextManager[None]:
        """Move all `targets` by their `shifts` at once, inside a `with`."""
        return shifted(list(zip(targets, shifts, strict=True)))

    def _check_rnns(self) -> None:
        for module in self._modules:
            if not isinstance(module, nn.RNNBase) or module.training or not torch.backends.cudnn.enabled:
                continue
            if next(module.parameters()).is_cuda:
                name = next(name for name, m in self.model.named_modules() if m is module) if self.model else ""
                raise RuntimeError(
                    f"cuDNN has no backward for a RNN in eval mode: call train() on {name or 'the model'}"
                )

    def __repr__(self) -> str:
        names = [t.name for t in self.targets]
        shown = names if len(names) <= 4 else [*names[:3], f"… and {len(names) - 3} more"]
        settings = [f"{name}={value!r}" for name, value in self._settings().items()]
        return f"{type(self).__name__}({', '.join([*shown, *settings])})"

    def _settings(self) -> dict[str, object]:
        """Return the method's own options, and those of every method that differ from their defaults."""
        names = [
            name
            for name in inspect.signature(type(self)).parameters
            if name not in ("model", "targets", "seed", "common")
        ]
        own = {name: getattr(self, name, None) for name in names}
        settings: dict[str, object] = {
            name: value for name, value in own.items() if isinstance(value, bool | int | float | str)
        }
        defaults = inspect.signature(Regularizer).parameters
        for name in ("dropout_masks", "every", "start_step", "warmup", "schedule"):
            if (value := getattr(self, name)) != defaults[name].default:
                settings[name] = value
        return settings


def _listed(targets: Any) -> list[Any]:
    return list(targets) if isinstance(targets, Iterable) else [targets]


def _either(known: Target | None, found: Target) -> Target:
    if known is None or type(known) is not type(found):
        return found
    known.optional = found.optional
    if isinstance(known, Weight) and isinstance(found, Weight):
        known.is_table = found.is_table
    return known
