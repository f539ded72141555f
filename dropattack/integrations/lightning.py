"""Lightning: a mixin under which automatic optimization makes all passes of a regularizer in each training step.

Lightning's closure (training step, zero_grad, backward) runs once per optimizer step. The mixin replaces its body with
one that calls the training step and the strategy's backward once per pass. All else stays Lightning's: accumulation,
clipping, precision, schedules, SWA's epoch without a backward, the order of hooks. With `Identity` the training is bit
for bit that of the plain module.

Nothing is imported from Lightning, because `lightning` and `pytorch_lightning` both provide it. Tested with Lightning
2.5 and 2.6.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dropattack.integrations.given import AGAIN, checked, taken_over
from dropattack.regularizers import Losses, Output, Regularizer
from dropattack.regularizers.passes import Forward, HasLoss

if TYPE_CHECKING:  # a mixin: type checkers need to know its base
    from lightning.pytorch import LightningModule as _Base
    from lightning.pytorch import Trainer
else:
    _Base = object

_KEY = "regularizer"  # in a checkpoint


class RegularizerMixin(_Base):
    """First among the bases: `class Net(RegularizerMixin, LightningModule)`.

        def configure_regularizer(self):
            return DropAttack(self, targets=["embed.weight"])

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = F.cross_entropy(self(x), y)
            self.log("loss", loss)
            return loss

    Instead of `configure_regularizer`, a method's name will do: `super().__init__(regularizer="fgm",
    regularizer_options={"epsilon": 0.5})`. Without `targets` the method finds what it attacks by itself, if it can.

    `training_step` runs once per pass, and so do the hooks around the backward. Only the first pass logs: in the others
    `self.log` does nothing. Draw augmentations in `on_after_batch_transfer`, so that all passes see the same batch, and
    update metrics only `if self.is_clean_pass`. For R-Drop return `{"loss": loss, "logits": logits}`, or call
    `self.regularized_step(lambda: Output(loss, logits, mask))` with the positions that count.

    With several optimizers Lightning requires manual optimization: there, call `regularized_step` instead of
    `manual_backward`.

    Attributes:
        losses: Those of the latest micro-batch, without logits, so that they do not take memory until the next; None
            before the first.
        is_clean_pass: Whether `training_step` runs for the first (clean) pass of a step; with manual optimization,
            whether what `regularized_step` was given does. True outside.

    Raises:
        ValueError: (in `fit`) The strategy shards or copies the model: only one device and DDP are supported.
    """

    def __init__(
        self,
        *args: object,
        regularizer: str | Callable[[nn.Module], Regularizer] | None = None,
        regularizer_options: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        given = None
        if regularizer is not None or regularizer_options is not None:
            given = checked(regularizer, regularizer_options)
        if isinstance(given, Regularizer):
            raise TypeError("this module does not exist yet: give the name of a method or a function of the model")
        super().__init__(*args, **kwargs)
        self._held = _Held()
        self._given_regularizer = given

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(RegularizerMixin)]
        if any(base.__name__ == "LightningModule" for base in before):
            raise TypeError(f"{cls.__name__}: RegularizerMixin must come before LightningModule among the bases")
        for name, then in (("on_save_checkpoint", _save), ("on_load_checkpoint", _load)):
            owner = next(base for base in cls.__mro__ if name in vars(base))
            if owner is cls or not issubclass(owner, RegularizerMixin):
                setattr(cls, name, _extended(getattr(cls, name), then))

    def configure_regularizer(self) -> Regularizer:
        """Make the regularizer; called once, in the process that trains."""
        if self._given_regularizer is None:
            raise NotImplementedError(
                "write configure_regularizer(self), which returns a regularizer of this module, or call "
                'super().__init__(regularizer="fgm")'
            )
        return self._given_regularizer(self)

    @property
    def regularizer(self) -> Regularizer:
        if self._held.regularizer is None:
            self._held.regularizer = self.configure_regularizer()
        return self._held.regularizer

    @property
    def losses(self) -> Losses | None:
        return self._held.losses

    @property
    def is_clean_pass(self) -> bool:
        return self._held.passes <= 1

    def regularized_step(self, forward: Forward, batch_idx: int | None = None) -> Losses:
        """`manual_backward` for a regularizer: adds the gradient of its objective, and steps nothing.

        With automatic optimization it hands the loss of `forward` to the Trainer, as if `training_step` returned it.

        Args:
            forward: As for `Regularizer.backward`. Precision and DDP are Lightning's: call `self(x)`.
            batch_idx: Not needed; accepted so that `training_step` can hand on what it got.

        Returns:
            The losses. With automatic optimization only that of this `forward`, because the passes are still to come;
            `losses` has them afterwards.

        Raises:
            ValueError: `forward` returned an object whose `.loss` is None.
        """
        if self.automatic_optimization:
            result = forward()
            if self._held.passes:  # 0 in an epoch that skips the backward
                self._held.returned = result
            loss = result if isinstance(result, Tensor) else result.loss
            if loss is None:
                raise ValueError(
                    "forward must return a scalar loss or an object with a scalar .loss: its .loss is None"
                )
            return Losses(loss.detach(), (), loss.detach())
        self._check_support()
        optimizers: Any = self.optimizers()
        if not isinstance(optimizers, list):  # of several, the caller says which: `regularizer.follow`
            self.regularizer.follow(getattr(optimizers, "optimizer", optimizers))
        self._restore()
        counted = self._counted(forward) if callable(forward) else forward  # `backward` says what is wrong with it
        try:
            losses = self.regularizer.backward(counted, backward=self.manual_backward, no_sync=self._no_sync)
        finally:
            self._held.passes = 0
        self._held.losses = replace(losses, logits=None)
        return losses

    def _counted(self, forward: Forward) -> Forward:
        def counted() -> Tensor | HasLoss:
            self._held.passes += 1
            return forward()

        return counted

    def log(self, *args: object, **kwargs: object) -> None:
        if self.is_clean_pass:
            super().log(*args, **kwargs)  # type: ignore[arg-type]

    # Automatic optimization.

    @property
    def trainer(self) -> "Trainer":
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: "Trainer | None") -> None:
        # Not one of Lightning's hooks, because modules often override those without calling super().
        super(RegularizerMixin, type(self)).trainer.fset(self, trainer)  # type: ignore[attr-defined]
        if trainer is not None:
            loop = trainer.fit_loop.epoch_loop.automatic_optimization
            loop._make_closure = partial(_make_closure, loop)  # type: ignore[method-assign]

    def _passes(self, loop: Any, closure: Any, optimizer: Any) -> Any:
        """Lightning's closure with all of the regularizer's passes.

        Args:
            loop: The Trainer's `_AutomaticOptimization`.
            closure: The `Closure` that it made, with a training step, a backward and (or None) a zero_grad.
            optimizer: The one that steps after it.

        Returns:
            The `ClosureResult` of the first pass.

        Raises:
            RuntimeError: `training_step` returned a loss in one pass and None in another of the same step.
        """
        held, micro_batches = self._held, self.trainer.accumulate_grad_batches
        self._check_support()
        self.regularizer.follow(getattr(optimizer, "optimizer", optimizer))
        self._restore()
        kind, zero_grad = loop.output_result_cls, closure._zero_grad_fn
        result: Any = None

        def zero_once() -> None:
            nonlocal zero_grad
            if zero_grad is not None:
                zero_grad()
            zero_grad = None

        def forward() -> Output:
            nonlocal result
            held.passes += 1
            found, returned, mask = closure._step_fn(), held.returned, None
            held.returned = None
            if found.closure_loss is None and returned is not None:
                loss = returned if isinstance(returned, Tensor) else returned.loss
                found = kind(loss, extra={"logits": getattr(returned, "logits", None)})
                mask = getattr(returned, "mask", None)
            if found.closure_loss is None:
                raise _SkippedError
            result = result or found
            return Output(found.closure_loss, found.extra.get("logits"), mask)

        def backward(loss: Tensor) -> None:
            zero_once()  # Lightning's order: step, zero_grad, backward
            closure._backward_fn(loss / micro_batches)

        if self._has_several_passes():  # sets `.grad` aside during the first pass, so zero_grad must come before
            zero_once()
        # Divided in `backward` and not before: an objective need not be linear in the loss.
        loop.output_result_cls = SimpleNamespace(
            from_training_step_output=lambda output, _: kind.from_training_step_output(output)
        )
        held.passes = 0
        try:
            losses = self.regularizer.backward(forward, backward=backward, no_sync=self._no_sync)
            held.losses = replace(losses, logits=None)
        except _SkippedError:
            if held.passes > 1:
                raise RuntimeError(
                    "training_step returned a loss in one pass and None in another of the same step"
                ) from None
            closure.warning_cache.warn("`training_step` returned `None`: this step is skipped.")
            zero_once()
            return kind(None)
        finally:
            held.passes, held.returned = 0, None
            del loop.output_result_cls
        return kind(result.closure_loss.detach() / micro_batches, extra=result.extra)

    def _has_several_passes(self) -> bool:
        """Return whether this step may have several, also if a strength was 0 when `passes` was counted."""
        regularizer = self.regularizer
        return regularizer.passes > 1 or (regularizer._attacks_now() and regularizer._backwards() > 1)

    def _no_sync(self) -> Any:
        wrapper = self.trainer.strategy.model
        return wrapper.no_sync() if isinstance(wrapper, DistributedDataParallel) else nullcontext()

    def _check_support(self) -> None:
        wrapper = self.trainer.strategy.model
        if wrapper is not self and type(wrapper) is not DistributedDataParallel:
            raise ValueError(
                f"a regularizer cannot reach weights and gradients inside {type(wrapper).__name__}: "
                "use one device, or strategy='ddp'"
            )
        if getattr(wrapper, "static_graph", False) and self._has_several_passes():
            raise ValueError(
                "DDP with static_graph=True must synchronise its first backward, and a regularizer synchronises the "
                "last of each step: leave static_graph out"
            )

    def on_train_end(self) -> None:
        super().on_train_end()
        if not self.automatic_optimization and self.losses is None:
            warnings.warn(
                "this module was trained without its regularizer: with manual optimization, call "
                "self.regularized_step(lambda: loss) instead of self.manual_backward(loss)",
                stacklevel=2,
            )

    # Checkpoints: Lightning makes them in all processes at once, and writes that of the first. A module may override
    # these hooks without calling super(), for Lightning's do nothing: `__init_subclass__` extends what it writes.

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        super().on_save_checkpoint(checkpoint)
        _save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        super().on_load_checkpoint(checkpoint)
        _load(self, checkpoint)

    def _restore(self) -> None:
        """Load a checkpoint's state, before the first step, when the module is on its device."""
        states, self._held.restored = self._held.restored, None
        if not states or not self.trainer.global_step:  # weights of `load_from_checkpoint`, in a training of their own
            return
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if len(states) != world:
            warnings.warn(AGAIN, stacklevel=2)
            states = [taken_over(states[0], one, world) for one in range(world)]
        self.regularizer.load_state_dict(states[rank])


def _make_closure(loop: Any, kwargs: Any, optimizer: Any, batch_idx: int) -> Any:
    """Replace the loop's own closure, except for plain modules and epochs without a backward (SWA's last)."""
    closure = type(loop)._make_closure(loop, kwargs, optimizer, batch_idx)
    module = loop.trainer.lightning_module
    if isinstance(module, RegularizerMixin) and closure._backward_fn is not None:
        closure.closure = torch.enable_grad()(lambda *_: module._passes(loop, closure, optimizer))
    return closure


def _save(module: RegularizerMixin, checkpoint: dict[str, object]) -> None:
    if _KEY in checkpoint:  # by a hook that called super()
        return
    if module._held.restored is not None:  # resumed, and no step has been made since
        checkpoint[_KEY] = module._held.restored
        return
    state = module.regularizer.state_dict()
    states: list[Any] = [state]
    if dist.is_available() and dist.is_initialized():
        states = [None] * dist.get_world_size()
        dist.all_gather_object(states, state)
    checkpoint[_KEY] = states


def _load(module: RegularizerMixin, checkpoint: dict[str, object]) -> None:
    states = checkpoint.get(_KEY)
    module._held.restored = states if isinstance(states, list) else None


def _extended(hook: Callable[..., Any], then: Callable[[Any, dict[str, object]], None]) -> Callable[..., Any]:
    """Return a module's own hook, with what `then` does after it."""

    @wraps(hook)
    def extended(self: Any, checkpoint: dict[str, object]) -> Any:
        result = hook(self, checkpoint)
        then(self, checkpoint)
        return result

    return extended


class _SkippedError(Exception):
    """`training_step` returned None."""


class _Held:
    """Keeps the regularizer out of copies of the module (EMA, spawned processes), which make their own."""

    def __init__(self) -> None:
        self.regularizer: Regularizer | None = None
        self.restored: list | None = None
        self.losses: Losses | None = None
        self.returned: Any = None  # by `regularized_step` under automatic optimization
        self.passes = 0  # passes begun in this step; 0 outside

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()
