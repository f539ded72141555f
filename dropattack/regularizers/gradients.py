"""Handling of `.grad` around a pass: set aside, added to, and hooks that watch it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def checked(gradient: Tensor | None) -> Tensor | None:
    """Return the gradient itself.

    Raises:
        RuntimeError: It has a graph.
    """
    if gradient is not None and gradient.requires_grad:
        raise RuntimeError(
            "backward kept the graph of a gradient (create_graph=True), and the passes of a step move the weights in "
            "place, so that nothing can be differentiated through it: leave create_graph out, and compute a penalty on "
            "gradients in forward (torch.autograd.grad)"
        )
    return gradient


@contextmanager
def isolated(parameters: Sequence[Tensor], keep: bool) -> Iterator[Callable[[], list[Tensor | None]]]:
    """Set `.grad` of these aside, so that the pass inside finds it empty; if `keep`, add the pass's gradient to it.

    Yields:
        A function that returns the pass's own gradients (dense, not shared with `.grad`) once the block has ended.
    """
    held = [p.grad for p in parameters]
    own: list[Tensor | None] = [None] * len(held)
    for p in parameters:
        p.grad = None
    try:
        yield lambda: [g.to_dense() if g is not None and g.is_sparse else g for g in own]
        own = [checked(p.grad) for p in parameters]
    finally:
        # The same tensor object goes back: DDP may hold a view of it.
        for p, before, gradient in zip(parameters, held, own, strict=True):
            if not keep or gradient is None:
                p.grad = before
            else:
                p.grad = gradient.clone() if before is None else _sum(before, gradient)


def _sum(held: Tensor, own: Tensor) -> Tensor:
    if held.is_sparse and not own.is_sparse:
        return own + held
    return held.add_(own)


@contextmanager
def aside(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Drop what the pass inside adds to `.grad` of these."""
    held = [(p, p.grad) for p in parameters if p.requires_grad]
    try:
        for p, _ in held:
            p.grad = None
        yield
    finally:
        for p, gradient in held:
            p.grad = gradient


class LateHooks:
    """Delays the post-accumulate-grad hooks of parameters until the end of a step, when `.grad` is complete.

    Such a hook may step an optimizer: between two passes it would see a part of the gradient, and in a pass that is
    attacked it would move the attacked weight.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[Tensor, dict[Any, Any], dict[Any, Any]]] = {}
        self._reached: dict[int, Tensor] = {}

    def hold(self, parameters: Iterable[Tensor]) -> None:
        for p in parameters:
            hooks = getattr(p, "_post_accumulate_grad_hooks", None)
            if hooks and id(p) not in self._held:
                self._held[id(p)] = (p, hooks, dict(hooks))
                hooks.clear()
                hooks["reached"] = self._note

    def _note(self, parameter: Tensor) -> None:
        self._reached[id(parameter)] = parameter

    def release(self) -> None:
        """Restore the hooks, also after an exception."""
        for _, hooks, own in self._held.values():
            hooks.clear()
            hooks.update(own)

    def call(self) -> None:
        """Call the hooks of every parameter that got a gradient since `hold`."""
        with torch.no_grad():
            for key, (parameter, _, own) in self._held.items():
                if key in self._reached and parameter.grad is not None:
                    for hook in own.values():
                        hook(parameter)


def is_sharded(parameter: nn.Parameter) -> bool:
    """Return whether each process holds only a piece of this weight (FSDP1, DeepSpeed ZeRO-3)."""
    return hasattr(parameter, "_fsdp_flattened") or hasattr(parameter, "_is_flat_param") or hasattr(parameter, "ds_id")
