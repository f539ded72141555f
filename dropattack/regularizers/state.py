"""Side effects of a forward: buffers, plain attributes of modules, weights that it writes, and random states."""

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropattack.regularizers import functional

_PLAIN = (bool, int, float, str, Tensor, type(None))
_NO_TENSORS = {bool, int, float, str, type(None), tuple, list, dict, OrderedDict, set}
# Sizes in elements. A small tensor is copied in every step, since any forward may begin to write it; a large weight is
# not copied before it is known to change.
_SMALL, _LARGE = 65_536, 4_000_000
# These write their statistics in train mode, without a new version.
_STATISTICS = frozenset(
    [
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    ]
)


class Moving:
    """Remembers from step to step which tensors of the modules a forward changes in place, so that others need no copy.

    Most models have none, and some have large tensors that stay. The first step that sees a forward write a large
    weight (of a teacher, a moving average) leaves it as the first forward did, but its further forwards start from
    there.
    """

    STEPS = 2  # in which everything is looked at: a teacher that starts as its student's equal stays so in the first

    def __init__(self) -> None:
        self._seen = 0
        self.slots: set[tuple[int, str]] = set()

    @property
    def known(self) -> bool:
        return self._seen >= self.STEPS

    def see(self) -> None:
        """Count a step."""
        self._seen += 1

    def forget(self) -> None:
        """Look at everything again, because the model or its mode has changed."""
        self._seen = 0


class _Entry:
    """A module's buffers and plain attributes at one moment, the tensors among them, and its weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers, self.attributes = module._buffers.copy(), vars(module).copy()
        self.tensors: list[tuple[str, Tensor]] = []
        for values in (self.buffers, self.attributes):
            if not _NO_TENSORS.issuperset(map(type, values.values())):
                self.tensors += [(name, value) for name, value in values.items() if isinstance(value, Tensor)]
        # Only plain ones: the values of a sharded or quantised weight cannot be told from its place. A trained
        # embedding with max_norm writes the rows that it looks up, and a further forward of them writes nothing new.
        writes_rows = getattr(module, "max_norm", None) is not None
        for name, p in module._parameters.items():
            if type(p) is nn.Parameter and not (writes_rows and p.requires_grad):
                self.tensors.append((name, p))

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
        sums: Called with each tensor that is not copied: whether to take sums, which tell if it changes.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        copies: Callable[[nn.Module, str, Tensor], bool],
        before: "_Snapshot | None" = None,
        sums: Callable[[Tensor], bool] = lambda value: False,
    ) -> None:
        if before is None:
            self.entries = [_Entry(module) for module in modules]
        else:
            self.entries = [entry if entry.is_unchanged() else _Entry(entry.module) for entry in before.entries]
        self.places: dict[tuple[int, str], tuple[Tensor, tuple[int, int] | None]] = {}
        self.sums: dict[tuple[int, str], Tensor] = {}
        copied: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}
        for entry in self.entries:
            for name, value in entry.tensors:
                slot = id(entry.module), name
                if copies(entry.module, name, value):
                    copied[slot] = entry.module, value
                elif sums(value):
                    self.sums[slot] = _sums(value)
                self.places[slot] = value, _place(value)
        self.copies = dict(zip(copied, _copied([*copied.values()]), strict=True))

    def put_back(self) -> None:
        for entry in self.entries:
            entry.put_back()
        _write(self.copies.values())


class _Copy(NamedTuple):
    """A tensor of a module, and a copy of it.

    Attributes:
        is_quiet: Whether it is written without a new version: statistics, because a pass with two forwards (R-Drop)
            puts them back while the graph of the first one waits.
        is_plain: Whether many are written in one call.
    """

    module: nn.Module
    value: Tensor
    copy: Tensor
    is_quiet: bool
    is_plain: bool

    @property
    def to(self) -> Tensor:
        return self.value.data if self.is_quiet else self.value


def _copied(values: list[tuple[nn.Module, Tensor]]) -> list[_Copy]:
    made = []
    for module, value in values:
        is_plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
        copy = torch.empty_like(value) if is_plain else value.detach().clone()
        is_quiet = type(module) in _STATISTICS and not isinstance(value, nn.Parameter)
        made.append(_Copy(module, value, copy, is_quiet, is_plain))
    _copy_all([(one.copy, one.value) for one in made if one.is_plain])
    return made


def _write(copies: Collection[_Copy]) -> None:
    with torch.no_grad():
        for one in copies:
            if one.value.shape != one.copy.shape:  # an observer, which takes its size from the first batch
                one.value.resize_(one.copy.shape)
            if not one.is_plain:
                one.to.copy_(one.copy)
    _copy_all([(one.to, one.copy) for one in copies if one.is_plain])


def _copy_all(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy the second of each pair into the first, in one call per kind: a network has many statistics."""
    kinds: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for to, source in pairs:
        into, out_of = kinds.setdefault((to.device, to.dtype), ([], []))
        into.append(to)
        out_of.append(source)
    with torch.no_grad():
        for into, out_of in kinds.values():
            torch._foreach_copy_(into, out_of)


