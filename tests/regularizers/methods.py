"""The table of methods. A method joins the contract (test_contract.py) by one row here."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB, Identity, RandomAttack, RDrop, Regularizer


class Quiet(RDrop):
    """R-Drop that does not insist on dropout, without which two of its steps can be compared."""

    def _check_noise(self, one, two):
        pass


@dataclass(frozen=True)
class Method:
    """`make(model, weights, activations)` builds it; `backwards` is its backward calls a step (None: as its passes)."""

    name: str
    make: Callable[..., Regularizer]
    passes: float
    backwards: int | None = None
    clean_first: bool = True
    needs_logits: bool = False


METHODS = (
    Method("identity", lambda model, weights, activations: Identity(model), passes=1),
    Method("fgm", lambda model, weights, activations: FGM(model, weights, seed=1), passes=2),
    Method("fgm-activations", lambda model, weights, activations: FGM(model, activations, seed=1), passes=2),
    Method("pgd", lambda model, weights, activations: PGD(model, weights, steps=3, seed=1), passes=4),
    Method("pgd-activations", lambda model, weights, activations: PGD(model, activations, steps=2, seed=1), passes=3),
    Method(
        "freelb", lambda model, weights, activations: FreeLB(model, activations, steps=3, seed=1), passes=3,
        clean_first=False,
    ),
    Method("dropattack", lambda model, weights, activations: DropAttack(model, weights[:2], seed=1), passes=3),
    Method(
        "dropattack-3", lambda model, weights, activations: DropAttack(model, weights[:2], steps=3, seed=1), passes=7
    ),
    Method(
        "dropattack-notebook",
        lambda model, weights, activations: DropAttack(model, weights[:2], steps=3, mode="notebook", seed=1), passes=7,
    ),
    Method(
        "dropattack-joint",
        lambda model, weights, activations: DropAttack(
            model, [*weights[:1], *activations[-1:]], steps=2, grouping="joint", projection="l2", relative=True, seed=1
        ),
        passes=3,
    ),
    Method(
        "dropattack-parallel",
        lambda model, weights, activations: DropAttack(model, weights[:2], steps=2, parallel=True, seed=1),
        passes=5, backwards=3,
    ),
    Method(
        "dropattack-parallel-mixed",
        lambda model, weights, activations: DropAttack(
            model, [*weights[1:2], *activations[-1:]], mode="notebook", steps=2, relative=True, parallel=True, seed=1
        ),
        passes=5, backwards=3,
    ),
    Method("randomattack", lambda model, weights, activations: RandomAttack(model, weights[:2], seed=1), passes=3),
    Method(
        "randomattack-joint",
        lambda model, weights, activations: RandomAttack(
            model, [*weights[:1], *activations[-1:]], 1.0, p=0.5, grouping="joint", seed=1
        ),
        passes=2,
    ),
    Method("rdrop", lambda model, weights, activations: Quiet(model), passes=2, backwards=1, needs_logits=True),
    Method("sam", lambda model, weights, activations: SAM(model), passes=2, clean_first=False),
    Method("asam", lambda model, weights, activations: SAM(model, adaptive=True, rho=0.5), passes=2, clean_first=False),
)  # fmt: skip


def named(name: str) -> Method:
    return next(m for m in METHODS if m.name == name)


def randomless(model: nn.Module) -> nn.Module:
    """Without dropout, so that two steps can be compared."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
