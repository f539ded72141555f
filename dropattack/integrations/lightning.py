"""Lightning: a mixin whose `regularized_step` is the whole of a training step, by manual optimization.

Automatic optimization gives one forward to one backward, and its closure is run once under 16-bit precision: too little
for a step of several passes. So the mixin takes over what manual optimization leaves to the user: accumulation,
clipping (after the scaler has unscaled), one synchronisation a step under DDP, learning-rate schedules, and the
regularizer's state in checkpoints. It imports nothing of Lightning's: `lightning` and `pytorch_lightning` both do.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dropattack.regularizers import Losses, Regularizer

if TYPE_CHECKING:  # a mixin, whose checker should know what it is mixed into
    from lightning.pytorch import LightningModule as _Base
else:
    _Base = object


class RegularizerMixin(_Base):
    """First among the bases: `class Net(RegularizerMixin, LightningModule)`.

        def configure_regularizer(self):
            return DropAttack(self, targets=["embed.weight"])

        def training_step(self, batch, batch_idx):
            x, y = batch
            losses = self.regularized_step(lambda: F.cross_entropy(self(x), y), batch_idx)
            self.log("loss", losses.clean)

    Attributes:
        accumulate: Micro-batches a step, in place of `Trainer(accumulate_grad_batches=…)`.
        clip_norm: Largest 2-norm of the gradient, in place of `Trainer(gradient_clip_val=…)`. None: not clipped.
    """

    accumulate: int = 1
    clip_norm: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self._held = _Held()

    def configure_regularizer(self) -> Regularizer:
        """Makes the regularizer; called once, in the process that trains."""
        raise NotImplementedError("write configure_regularizer(self), which returns a regularizer of this module")

    @property
    def regularizer(self) -> Regularizer:
        if self._held.regularizer is None:
            self._held.regularizer = self.configure_regularizer()
        return self._held.regularizer

    def regularized_step(self, forward: Callable[[], Any], batch_idx: int, *, optimizer: Any = None) -> Losses:
        """Adds the objective's gradient and, at the end of an accumulated batch, steps.

        Args:
            forward: As for `Regularizer.backward`. Precision and DDP are Lightning's: call `self(x)`.
            batch_idx: `training_step`'s.
            optimizer: One of `self.optimizers()` where there are several. Its `toggle_optimizer` is the caller's.
        """
        self._check_support()
        optimizer = self._only_optimizer() if optimizer is None else optimizer
        self.regularizer.follow(getattr(optimizer, "optimizer", optimizer))
        ends = (batch_idx + 1) % self.accumulate == 0 or self.trainer.is_last_batch
        with nullcontext() if ends else self._no_sync():
            losses = self.regularizer.backward(
                forward, backward=lambda loss: self.manual_backward(loss / self.accumulate), no_sync=self._no_sync
            )
        if ends:
            optimizer.step()
            optimizer.zero_grad()
            self._step_schedules("step", optimizer, self.trainer.global_step)
        return losses

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        # The scaler of 16-mixed has unscaled by now; earlier, the norm would be that of the scaled gradient.
        super().on_before_optimizer_step(optimizer)
        if self.clip_norm is not None:
            self.clip_gradients(optimizer, gradient_clip_val=self.clip_norm, gradient_clip_algorithm="norm")

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self._step_schedules("epoch", None, self.trainer.current_epoch + 1)

    def _step_schedules(self, interval: str, optimizer: Any, count: int) -> None:
        stepped = getattr(optimizer, "optimizer", optimizer)  # inside Lightning's wrapper
        for config in self.trainer.lr_scheduler_configs:
            if config.interval != interval or stepped not in (None, config.scheduler.optimizer):
                continue
            if isinstance(config.scheduler, ReduceLROnPlateau):
                raise ValueError("step ReduceLROnPlateau yourself: its metric is not known here")
            if count % config.frequency == 0:
                config.scheduler.step()

    def _only_optimizer(self) -> Any:
        optimizer = self.optimizers()
        if isinstance(optimizer, list):
            raise ValueError("there are several optimizers: name the one to step with optimizer=…")
        return optimizer

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

    # Checkpoints: Lightning makes them on all processes at once, and writes that of the first.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        state = self.regularizer.state_dict()
        states: list[Any] = [state]
        if dist.is_available() and dist.is_initialized():
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, state)
        checkpoint["regularizer"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._held.restored = checkpoint.get("regularizer")

    def on_train_start(self) -> None:
        super().on_train_start()
        states, self._held.restored = self._held.restored, None
        if states and len(states) == self.trainer.world_size:
            self.regularizer.load_state_dict(states[self.trainer.global_rank])


class _Held:
    """Keeps the regularizer out of copies of the module (EMA, spawned processes), which make their own."""

    def __init__(self) -> None:
        self.regularizer: Regularizer | None = None
        self.restored: list | None = None

    def __reduce__(self):
        return _Held, ()