def _place(x: Tensor) -> tuple[int, int] | None:
    """Return what changes when a tensor is written or its `.data` is set; a write to `x.data` does not show."""
    if x.is_inference() or x.is_meta:
        return None
    return x._version, x.data_ptr() if type(x) in (Tensor, nn.Parameter) and x.layout is torch.strided else 0


def _sums(x: Tensor) -> Tensor:
    """Return two numbers that differ after nearly every change of the values."""
    x = torch.view_as_real(x.detach()) if x.is_complex() else x.detach()
    return torch.stack([x.sum(dtype=torch.float64), torch.linalg.vector_norm(x.float(), dtype=torch.float64)])


def _writes_statistics(module: nn.Module) -> bool:
    return module.training and type(module) in _STATISTICS


class State:
    """Every forward of a step starts from the state that the step found, and the step leaves the state that one did.

    That is: a BatchNorm's statistics, the vectors of spectral norm, a counter, and the `weight` that weight norm
    computes see the first forward, as in a plain step. With `same_dropout` every forward also starts from the random
    state of the first (torch's, Python's, NumPy's), and the step leaves what the first left.

    Args:
        modules: All of the model.
        parameters: All of the model.
        moving: What earlier steps have found.
        same_dropout: Whether all forwards draw the same random numbers.
        attacked: `id`s of the weights that the method moves, and puts back itself.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        parameters: Iterable[Tensor],
        moving: Moving,
        same_dropout: bool,
        attacked: Collection[int] = (),
    ) -> None:
        self._modules, self._moving, self._same_dropout, self._attacked = modules, moving, same_dropout, attacked
        self._devices = sorted({p.device.index for p in parameters if p.is_cuda}) if same_dropout else []
        if others := {p.device.type for p in parameters} - {"cpu", "cuda", "meta"} if same_dropout else ():
            raise RuntimeError(f"dropout_masks='shared' works on CPUs and CUDA devices, not on {', '.join(others)}")
        self._start: _Snapshot | None = None
        self._after: _Snapshot | None = None
        self._unchanged: list[_Copy] = []
        self._forwards = 0

    def before_forward(self) -> None:
        self._forwards += 1
        if self._forwards == 1:
            self._start = _Snapshot(self._modules, self._is_copied, sums=self._is_summed)
            if self._same_dropout:
                self._random_before = self._random()
            return
        self.after_pass()
        assert self._start is not None
        self._start.put_back()
        if self._same_dropout:
            self._set_random(self._random_before)

    def after_forward(self) -> None:
        if self._forwards == 1 and self._same_dropout:
            self._random_after = self._random()

    def after_pass(self) -> None:
        """Keep what the first forward and its backward have left; a pass may make several forwards before that."""
        # Before anything is moved for the second pass, because an attribute may be a view of a weight.
        if self._after is not None:
            return
        assert self._start is not None
        self._after = _Snapshot(self._modules, self._is_changed, self._start)
        changed = self._after.copies.keys()
        if not self._moving.known:  # a later forward of the step may write what the first did not
            unchanged = (one for slot, one in self._start.copies.items() if slot not in changed)
            self._unchanged = [one for one in unchanged if not one.value.requires_grad]
        self._start.copies = {slot: one for slot, one in self._start.copies.items() if slot in changed}
        self._moving.slots |= {slot for slot, one in self._after.copies.items() if not _writes_statistics(one.module)}
        self._moving.see()

    def _is_copied(self, module: nn.Module, name: str, value: Tensor) -> bool:
        if value.grad_fn is not None or value.is_meta or value.is_inference() or id(value) in self._attacked:
            return False
        if (id(module), name) in self._moving.slots:
            return True
        if value.layout is not torch.strided:  # a write to a sparse tensor shows in its version alone
            return False
        if isinstance(value, nn.Parameter):
            # A small teacher on a CPU may begin later, by `.data`, which makes no new version.
            may_begin = not value.requires_grad and value.numel() <= _SMALL and functional.is_at_hand(value)
            return may_begin or (not self._moving.known and value.numel() <= _LARGE)
        return not self._moving.known or value.numel() <= _SMALL

    def _is_summed(self, value: Tensor) -> bool:
        if self._moving.known or value.is_meta or id(value) in self._attacked:
            return False
        return isinstance(value, nn.Parameter) and value.numel() > _LARGE

    def _is_changed(self, module: nn.Module, name: str, value: Tensor) -> bool:
        """Return whether the first forward wrote into this tensor; a new tensor in its place needs no copy."""
        if _writes_statistics(module) and not isinstance(value, nn.Parameter):
            return True  # without a new version
        slot = (id(module), name)
        assert self._start is not None
        before, place = self._start.places.get(slot, (None, None))
        if value is not before or value.grad_fn is not None or value.is_meta or id(value) in self._attacked:
            return False
        if slot in self._moving.slots or _place(value) != place:
            return True
        if self._moving.known and not functional.is_at_hand(value):
            return False
        # Some kernels, and all writes to `.data`, make no new version: the values themselves are compared.
        if slot in self._start.copies:
            return not torch.equal(self._start.copies[slot].copy, value)
        return slot in self._start.sums and not torch.equal(self._start.sums[slot], _sums(value))

    def restore(self) -> None:
        if self._forwards < 2:
            return
        if self._after is not None:
            self._after.put_back()
        _write(self._unchanged)
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
