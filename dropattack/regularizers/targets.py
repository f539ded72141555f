"""Targets of an attack: what they have in common, and weights. `rows.py` has embedding rows, `activations.py` the rest.

All targets share a few calls, so that a method is written once for all of them:

    with target.listening(read=True, keep=True, last=False):   # around one forward-backward
        ...
    target.gradient                                            # of that pass alone, or None if it had none
    with target.shifted(r):                                    # attacked value + r, put back bit for bit afterwards
        ...
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dropattack.regularizers.gradients import isolated


class Target(Protocol):
    name: str
    per_example: bool
    gradient: Tensor | None
    attacked: Any  # the parameter, or the module
    optional: bool  # one of a glob's matches: it need not be part of every model's forward
    reached: bool  # a pass has given it a gradient since the regularizer was made

    @property
    def result(self) -> Any:
        """The state left by a pass: its gradient, and what `value()` needs. Setting it restores that pass."""

    @result.setter
    def result(self, result: Any) -> None: ...

    def begin(self) -> None:
        """Forget the last step."""

    def again(self, read: bool = True) -> None:
        """Before each forward of a pass; `read`: whether its gradient is a part of the pass's."""

    def listening(self, *, read: bool, keep: bool, last: bool) -> AbstractContextManager[None]:
        """Watch one pass: `read` its own gradient; `keep` it in `.grad`; `last` of the step."""

    def shifted(self, r: Any) -> AbstractContextManager[None]:
        """Add `r` (None: nothing) to the attacked value inside the block; restore it bit for bit after it."""

    def value(self) -> Tensor:
        """Return the attacked value, in the shape of `gradient`."""

    def measured(self) -> Tensor:
        """Return the value without the rows of an embedding that have no gradient: what a relative ε is a part of."""


def upcast(gradient: Any) -> Any:
    """Convert 16-bit gradients to float32, the precision of perturbations. None (no gradient) stays None."""
    if gradient is None or gradient.dtype is torch.float32:
        return gradient
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))


class Weight:
    """A parameter, whole.

    Attributes:
        is_table: Whether it belongs to an `nn.Embedding` or `nn.EmbeddingBag`: a batch uses only some of its rows.
    """

    per_example = False

    def __init__(self, name: str, parameter: nn.Parameter, is_table: bool = False) -> None:
        self.name = name
        self.is_table = is_table
        self.attacked = self.parameter = parameter
        self.optional = self.reached = False
        self.gradient: Tensor | None = None

    def begin(self) -> None:
        self.gradient = None

    @property
    def result(self) -> Any:
        return self.gradient

    @result.setter
    def result(self, result: Any) -> None:
        self.gradient = result

    def again(self, read: bool = True) -> None:
        pass

    @contextmanager
    def listening(self, *, read: bool, keep: bool, last: bool) -> Iterator[None]:
        with _isolated([self], keep, [self] if read else ()) if self.is_isolated(read, keep, last) else nullcontext():
            yield

    def is_isolated(self, read: bool, keep: bool, last: bool) -> bool:
        """Return whether a pass must find `.grad` empty: to read its own gradient, or to drop it."""
        # The last pass adds straight into `.grad`, where hooks (DDP's, say) find the sum of all passes.
        return not last and (read or not keep)

    @property
    def is_moved_whole(self) -> bool:
        return True

    @contextmanager
    def shifted(self, r: Tensor | None) -> Iterator[None]:
        with _moved([self.parameter], [r]) if r is not None else nullcontext():
            yield

    def value(self) -> Tensor:
        return self.parameter.detach()

    def rows_in_use(self) -> Tensor | None:
        """Return a bool for each row of an embedding, [V, 1]: True where it has a gradient. None for other weights."""
        return self.gradient.ne(0).any(-1, keepdim=True) if self.is_table and self.gradient is not None else None

    def measured(self) -> Tensor:
        rows = self.rows_in_use()
        return self.value() if rows is None else self.value().masked_fill(~rows, 0.0)


@contextmanager
def _isolated(weights: Sequence[Weight], keep: bool, read: Container[Target]) -> Iterator[None]:
    with isolated([w.parameter for w in weights], keep) as own:
        yield
    for weight, gradient in zip(weights, own(), strict=True):
        if weight in read:
            weight.gradient = upcast(gradient)


@contextmanager
def listening(targets: Iterable[Target], read: Container[Target], *, keep: bool, last: bool) -> Iterator[None]:
    """Watch one pass with all `targets`, as with `target.listening`; plain weights are handled together."""
    isolated_weights: list[Weight] = []
    with ExitStack() as stack:
        for target in targets:
            if type(target) is not Weight:
                stack.enter_context(target.listening(read=target in read, keep=keep, last=last))
            elif target.is_isolated(target in read, keep, last):
                isolated_weights.append(target)
        if isolated_weights:
            stack.enter_context(_isolated(isolated_weights, keep, read))
        yield


def shifted(pairs: Sequence[tuple[Target, Any]]) -> AbstractContextManager[None]:
    """Add r to each target inside the block, as with `target.shifted(r)`; whole weights are moved in one call."""
    if len(pairs) == 1:
        ((target, r),) = pairs
        return target.shifted(r)
    return _shifted_together(pairs)


@contextmanager
def _shifted_together(pairs: Sequence[tuple[Target, Any]]) -> Iterator[None]:
    whole = [(t.parameter, r) for t, r in pairs if isinstance(t, Weight) and t.is_moved_whole and r is not None]
    with ExitStack() as stack:
        if whole:
            stack.enter_context(_moved(*zip(*whole, strict=True)))
        for target, r in pairs:
            if not (isinstance(target, Weight) and target.is_moved_whole):
                stack.enter_context(target.shifted(r))
        yield


@contextmanager
def _moved(parameters: Sequence[Tensor], shifts: Sequence[Tensor]) -> Iterator[None]:
    """Add the shifts in place, because an RNN's weights are views of one flat buffer and must stay so."""
    together = all(type(p) is nn.Parameter and p.dtype == r.dtype for p, r in zip(parameters, shifts, strict=True))
    with torch.no_grad():
        if together:
            backups = [torch.empty_like(p) for p in parameters]  # and one call instead of a `clone` each
            torch._foreach_copy_(backups, list(parameters))
        else:
            backups = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            if together:
                torch._foreach_add_(list(parameters), list(shifts))
            else:
                for p, backup, r in zip(parameters, backups, shifts, strict=True):
                    p.copy_(backup + r)
        yield
    finally:
        with torch.no_grad():
            if together:
                torch._foreach_copy_(list(parameters), backups)
            else:
                for p, backup in zip(parameters, backups, strict=True):
                    p.copy_(backup)
