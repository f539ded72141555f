"""Attacks on activations: the output of a module, or the model's input."""

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.regularizers.targets import upcast

Start = Callable[[Tensor, Tensor | None], Tensor]
"""Makes an activation's first perturbation from its value [B, …] and the non-padding mask (or None)."""


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
        self._open = self._read = self._is_read_now = self._has_varied = False
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

    def again(self, read: bool = True) -> None:
        self._calls = 0
        self._forward += 1
        self._is_read_now = read

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
        return self._perturb(output, keep, is_shared=any(output is x for x in (*args, *kwargs.values())))

    def _on_input(self, args: tuple, kwargs: dict) -> Any:
        for i, x in enumerate(args):
            if isinstance(x, Tensor) and x.is_floating_point():
                return (*args[:i], self._perturb(x, None, is_shared=True), *args[i + 1 :]), kwargs
        if (name := _input_among(kwargs, self.attacked)) is not None:
            return args, {**kwargs, name: self._perturb(kwargs[name], None, is_shared=True)}
        raise RuntimeError(
            "the model's input has no floating-point tensor to attack: for token ids, attack the embedding instead"
        )

    def _perturb(self, x: Any, keep: Tensor | None, *, is_shared: bool) -> Tensor:
        """Return x, moved if there is a perturbation; `is_shared`: x is also used elsewhere, unmoved."""
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
        if self._read and self._is_read_now:
            if moved is x and x.requires_grad and (is_shared or x.is_leaf):
                moved = x.clone()  # so that the hook sees the gradient of this use alone, and goes with the graph
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


def _input_among(kwargs: dict[str, Any], model: nn.Module) -> str | None:
    """Return the name of the input among the keyword arguments: floating-point, and neither labels nor a mask.

    Of several it is the one that the model itself names (`main_input_name`, in Transformers), or else the first of its
    signature: data collators put the labels first.
    """
    named = [name for name, x in kwargs.items() if isinstance(x, Tensor) and x.is_floating_point()]
    named = [name for name in named if not name.startswith(("label", "target")) and "mask" not in name]
    if len(named) < 2:
        return named[0] if named else None
    if (main := getattr(model, "main_input_name", None)) in named:
        return str(main)
    signature = list(inspect.signature(model.forward).parameters)
    return min(named, key=lambda name: signature.index(name) if name in signature else len(signature))


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

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, None)
