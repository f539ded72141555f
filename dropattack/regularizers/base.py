"""What every method shares: one call that adds the objective's gradient to `.grad`."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Generator, Tensor, nn

from dropattack.regularizers import functional
from dropattack.regularizers.checks import at_least_one, kind, one_of, whole
from dropattack.regularizers.naming import resolve, unwrapped
from dropattack.regularizers.passes import Losses, Passes
from dropattack.regularizers.targets import Target

DropoutMasks = Literal["fresh", "shared"]
Norm = Literal["l2", "linf"]
Schedule = Callable[[int], float]
RELATIVE_EPSILON = 0.1
"""What `epsilon=None` means: this fraction of the norm of what is attacked."""


class Common(TypedDict, total=False):
    """The keyword arguments that every method takes; `Regularizer` says what they mean."""

    dropout_masks: DropoutMasks
    seed: int | None
    every: int
    start_step: int
    warmup: int
    schedule: Schedule | None


class Regularizer:
    """A method: what it attacks, and the passes of one step.

    A subclass sets `passes` and writes `_attack`, which calls `run(...)` once for each forward-backward.

    Args:
        model: The network; `torch.compile`, DataParallel and DDP wrappers are looked through.
        targets: What is attacked: see `resolve`.
        dropout_masks: `"fresh"` draws new masks in every pass of a step, `"shared"` repeats those of the first. (Masks
            that cuDNN draws between the layers of a RNN are its own, and always fresh.)
        seed: Seeds the method's own random numbers; None takes `torch.initial_seed()`.
        every: Attack every n-th call, from `start_step` on; the other calls are plain steps.
        start_step: Calls before the first attack; they are plain steps.
        warmup: Calls after `start_step` over which the strength grows linearly to its full value.
        schedule: The strength is multiplied by `schedule(n)` at the n-th call after `start_step`, n from 0.

    A call is a micro-batch. Where the strength is zero, the step is plain: one pass, and the bits of plain training.

    Attributes:
        passes: Forward-backwards a step, its cost in units of a plain step (a mean over `every` calls).
        strengths: Names of the attributes that make the step plain where one of them is zero.
        composition: What `Compose` may do with it. `"adds"`: its first pass is the clean one, and everything else is
            added to L(θ). `"leads"`: its first pass is at the clean point, and it decides what stands for L(θ).
            `"alone"`: it cannot be composed.
        is_linear: Whether the objective is linear in the loss, so that a factor may be taken into `forward`.
    """

    passes: float = 1
    strengths: ClassVar[tuple[str, ...]] = ()
    composition: ClassVar[Literal["adds", "leads", "alone"]] = "leads"
    is_linear: bool = True
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
        every: int = 1,
        start_step: int = 0,
        warmup: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model has to be the nn.Module itself, not {kind(model)}")
        self.model = None if model is None else unwrapped(model)
        self.targets: list[Target] = [] if targets is None or self.model is None else self._resolve(targets)
        self.dropout_masks = one_of(dropout_masks, "dropout_masks", ("fresh", "shared"))
        self.seed = torch.initial_seed() if seed is None else seed
        self.every = at_least_one(every, "every")
        self.start_step, self.warmup = whole(start_step, "start_step"), whole(warmup, "warmup")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule has to be a function of the step, not {kind(schedule)}")
        self.schedule = schedule
        modules = () if self.model is None else self.model.named_modules()
        self._rnns = [(name, module) for name, module in modules if isinstance(module, nn.RNNBase)]
        self._generators: dict[str, Generator] = {}
        self._calls = 0
        self._skipped: Tensor | None = None
        self._skipped_before = 0
        self._set_passes(self.passes)

    def _set_passes(self, passes: float) -> None:
        """Forward-backwards of a step that attacks; `passes` becomes their mean over the steps that do not."""
        self._full_passes = passes
        mean = 1.0 if self._is_plain() else 1 + (passes - 1) / self.every
        self.passes = int(mean) if mean == int(mean) else mean

    def backward(
        self,
        forward: Callable[[], Any],
        *,
        backward: Callable[[Tensor], Any] = Tensor.backward,
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
    ) -> Losses:
        """Adds the gradient of the method's objective on this micro-batch to `.grad`.

        It never steps, zeroes, scales or unscales anything, and every weight is bit for bit what it was when it returns
        or raises. (After an exception `.grad` holds the passes that were completed: zero it before you go on.)

        Args:
            forward: Runs the model on this micro-batch; returns a scalar loss, or an object with `.loss` and `.logits`.
                It is called once a pass.
            backward: Called with each pass's loss: `scaler.scale(loss).backward()`, `accelerator.backward`, …
            no_sync: Makes the context for all passes but the last: DDP's `model.no_sync`.

        Raises:
            TypeError: `forward` is no function: it is called once a pass, so it has to compute the loss anew.
            RuntimeError: Called where gradients are off, or a target is not part of the forward.
            ValueError: `forward` returned no scalar with a graph.
        """
        for name, value in (("forward", forward), ("backward", backward), ("no_sync", no_sync)):
            if not callable(value):
                raise TypeError(f"{name} has to be a function, as in reg.backward(lambda: loss), not {kind(value)}")
        if not torch.is_grad_enabled():
            raise RuntimeError("backward was called inside no_grad or inference_mode: gradients are needed here")
        self._check_rnns()
        run = Passes(
            self.model,
            self.targets,
            forward=forward,
            backward=backward,
            no_sync=no_sync,
            total=self._backwards() if (attacks := self._attacks_now()) else 1,
            same_dropout=self.dropout_masks == "shared",
        )
        try:
            self._attack(run) if attacks else run()
            losses = run.finish()
        finally:
            run.close()
        self._calls += 1
        return losses

    def _attack(self, run: Passes) -> None:
        raise NotImplementedError(f"{type(self).__name__} has to write _attack(self, run): one run(...) for each pass")

    def _backwards(self) -> int:
        """Calls of `run` in a step that attacks."""
        return int(self._full_passes)

    def _is_plain(self) -> bool:
        return any(getattr(self, name) == 0 for name in self.strengths)

    def _attacks_now(self) -> bool:
        step = self._calls - self.start_step
        return step >= 0 and step % self.every == 0 and not self._is_plain() and self._factor() != 0

    def _factor(self) -> float:
        """What the strength is multiplied by in this call."""
        step = self._calls - self.start_step
        factor = 1.0 if step + 1 >= self.warmup else (step + 1) / self.warmup
        return factor if self.schedule is None else factor * float(self.schedule(step))

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Hands the method the optimizer that steps these weights. It reads the optimizer's state, and changes nothing.

        A training loop calls it once, for any method; most have no use for it. Which have, says their card.
        """

    def _resolve(self, targets: str | Iterable[str]) -> list[Target]:
        assert self.model is not None
        return resolve(self.model, targets)

    # What the methods are written with.

    def _step(self, target: Target, length: float | Tensor, along: Tensor | None = None) -> Tensor:
        """`length` · g/‖g‖ for the target's gradient g (or `along`); zero, and counted, where g gives no direction."""
        gradient = target.gradient if along is None else along
        if gradient is None:
            raise RuntimeError(f"attack target {target.name!r} got no gradient: is it part of this model's forward?")
        norm = functional.l2_norm(gradient, target.per_example)
        self._count_skipped(norm)
        if self.norm == "l2":
            return functional.rescale(gradient, length, norm)
        return functional.rescale(gradient.sign(), length, functional.usable(norm).to(norm.dtype))

    def _length(self, target: Target, length: float) -> float | Tensor:
        """`length` as it is in this call; of the norm of what is attacked where the method is `relative`."""
        length *= self._factor()
        if not self.relative:
            return length
        return length * functional.norm(target.value(), self.norm, target.per_example)

    def _count_skipped(self, norm: Tensor) -> None:
        skipped = (~functional.usable(norm)).sum()
        self._skipped = skipped if self._skipped is None else self._skipped + skipped.to(self._skipped.device)

    def _shifted(self, targets: Iterable[Target], shifts: Iterable[Any]) -> ExitStack:
        """All `targets` moved by their `shifts` at once, inside a `with`."""
        with ExitStack() as stack:
            for target, r in zip(targets, shifts, strict=True):
                stack.enter_context(target.shifted(r))
            return stack.pop_all()

    def _generator(self, device: torch.device) -> Generator:
        """The method's own random numbers on a device, apart from torch's global ones."""
        key = str(device)
        if key not in self._generators:
            self._generators[key] = Generator(device).manual_seed(self.seed % 2**63)
        return self._generators[key]

    def _check_rnns(self) -> None:
        for name, module in self._rnns:
            cuda = not module.training and next(module.parameters()).is_cuda
            if cuda and torch.backends.cudnn.enabled:
                raise RuntimeError(
                    f"cuDNN has no backward for a RNN in eval mode: call train() on {name or 'the model'}"
                )

    # State.

    @property
    def skipped(self) -> int:
        """Perturbations left out so far, for their gradient's norm was zero or not finite. Waits for the device."""
        return self._skipped_before + (0 if self._skipped is None else int(self._skipped))

    def state_dict(self) -> dict[str, Any]:
        """Counters and random states: with these and the same weights, the next step is the same, bit for bit."""
        generators = {device: g.get_state() for device, g in self._generators.items()}
        state = {"method": repr(self), "calls": self._calls, "skipped": self.skipped, "generators": generators}
        return {**state, **({"own": own} if (own := self._own_state()) else {})}

    def _own_state(self) -> dict[str, Any]:
        """What a method remembers from step to step besides these: tensors and numbers, by name."""
        return {}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        """Takes what `_own_state` gave; `{}` is the state of a method that has made no step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        Raises:
            ValueError: It is the state of another method or of other targets.
        """
        if state.get("method") != repr(self):
            raise ValueError(f"this is {self!r}, and the state is of {state.get('method', 'no regularizer')}")
        self._calls, self._skipped_before, self._skipped = int(state["calls"]), int(state["skipped"]), None
        self._generators = {}
        for device, generator_state in state["generators"].items():
            self._generator(torch.device(device)).set_state(generator_state)
        self._load_own_state(state.get("own", {}))

    def __repr__(self) -> str:
        names = ", ".join(t.name for t in self.targets)
        return f"{type(self).__name__}({names})" if names else f"{type(self).__name__}()"
