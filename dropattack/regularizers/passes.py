"""One call of `Regularizer.backward`: runs the passes and keeps them from disturbing each other."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dropattack.regularizers import functional
from dropattack.regularizers.checks import kind
from dropattack.regularizers.gradients import LateHooks, aside, is_sharded
from dropattack.regularizers.graph import leaves, nodes
from dropattack.regularizers.state import State
from dropattack.regularizers.targets import Target, listening


@dataclass(frozen=True)
class Losses:
    """Losses of the passes of a step, as detached scalar tensors on the model's device.

    The first pass is the clean one, except in methods that have none, such as FreeLB.

    Attributes:
        clean: The first pass's loss.
        adversarial: The loss of each further pass, unscaled, in order.
        total: The objective whose gradient was added to `.grad`.
        logits: The first pass's logits, detached; None if `forward` returned only a loss.
    """

    clean: Tensor
    adversarial: tuple[Tensor, ...]
    total: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """Result of `forward`: a scalar loss with a graph, and logits [..., C] for the methods that need them.

    Attributes:
        loss: The loss.
        logits: [B, C], or [B, T, C] with an output for each position. Independent labels and regression have their
            outputs in the last dimension too, but in the second one of four or more: [B, C, H, W].
        mask: [B, T], True where a position counts (not padding); None for all that the loss does not ignore.
    """

    loss: Tensor
    logits: Tensor | None = None
    mask: Tensor | None = None


class HasLoss(Protocol):
    """Any object with a scalar `.loss`, such as `Output` or what a Hugging Face model returns when given labels."""

    @property
    def loss(self) -> Tensor | None: ...


Forward = Callable[[], Tensor | HasLoss]
"""The caller's forward pass: see `Regularizer.backward`."""


def _detached(output: Output) -> Output:
    logits = output.logits.detach() if isinstance(output.logits, Tensor) else output.logits
    return Output(output.loss.detach().clone(), logits, output.mask)


def needed(logits: object, method: str) -> Tensor:
    """Return the logits that a divergence needs.

    Raises:
        ValueError: `forward` returned none.
    """
    if not isinstance(logits, Tensor):
        what = "" if logits is None else f": .logits is {kind(logits)}"
        raise ValueError(
            f"{method} needs forward to return an object with .loss and .logits{what}; wrap what your model gives, as "
            "in return dropattack.Output(loss, logits)"
        )
    return logits


