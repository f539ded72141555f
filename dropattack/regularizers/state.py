"""Side effects of a forward: buffers, plain attributes of modules and random states."""

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, Tensor, type(None))
_NO_TENSORS = {bool, int, float, str, type(None), tuple, list, dict, OrderedDict, set}


class Moving:
    """Remembers from step to step which tensors of the modules a forward changes in place, so that others need no copy.

    Most models have none, and some have large tensors that stay.
    """

    def __init__(self) -> None:
        self.known = False
        self.slots: set[tuple[int, str]] = set()

    def forget(self) -> None:
        """Copy everything in the next step, because the model or its mode has changed."""
        self.known = False


class _Entry:
    """A module's buffers and plain attributes at one moment, and the tensors among them."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers, self.attributes = module._buffers.copy(), vars(module).copy()
        self.tensors: list[tuple[str, Tensor]] = []
        for values in (self.buffers, self.attributes):
            if not _NO_TENSORS.issuperset(map(type, values.values())):
                self.tensors += [(name, value) for name, value in values.items() if isinstance(value, Tensor)]

    def is_unchanged(self) -> bool:
        """Return whether each name still has the same object; contents may differ."""
        return _are_same(self.attributes, vars(self.module)) and _are_same(self.buffers, self.module._buffers)

    def put_back(self) -> None:
        if self.is_unchanged():
            return
        pairs: Any = ((self.buffers, self.module._buffers), (self.attributes, vars(self.module)))
        for then, now in pairs:
            for name in [k for k, v in now.items() if then.get(k, _Entry) is not v and isinstance(v, _PLAIN)]:
                if name in then:
                    now[name] = then[name]
                else:
                    del now[name]
            if len(now) < len(then):
                now.update({k: v for k, v in then.items() if k not in now and isinstance(v, _PLAIN)})


def _are_same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Compare objects, not values, because `==` of two tensors is a tensor."""
    if not then and not now:
        return True
    return len(then) == len(now) and all(map(is_, then.values(), now.values())) and list(then) == list(now)


class _Snapshot:
    """The modules' buffers and plain attributes at one moment, with a copy of the tensors that `copies` chooses.

    Args:
        modules: In the same order as those of `before`.
        copies: Called with each module, attribute name and tensor.
        before: An earlier snapshot, of which unchanged entries are used again.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        copies: Callable[[nn.Module, str, Tensor], bool],
        before: "_Snapshot | None" = None,
    ) -> None:
        if before is None:
            self.entries = [_Entry(module) for module in modules]
        else:
            self.entries = [entry if entry.is_unchanged() else _Entry(entry.module) for entry in before.entries]
        self.versions: dict[tuple[int, str], tuple[Tensor, int | None]] = {}
        self.copies: dict[tuple[int, str], tuple[nn.Module, Tensor, Tensor]] = {}
        for entry in self.entries:
            for name, value in entry.tensors:
                slot = id(entry.module), name
                if copies(entry.module, name, value):
                    self.copies[slot] = entry.module, value, value.detach().clone()
                self.versions[slot] = value, _version(value)

    def put_back(self) -> None:
        for entry in self.entries:
            entry.put_back()
        if self.copies:
            with torch.no_grad():
                for _, value, copy in self.copies.values():
                    value.copy_(copy)


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _writes_statistics(module: nn.Module) -> bool:
    """Return whether this is BatchNorm in train mode, which writes its statistics and never reads them."""
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.training


class State:
    """Every forward of a step starts from the state that the step found, and the step leaves the state that one did.

    That is: a BatchNorm's statistics, the vectors of spectral norm, a counter, and the `weight` that weight norm
    computes see the first forward, as in a plain step. With `same_dropout` every forward also starts from the random
    state of the first (torch's, Python's, NumPy's), and the step leaves what the first left.
    """

    def __init__(
        self, modules: list[nn.Module], parameters: Iterable[Tensor], moving: Moving, same_dropout: bool
    ) -> None:
        self._modules, self._moving, self._same_dropout = modules, moving, same_dropout
        self._devices = sorted({p.device.index for p in parameters if p.is_cuda}) if same_dropout else []
        self._start: _Snapshot | None = None
        self._after: _Snapshot | None = None
        self._forwards = 0

    def before_forward(self) -> None:
        self._forwards += 1
        if self._forwards == 1:
            self._start = _Snapshot(self._modules, self._is_copied)
            if self._same_dropout:
                self._random_before = self._random()
            return
        assert self._start is not None
        self._start.put_back()
        if self._same_dropout:
            self._set_random(self._random_before)

    def after_forward(self) -> None:
        if self._forwards > 1:
            return
        # Now, and not before the second forward: by then the weights are moved, and an attribute may be a view of one.
        assert self._start is not None
        self._after = _Snapshot(self._modules, self._is_changed, self._start)
        self._start.copies = {slot: c for slot, c in self._start.copies.items() if slot in self._after.copies}
        self._moving.slots |= {slot for slot, (m, *_) in self._after.copies.items() if not _writes_statistics(m)}
        self._moving.known = True
        if self._same_dropout:
            self._random_after = self._random()

    def _is_copied(self, module: nn.Module, name: str, value: Tensor) -> bool:
        if value.grad_fn is not None or value.is_meta or value.is_inference() or _writes_statistics(module):
            return False
        return not self._moving.known or (id(module), name) in self._moving.slots

    def _is_changed(self, module: nn.Module, name: str, value: Tensor) -> bool:
        """Return whether the first forward wrote into this tensor; a new tensor in its place needs no copy."""
        if _writes_statistics(module):
            return True  # without a new version
        slot = (id(module), name)
        before, version = self._start.versions.get(slot, (None, None)) if self._start else (None, None)
        if value is not before or value.grad_fn is not None or value.is_meta:
            return False
        if _version(value) != version:
            return True
        # Some kernels write without a new version: the values themselves are compared, where they were copied.
        copied = self._start.copies.get(slot) if self._start else None
        return copied is not None and (slot in self._moving.slots or not torch.equal(copied[2], value))

    def restore(self) -> None:
        if self._forwards < 2:
            return
        if self._after is not None:
            self._after.put_back()
        if self._same_dropout:
            self._set_random(self._random_after)

    def _random(self) -> list[Any]:
        numpy = sys.modules.get("numpy")
        return [
            torch.get_rng_state(),
            random.getstate(),
            None if numpy is None else numpy.random.get_state(),
            *(torch.cuda.get_rng_state(d) for d in self._devices),
        ]

    def _set_random(self, states: list[Any]) -> None:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        if states[2] is not None:
            sys.modules["numpy"].random.set_state(states[2])
        for device, state in zip(self._devices, states[3:], strict=True):
            torch.cuda.set_rng_state(state, device)
