"""One call of `Regularizer.backward`: runs the passes, and keeps each from disturbing the others."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.lanes import Lanes, no_recomputation, weights_stay
from dropattack.regularizers.targets import Target


@dataclass(frozen=True)
class Losses:
    """What a step's passes cost, as detached scalar tensors on the model's device.

    Attributes:
        clean: The first pass's loss.
        adversarial: The loss of each further pass, unscaled, in order.
        total: The objective whose gradient was added to `.grad`.
    """

    clean: Tensor
    adversarial: tuple[Tensor, ...]
    total: Tensor


@dataclass(frozen=True)
class Output:
    """What `forward` may return: a scalar loss with a graph, and logits [B, C] for the methods that need them."""

    loss: Tensor
    logits: Tensor | None = None


def needed(logits: Tensor | None, method: str) -> Tensor:
    """The logits that a divergence needs.

    Raises:
        ValueError: `forward` returned none.
    """
    if logits is None:
        raise ValueError(f"{method} needs forward to return an object with .loss and .logits")
    return logits


class Passes:
    """Runs `forward` and `backward` once a call. The last of the `total` calls is the one that DDP synchronises."""

    def __init__(
        self,
        model: nn.Module | None,
        targets: Collection[Target],
        *,
        forward: Callable[[], Any],
        backward: Callable[[Tensor], Any],
        no_sync: Callable[[], AbstractContextManager],
        total: int,
        same_dropout: bool,
    ) -> None:
        self._model, self._targets = model, targets
        self._forward, self._backward, self._no_sync = forward, backward, no_sync
        self._total, self._done = total, 0
        self._losses: list[Tensor] = []
        self._objective: Tensor | float = 0.0
        self._state = _State(model, same_dropout)

    def __call__(
        self,
        objective: Callable[[], Tensor] | None = None,
        *,
        scale: float = 1.0,
        keep: bool = True,
        read: Collection[Target] = (),
    ) -> None:
        """One forward-backward at the current point.

        Args:
            objective: Computes the loss with calls of `self.forward`; None for the loss of one forward.
            scale: Weight of this pass in the objective.
            keep: Whether the pass's gradient belongs to the objective, or only gives the next step's direction.
            read: The targets whose own gradient of this pass is wanted (`target.gradient`).
        """
        self._done += 1
        last = self._done == self._total
        with ExitStack() as stack:
            if not last:
                stack.enter_context(self._no_sync())
            if not keep and self._model is not None:
                stack.enter_context(_only(self._model, self._targets))
            for target in self._targets:
                stack.enter_context(target.listening(read=target in read, keep=keep, last=last))
            loss = objective() if objective else self.forward().loss
            self._backward(loss if scale == 1.0 else loss * scale)
        if keep:
            self._objective = self._objective + scale * loss.detach()

    def together(self, moves: Sequence[tuple[Target, Tensor]], *, scale: float = 1.0, read: bool = False) -> None:
        """A forward for each of `moves`, with that target alone moved by its r, side by side; and one backward for all.

        Args:
            scale: Weight of each forward's loss in the objective.
            read: Whether each target's gradient in its own forward is wanted.
        """
        self._done += 1
        self._state.save()  # before two forwards change them at once
        with ExitStack() as stack:
            if self._done < self._total:
                stack.enter_context(self._no_sync())
            losses = []
            lanes = stack.enter_context(Lanes(self._model, len(moves), in_order=self._state.is_shared))
            with weights_stay(self._model):
                for lane, (target, r) in zip(lanes, moves, strict=True):
                    with lane, target.beside(self._model, r, read=read):
                        losses.append(self.forward().loss)
            lanes.join()
            objective = torch.stack(losses).sum() * scale
            for (target, _), loss in zip(moves, losses, strict=True):
                stack.enter_context(target.joining(loss))
            stack.enter_context(no_recomputation(self._model))
            self._backward(objective)
            lanes.join()
        self._objective = self._objective + objective.detach()

    def forward(self) -> Output:
        """Runs the caller's `forward` once."""
        for target in self._targets:
            target.again()
        self._state.before_forward()
        torch.clear_autocast_cache()  # under an outer autocast it holds casts of the weights as another pass had them
        result = self._forward()
        self._state.after_forward()
        loss = result if isinstance(result, Tensor) else getattr(result, "loss", None)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(result).__name__
            raise ValueError(f"forward has to return a scalar loss or an object with a scalar .loss, not {what}")
        if not loss.requires_grad:
            raise ValueError("the loss that forward returned has no graph: nothing in it requires a gradient")
        loss = loss.reshape(())
        self._losses.append(loss.detach())
        return Output(loss, getattr(result, "logits", None))

    def finish(self) -> Losses:
        if self._done != self._total:
            raise RuntimeError(f"this method announced {self._total} passes and made {self._done}")
        return Losses(self._losses[0], tuple(self._losses[1:]), torch.as_tensor(self._objective))

    def close(self) -> None:
        """Puts back what passes change besides gradients. Also after an exception."""
        self._state.restore()
        torch.clear_autocast_cache()
        for target in self._targets:
            target.begin()


@contextmanager
def _only(model: nn.Module, targets: Collection[Target]) -> Iterator[None]:
    """Nothing but the targets requires a gradient: a pass that only gives a direction skips the others' work."""
    attacked = {id(p) for t in targets if (p := getattr(t, "parameter", None)) is not None}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in attacked]
    try:
        for p in others:
            p.requires_grad_(False)
        yield
    finally:
        for p in others:
            p.requires_grad_(True)


class _State:
    """What a forward changes besides its output: buffers (BatchNorm's statistics), and torch's random numbers.

    The first forward may change both, as a plain step would. Buffers that it changed get back, after the step, the
    values that it left. With `same_dropout` every forward starts from the random state of the first, and the step
    leaves the state that the first left.
    """

    def __init__(self, model: nn.Module | None, same_dropout: bool) -> None:
        self._buffers = [] if model is None else [
            (module, name, buffer, buffer._version)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]  # fmt: skip
        self._saved: list[tuple[nn.Module, str, Tensor, Tensor]] = []
        self._is_saved, self._forwards = False, 0
        self._same_dropout = same_dropout
        self._devices = sorted({p.device.index for p in model.parameters() if p.is_cuda}) if model is not None else []

    def _random(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in self._devices)]

    def _set_random(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    def before_forward(self) -> None:
        self._forwards += 1
        if self._same_dropout and self._forwards == 1:
            self._before = self._random()
        elif self._same_dropout:
            self._set_random(self._before)
        if self._forwards == 2:
            self.save()

    def after_forward(self) -> None:
        if self._same_dropout and self._forwards == 1:
            self._after = self._random()

    def save(self) -> None:
        """After the first forward, of which buffers it touched: most models have none, and some have large ones."""
        if self._is_saved:
            return
        self._is_saved = True
        for module, name, buffer, version in self._buffers:
            now = module._buffers.get(name)
            tracks = isinstance(module, nn.modules.batchnorm._NormBase) and module.training
            if now is not None and (now is not buffer or now._version != version or tracks):
                self._saved.append((module, name, now, now.clone()))

    @property
    def is_shared(self) -> bool:
        """Whether a forward may read what another wrote: of BatchNorm in train mode it is known that it does not."""
        return any(not isinstance(module, nn.modules.batchnorm._NormBase) for module, *_ in self._saved)

    def restore(self) -> None:
        with torch.no_grad():
            for module, name, buffer, value in self._saved:
                module._buffers[name] = buffer.copy_(value)
        if self._same_dropout and self._forwards > 1:
            self._set_random(self._after)