class Passes:
    """Runs `forward` and `backward` once per call. DDP synchronises the last of the `total` calls."""

    def __init__(
        self,
        model: nn.Module | None,
        targets: Collection[Target],
        *,
        forward: Forward,
        backward: Callable[[Tensor], object],
        no_sync: Callable[[], AbstractContextManager],
        total: int,
        parameters: Sequence[Tensor] = (),
        outside: list[Tensor] | None = None,
        state: State | None = None,
    ) -> None:
        self._model, self._targets = model, targets
        self._forward, self._backward, self._no_sync = forward, backward, no_sync
        self._total, self._done = total, 0
        self._first: Output | None = None
        self._losses: list[Tensor] = []
        self._objective: Tensor | float = 0.0
        self._parameters, self.outside = parameters, outside
        self._state = state
        self._hooks = LateHooks()
        self._holds_hooks = False
        self._measures_scale = False
        self._scale: Tensor | None = None
        if total > 1:
            self.hold_hooks()

    def __call__(
        self,
        objective: Callable[[], Tensor] | None = None,
        *,
        scale: float = 1.0,
        keep: bool = True,
        read: Collection[Target] = (),
        moved: Collection[Target] = (),
    ) -> None:
        """Make one forward-backward pass at the current point.

        Args:
            objective: Computes the loss with calls of `self.forward`; None for the loss of one forward.
            scale: Weight of this pass in the objective.
            keep: Whether the pass's gradient belongs to the objective, or only gives the next step's direction.
            read: The targets whose own gradient of this pass is wanted (`target.gradient`).
            moved: Weights that are moved without having been read, so that it is the loss's graph that must show them.
        """
        self._done += 1
        last = self._done == self._total
        with (
            nullcontext() if last else self._no_sync(),
            listening(self._targets, frozenset(read), keep=keep, last=last),
        ):
            loss = objective() if objective else self.forward().loss
            self._hold_outside(loss)
            scaled = loss if scale == 1.0 else loss * scale
            if keep:
                self._objective = self._objective + scaled.detach()  # a new tensor: backward may divide in place
            if self._measures_scale:
                scaled.register_hook(self._note_scale)
            with nullcontext() if keep else aside(self._others(loss)):
                self._backward(scaled)
        if self._state is not None:
            self._state.after_pass()
        missing = [target for target in read if target.gradient is None]
        for target in read:
            target.reached = target.reached or target.gradient is not None
        self._check_reached(missing, read, loss)
        if unseen := [target for target in moved if not target.reached]:
            self._check_reached(self._find_unused(unseen, loss), moved, loss)

    def turned(self, factor: Tensor) -> None:
        """Say by what factor an objective has multiplied the gradient of the loss; `Compose` asks for it."""

    def _hold_outside(self, loss: Tensor) -> None:
        """Find weights outside the model (a head, a loss's), once and again when the model has changed."""
        if self.outside is None:
            own = set(map(id, self._parameters))
            self.outside = [p for p in leaves(loss) if isinstance(p, nn.Parameter) and id(p) not in own]
        if self._holds_hooks:
            self._hooks.hold(self.outside)

    def hold_hooks(self) -> None:
        """Delay hooks that may step an optimizer: needed where a pass is not the only one, or finds weights moved."""
        self._holds_hooks = True
        self._hooks.hold(self._parameters)

    def measure_scale(self) -> None:
        self._measures_scale = True

    def _note_scale(self, gradient: Tensor) -> None:
        self._scale = gradient.detach()

    def scale_on(self, device: torch.device) -> float | Tensor:
        """Return the factor by which `backward` multiplied the latest loss: loss scaling, accumulation.

        On a GPU it is a tensor [], so that nothing waits for it. Call `measure_scale` before the pass.
        """
        if self._scale is None:
            return 1.0
        return float(self._scale) if functional.is_at_hand(self._scale) else self._scale.to(device)

    def _others(self, loss: Tensor) -> list[Tensor]:
        """Return all tensors to which the backward of `loss` may add a gradient, except the targets."""
        found = {id(p): p for p in (*self._parameters, *leaves(loss))}
        attacked = {id(target.attacked) for target in self._targets}
        return [p for key, p in found.items() if key not in attacked]

    def _find_unused(self, unseen: Collection[Target], loss: Tensor) -> list[Target]:
        """Return the weights that are not in the graph of `loss`, where it shows all that it depends on."""
        hides = any(type(node).__name__ == "CheckpointFunctionBackward" for _, node in nodes(loss))  # a reentrant one
        used = set(map(id, leaves(loss)))
        for target in unseen:
            target.reached = hides or is_sharded(target.attacked) or id(target.attacked) in used
        return [target for target in unseen if not target.reached]

    def _check_reached(self, missing: Sequence[Target], read: Collection[Target], loss: Tensor) -> None:
        """Check that each target is reached by some step, and one of them by this step (think of stochastic depth)."""
        if not missing:
            return
        if len(missing) == len(read) and not {id(p) for p in self._parameters}.intersection(map(id, leaves(loss))):
            raise RuntimeError(
                "the loss depends on no trainable weight of the model that this regularizer was made of: forward calls "
                "another model (a copy, an average), or backward ran none"
            )
        never = [target for target in missing if not target.reached]
        named = [target for target in never if not target.optional]
        if named or len(never) == len(read):
            raise RuntimeError(
                f"attack target {(named or never)[0].name!r} got no gradient: is it part of this model's forward? "
                "(If it is left out at random, name it by a glob: 'layers.*.weight')"
            )

    def forward(self, *, read: bool = True) -> Output:
        """Run the caller's `forward` once; with `read=False` the targets do not read its gradient."""
        for target in self._targets:
            target.again(read)
        if self._state is not None:
            self._state.before_forward()
        torch.clear_autocast_cache()  # under an outer autocast it holds casts of the weights as another pass had them
        result = self._forward()
        if self._state is not None:
            self._state.after_forward()
        loss = result if isinstance(result, Tensor) else getattr(result, "loss", None)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(result).__name__
            hint = ": return dropattack.Output(loss, logits)" if isinstance(result, tuple | list | dict) else ""
            raise ValueError(f"forward must return a scalar loss or an object with a scalar .loss, not {what}{hint}")
        if not loss.requires_grad:
            raise ValueError("the loss that forward returned has no graph: nothing in it requires a gradient")
        loss = loss.reshape(()) if loss.dim() > 0 else loss  # a view of a scalar would be one more node in the graph
        output = Output(loss, getattr(result, "logits", None), getattr(result, "mask", None))
        if self._first is None:
            self._first = _detached(output)
        self._losses.append(output.loss.detach().clone())
        return output

    @property
    def first(self) -> Output:
        """The output of the first forward, detached."""
        assert self._first is not None
        return self._first

    def finish(self) -> Losses:
        if self._done != self._total:
            raise RuntimeError(f"this method announced {self._total} passes and made {self._done}")
        clean, *further = self._losses
        logits = self.first.logits
        return Losses(
            clean, tuple(further), torch.as_tensor(self._objective), logits if isinstance(logits, Tensor) else None
        )

    def close(self) -> None:
        """Restore everything that passes change except gradients, also after an exception."""
        self._hooks.release()
        if self._state is not None:
            self._state.restore()
        torch.clear_autocast_cache()
        for target in self._targets:
            target.begin()

    def call_late_hooks(self) -> None:
        """Call the delayed hooks, after `close` has restored the weights."""
        self._hooks.call()
