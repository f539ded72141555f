"""Counters and random generators that a method keeps from step to step, and its `state_dict`."""

import hashlib
from collections.abc import Iterable
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from dropattack.regularizers import functional
from dropattack.regularizers.activations import Activation
from dropattack.regularizers.checks import integer
from dropattack.regularizers.targets import Target


class _Saved(TypedDict):
    method: str
    calls: int
    skipped: int
    generators: dict[str, Tensor]


class Saved(_Saved, total=False):
    """The state of a regularizer, as `state_dict` returns it.

    `own` is what the method itself keeps, `seed` that of generators that have not drawn yet (missing in old states).
    """

    own: dict[str, object]
    seed: int


def _own_seed() -> int:
    """Return a seed that follows from torch's, and is another: that one's numbers have become the initial weights.

    Each process of a distributed training has its own, because its rows are others.
    """
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    place = f"{torch.initial_seed()}/dropattack{f'/rank{rank}' if rank else ''}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:7], "big")


class Persistent:
    """The counters and random generators of a method; `Regularizer` documents `seed`."""

    def __init__(self, names: str | list[Any] | None, seed: int | None) -> None:
        self._names = names  # of the targets, as given
        self.seed = _own_seed() if seed is None else integer(seed, "seed")
        self._generators: dict[str, Generator] = {}
        self._saved: dict[str, Tensor] = {}  # restored states of generators, by device, until something is drawn there
        self._calls = 0
        self._skipped: Tensor | None = None
        self._skipped_before = 0

    @property
    def skipped(self) -> int:
        """Number of perturbations skipped because a norm was zero or not finite, or a module was left out of the step.

        Synchronises with the device.
        """
        return self._skipped_before + (0 if self._skipped is None else int(self._skipped))

    def _generator(self, device: torch.device) -> Generator:
        """Return the method's own generator on a device, separate from torch's global one."""
        key = str(device)
        if key not in self._generators:
            self._generators[key] = Generator(device).manual_seed(self.seed % 2**63)
            if (saved := self._saved_on(device)) is not None:
                self._generators[key].set_state(self._saved.pop(saved).cpu())
        return self._generators[key]

    def _saved_on(self, device: torch.device) -> str | None:
        """Return the name of the device whose restored state continues here: this one, or another GPU."""
        if str(device) in self._saved:
            return str(device)
        alike = [name for name in self._saved if torch.device(name).type == device.type]
        return alike[0] if len(alike) == 1 else None

    def _count_skipped(self, norm: Tensor, length: float | Tensor = 1.0) -> Tensor | None:
        """Count the norms that are not usable, or whose `length` is zero (a part of a weight that is zero).

        Returns:
            A bool for each norm, True where it was counted; None where none was.
        """
        skipped = functional.unusable(norm * (length > 0) if isinstance(length, Tensor) else norm)
        if skipped is not None:
            count = skipped.sum()
            self._skipped = count if self._skipped is None else self._skipped + count.to(self._skipped.device)
        return skipped

    def _count_left_out(self, targets: Iterable[Target]) -> None:
        """Count the activations that the latest forward did not compute, so that nothing was added to them."""
        self._skipped_before += sum(isinstance(t, Activation) and t.applied is None for t in targets)

    def state_dict(self) -> Saved:
        """Return counters and random states: with these and equal weights, the next step is equal bit for bit."""
        generators = self._saved | {device: g.get_state() for device, g in self._generators.items()}
        state: Saved = {
            "method": self._identity(), "calls": self._calls, "skipped": self.skipped, "generators": generators,
            "seed": self.seed,
        }  # fmt: skip
        if own := self._own_state():
            state["own"] = own
        return state

    def _own_state(self) -> dict[str, Any]:
        """Return what else the method keeps from step to step: tensors and numbers by name."""
        return {}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `_own_state`; `{}` is the state before the first step."""

    def load_state_dict(self, state: Saved) -> None:
        """Continue from where `state_dict` was taken.

        Raises:
            ValueError: It is the state of another method or of other targets.
        """
        if state.get("method") != self._identity():
            raise ValueError(f"this is {self._identity()}, and the state is of {state.get('method', 'no regularizer')}")
        self._calls, self._skipped_before, self._skipped = int(state["calls"]), int(state["skipped"]), None
        self.seed = int(state.get("seed", self.seed))
        self._generators, self._saved = {}, dict(state["generators"])
        self._load_own_state(state.get("own", {}))

    def _identity(self) -> str:
        """Use the targets' names as given, because what they match may change while a model is unfrozen."""
        names = [self._names] if isinstance(self._names, str) else self._names or []
        return f"{type(self).__name__}({', '.join(map(str, names))})"
