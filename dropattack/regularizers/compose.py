"""Several methods in one step, which share one clean pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dropattack.regularizers.base import Regularizer
from dropattack.regularizers.checks import kind
from dropattack.regularizers.identity import Identity
from dropattack.regularizers.passes import Output, Passes
from dropattack.regularizers.targets import Target, Weight


class Compose(Regularizer):
    """L(θ) + Σ_i A_i, where L(θ) + A_i is the objective of the i-th method.

    At most one of the methods, at any position, may replace L(θ) by another objective (SAM, AWP, R-Drop, Flooding, …).
    Its first pass is then the shared one, and the gradient of that pass gives the directions of all others.

    Args:
        *methods: Built over the same model. Each keeps its own `every`, `start_step`, `warmup`, `schedule`, `seed` and
            random numbers. `state_dict`, `follow` and `skipped` cover all of them. A `Compose` among them stands for
            its methods.

    Raises:
        TypeError: An argument is not a method.
        ValueError: There is none, or they have different models or dropout masks; two of them replace L(θ); one has no
            clean pass to share; two of a class would draw the same random numbers; or two attack one weight in forms
            that cannot be read at once.
    """

    def __init__(self, *methods: Regularizer) -> None:
        if wrong := [m for m in methods if not isinstance(m, Regularizer)]:
            raise TypeError(f"Compose takes methods, as in Compose(FGM(model), AWP(model)), not {kind(wrong[0])}")
        if not methods:
            raise ValueError("Compose needs at least one method")
        self.methods: tuple[Regularizer, ...] = tuple(
            m for one in methods for m in (one.methods if isinstance(one, Compose) else (one,))
        )
        methods = self.methods
        models = {id(m.model): m.model for m in methods if m.model is not None}
        if len(models) > 1:
            raise ValueError("Compose needs methods over one model, and these have several")
        if len({m.dropout_masks for m in methods}) > 1:
            raise ValueError("Compose needs one dropout_masks for all methods, and these have both")
        if len(methods) > 1 and (alone := [m for m in methods if m.composition == "alone"]):
            raise ValueError(
                f"{type(alone[0]).__name__} has no clean pass that others could share: it cannot be composed"
            )
        leads = [m for m in methods if m.composition != "adds"]
        if len(leads) > 1:
            both = " and ".join(type(m).__name__ for m in leads[:2])
            raise ValueError(
                f"{both} both replace the gradient of L(θ): only one such method can be composed with others"
            )
        drawing = [(type(m), m.seed) for m in methods if m.draws]
        if same := [method.__name__ for method, seed in drawing if drawing.count((method, seed)) > 1]:
            raise ValueError(
                f"two {same[0]} with one seed draw the same random numbers: give each its own, as in "
                f"{same[0]}(model, targets, seed=1)"
            )
        self._lead = leads[0] if leads else Identity()
        self._adders = [m for m in methods if m is not self._lead]
        self.is_linear = all(m.is_linear for m in methods)
        self.needs_logits = any(m.needs_logits for m in methods)
        super().__init__(next(iter(models.values()), None), None, dropout_masks=methods[0].dropout_masks)

    def _resolved(self) -> None:
        for method in self.methods:
            method._modules, method._parameters = method._look()
        self.targets = _shared(self.methods)
        self._set_passes(self._lead.passes + sum(m.passes - 1 for m in self._adders))

    def _backwards(self) -> int:
        lead = self._lead._backwards() if self._lead._attacks_now() else 1
        return lead + sum(m._backwards() - 1 for m in self._adders if m._attacks_now())

    def _attack(self, run: Passes) -> None:
        adders = [m for m in self._adders if m._attacks_now()]
        first = _FirstPass(run, list(dict.fromkeys(t for m in adders for t in m.targets)))
        lead: Any = first
        if self._lead._attacks_now():
            self._lead._attack(lead)
        else:
            lead()
        for method in adders:
            first.put_back()
            follower: Any = _Follower(run)
            method._attack(follower)
        for method in {*self.methods, self._lead}:
            method._calls += 1

    def follow(self, optimizer: Optimizer) -> None:
        for method in self.methods:
            method.follow(optimizer)

    @property
    def skipped(self) -> int:
        return sum(m.skipped for m in self.methods)

    def _own_state(self) -> dict[str, Any]:
        return {str(i): m.state_dict() for i, m in enumerate(self.methods)}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        for i, method in enumerate(self.methods):
            if str(i) in state:
                method.load_state_dict(state[str(i)])

    def _identity(self) -> str:
        return f"Compose({', '.join(m._identity() for m in self.methods)})"

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.methods))})"


def _shared(methods: Sequence[Regularizer]) -> list[Target]:
    """Return the targets of all `methods`, each once: methods with a common target share one object, read once."""
    known: dict[Any, Target] = {}
    for method in methods:
        for attribute, value in vars(method).items():
            if isinstance(value, list) and value and all(hasattr(t, "listening") for t in value):
                setattr(method, attribute, [_known(known, t) for t in value])
    return list(known.values())


def _known(known: dict[Any, Target], target: Target) -> Target:
    found = known.setdefault((isinstance(target, Weight) or target.name, id(target.attacked)), target)
    if type(found) is not type(target) or getattr(found, "batch_dim", None) != getattr(target, "batch_dim", None):
        raise ValueError(f"these methods attack {target.name!r} in forms that cannot be read at once: compose others")
    found.optional = found.optional and target.optional
    return found


class _FirstPass:
    """Runs the passes of the leading method. Its first pass is read for the others too."""

    def __init__(self, run: Passes, targets: list[Target]) -> None:
        self._run, self._targets = run, targets
        self._done = False
        self._results: dict[Target, Any] = {}
        self._factor: float | Tensor = 1.0

    def __call__(
        self,
        objective: Callable[[], Tensor] | None = None,
        *,
        scale: float = 1.0,
        keep: bool = True,
        read: Collection[Target] = (),
        moved: Collection[Target] = (),
    ) -> None:
        if self._done:
            self._run(objective, scale=scale, keep=keep, read=read, moved=moved)
            return
        if scale == 0 and self._targets:
            raise ValueError(
                "the method that replaces L(θ) gives its first pass no weight, so that it has no direction for the "
                "others: take RWP's alpha below 1"
            )
        self._run(objective, scale=scale, keep=keep, read=[*dict.fromkeys([*read, *self._targets])], moved=moved)
        self._done = True
        self._results = {t: t.result for t in self._targets}
        self._factor = self._factor * scale

    def forward(self, *, read: bool = True) -> Output:
        return self._run.forward(read=read)

    def turned(self, factor: Tensor) -> None:
        if not self._done:
            self._factor = factor

    @property
    def first(self) -> Output:
        return self._run.first

    def measure_scale(self) -> None:
        self._run.measure_scale()

    def scale_on(self, device: torch.device) -> float | Tensor:
        return self._run.scale_on(device)

    def put_back(self) -> None:
        """Restore the results of the first pass, which a method's own passes have replaced: gradients of L(θ)."""
        for target, result in self._results.items():
            target.result = result
            if target.gradient is not None and not (isinstance(self._factor, float) and self._factor == 1):
                target.gradient = target.gradient / self._factor


class _Follower:
    """Runs the passes of an adding method, except its first: the clean pass has been made already."""

    def __init__(self, run: Passes) -> None:
        self._run = run
        self._done = False

    def __call__(self, objective: Callable[[], Tensor] | None = None, **options: Any) -> None:
        if self._done:
            self._run(objective, **options)
        self._done = True

    def forward(self, *, read: bool = True) -> Output:
        return self._run.forward(read=read) if self._done else self._run.first

    @property
    def first(self) -> Output:
        return self._run.first
