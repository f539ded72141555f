"""Targets of an attack: weights, activations of a module, the model's input; embedding rows are in `rows.py`.

All targets share a few calls, so that a method is written once for all of them:

    with target.listening(read=True, keep=True, last=False):   # around one forward-backward
        ...
    target.gradient                                            # of that pass alone, or None if it had none
    with target.shifted(r):                                    # attacked value + r, put back bit for bit afterwards
        ...
"""

import sys
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dropattack.regularizers.gradients import isolated

Start = Callable[[Tensor, Tensor | None], Tensor]
"""Makes an activation's first perturbation from its value [B, …] and the non-padding mask (or None)."""


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

    def again(self) -> None:
        """Before each forward of a pass."""

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

    def again(self) -> None:
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


class Activation:
    """The output of a module, or the model's input; each example has a perturbation and a norm of its own.

    What is outside of this class (`gradient`, `value()`, r) has the examples in its first dimension, wherever they are
    in the model.

    Attributes:
        batch_dim: The dimension of the examples; None for the first, where no module of the model says otherwise.
        sequence_first: Name of a module whose `batch_first` is False, if there is one.

    Raises (in the pass): RuntimeError if the module is not called, is called twice, or gives no floating-point tensor.
    """

    per_example = True

    def __init__(self, name: str, module: nn.Module, of_input: bool = False) -> None:
        self.name = name
        self.attacked = module
        self.optional = self.reached = False
        self.batch_dim: int | None = None
        self.sequence_first: str | None = None
        self._calls = self._forward = self._forwards_before = 0
        self._open = self._read = self._has_varied = False
        self._of_input = of_input
        self._padding_id = module.padding_idx if isinstance(module, nn.Embedding) else None
        self.begin()
        self._install()

    def _install(self) -> None:
        # Installed as long as the regularizer lives, and asleep outside a pass: a compiled model keeps the hooks of its
        # first call.
        _Hook.keep_out_of_graphs()
        if self._of_input:
            handle = self.attacked.register_forward_pre_hook(_Hook(self, Activation._on_input), with_kwargs=True)
        else:
            handle = self.attacked.register_forward_hook(_Hook(self, Activation._on_output), with_kwargs=True)
        weakref.finalize(self, handle.remove)
        self._is_installed = True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, whose hook is installed in its first pass."""
        return {**self.__dict__, "_is_installed": False}

    def begin(self) -> None:
        self.gradient: Tensor | None = None
        self.applied: Tensor | None = None  # the perturbation of the latest pass
        self._shift: Tensor | Start | None = None
        self._value: Tensor | None = None
        self._parts: dict[int, Tensor] = {}  # the gradient of each forward of the pass

    @property
    def result(self) -> Any:
        return self.gradient, self._value

    @result.setter
    def result(self, result: Any) -> None:
        self.gradient, self._value = result

    def again(self) -> None:
        self._calls = 0
        self._forward += 1

    @contextmanager
    def listening(self, *, read: bool, keep: bool, last: bool) -> Iterator[None]:
        _Hook.keep_out_of_graphs()
        if not self._is_installed:
            self._install()
        self._open, self._read, self._calls = True, read and not last, 0
        self._forwards_before, self._has_varied = self._forward, False
        self.applied = None
        self._parts.clear()
        if self._read:
            self.gradient = None
        try:
            yield
        finally:
            self._open = False
        if not self._calls and not self.reached:
            raise RuntimeError(
                f"attack target {self.name!r} was not called: is it part of this model's forward? "
                "(If it is compiled: make the regularizer before the first call, with "
                "torch._dynamo.config.skip_nnmodule_hook_guards = False.)"
            )
        self.reached = True

    @contextmanager
    def shifted(self, r: Tensor | Start | None) -> Iterator[None]:
        self._shift = r
        try:
            yield
        finally:
            self._shift = None

    def value(self) -> Tensor:
        if self._value is None:
            if not self.reached:
                raise RuntimeError(f"attack target {self.name!r} has not been computed yet")
            return torch.zeros(1)  # left out of this step (stochastic depth): nothing that is moved by nothing
        return self._value

    def measured(self) -> Tensor:
        return self.value()

    def _on_output(self, args: tuple, kwargs: dict, output: Any) -> Any:
        ids = args[0] if args else kwargs.get("input")
        keep = None if self._padding_id is None or ids is None else (ids != self._padding_id).unsqueeze(-1)
        return self._perturb(output, keep)

    def _on_input(self, args: tuple, kwargs: dict) -> Any:
        for i, x in enumerate(args):
            if isinstance(x, Tensor) and x.is_floating_point():
                return (*args[:i], self._perturb(x, None), *args[i + 1 :]), kwargs
        for name, x in kwargs.items():
            if isinstance(x, Tensor) and x.is_floating_point():
                return args, {**kwargs, name: self._perturb(x, None)}
        raise RuntimeError(
            "the model's input has no floating-point tensor to attack: for token ids, attack the embedding instead"
        )

    def _perturb(self, x: Any, keep: Tensor | None) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise RuntimeError(
                f"attack target {self.name!r} gives {type(x).__name__}, not a floating-point tensor"
                f"{': name its weights instead' if isinstance(x, tuple) else ''}"
            )
        # A call inside a backward is gradient checkpointing, which recomputes the module: use the same perturbation.
        is_again = torch._C._current_graph_task_id() != -1
        if is_again and self._has_varied:
            raise RuntimeError(self._recomputed())
        if not is_again:
            if self._calls:
                raise RuntimeError(
                    f"attack target {self.name!r} is called twice in one forward: attack its weight instead"
                )
            if self.batch_dim is None and self.sequence_first is not None and x.dim() == 3:
                raise RuntimeError(
                    f"attack target {self.name!r} has the shape {tuple(x.shape)}, and {self.sequence_first!r} takes "
                    "sequences first (batch_first=False): say which dimension the examples are in, batch_dim=1 for "
                    "[time, batch, features] or batch_dim=0"
                )
            if self.batch_dim is not None and not -x.dim() <= self.batch_dim < x.dim():
                raise RuntimeError(
                    f"attack target {self.name!r} has the shape {tuple(x.shape)}, which has no dimension "
                    f"batch_dim={self.batch_dim}"
                )
            self._calls += 1
            value = self._examples_first(x.detach())
            if keep is not None and self.batch_dim:
                keep = keep.movedim(self.batch_dim, 0)
            shift, before = self._shift, self.applied
            self.applied = shift if shift is None or isinstance(shift, Tensor) else shift(value, keep)
            self._has_varied |= self._forward > self._forwards_before + 1 and self.applied is not before
            # Without a perturbation the model is handed x itself, and may change it in place.
            is_handed_on = self.applied is None and (self._read or self._value is None)
            self._value = value.clone() if is_handed_on else value
        moved = x
        if self.applied is not None:
            r = self.applied
            if self.batch_dim and r.dim() == x.dim():
                r = r.movedim(0, self.batch_dim)
            moved = x + r.to(x)
        if self._read:
            store = partial(self._store, self._forward, is_again)
            if moved.requires_grad:
                moved.register_hook(store)
            else:  # an image, or the output of a frozen layer; not a leaf, which could not be changed in place
                leaf = moved.detach().requires_grad_()
                leaf.register_hook(store)
                with torch.enable_grad():
                    moved = leaf.clone()
        return moved

    def _examples_first(self, x: Tensor) -> Tensor:
        return x.movedim(self.batch_dim, 0) if self.batch_dim else x

    def _recomputed(self) -> str:
        return (
            f"attack target {self.name!r} is inside a checkpointed block, and this method makes several forwards per "
            "pass: a recomputation does not say which it repeats. Attack something outside the block"
        )

    def _store(self, forward: int, is_again: bool, gradient: Tensor) -> None:
        if is_again and forward > self._forwards_before + 1:
            raise RuntimeError(self._recomputed())
        self._parts[forward] = upcast(self._examples_first(gradient.detach()))
        parts = list(self._parts.values())
        self.gradient = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


class _Hook:
    """Forwards to a target while it listens. Holds it weakly, because the model does not own its attackers.

    A copy of the model (an EMA, a spawned process) gets a hook that does nothing.
    """

    _is_out = False

    def __init__(self, target: Activation | None, method: Callable[..., Any] | None) -> None:
        self._target = None if target is None else weakref.ref(target)
        self._method = method

    def __call__(self, module: nn.Module, *call: Any) -> Any:
        target = self._target() if self._target else None
        return self._method(target, *call) if self._method and target is not None and target._open else None

    # The mark of torch.compiler.disable, set here because that imports torch._dynamo, slower to import than torch.
    __call__._torchdynamo_disable = True  # type: ignore[attr-defined]

    @classmethod
    def keep_out_of_graphs(cls) -> None:
        """Keep torch.compile from tracing the hook, if torch.compile has been imported."""
        if "torch._dynamo" in sys.modules and not cls._is_out:
            cls.__call__ = torch.compiler.disable(cls.__call__)  # type: ignore[method-assign]
            cls._is_out = True

    def __reduce__(self):
        return _Hook, (None, None)
