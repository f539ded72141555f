"""The table of methods. A method joins the contract (test_contract.py) and test_oracles.py by one row here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import dropattack as da
from dropattack import FGM, PGD, SAM, DropAttack, FreeLB, Identity, RandomAttack, RDrop, Regularizer
from tests.regularizers.networks import TARGETS
from tests.regularizers.oracles import Expected, Landscape, add


def quiet(reg: RDrop | da.RAT) -> Regularizer:
    """One that does not insist on dropout, without which two of its steps can be compared."""
    reg._agreement._check_noise = lambda *args: None
    return reg


@dataclass(frozen=True)
class Equation:
    """What a method computes, written plainly, for test_oracles.py; the older methods have theirs in oracles/.

    Attributes:
        cls: The method's class.
        expected: Takes the landscape, the random draws and the options, and returns what the step should give.
        options: The options to compare with, one comparison for each.
        targets: The kinds of targets to attack (`networks.TARGETS`), or `("none",)`.
    """

    cls: type[Regularizer]
    expected: Callable[..., Expected]
    options: tuple[dict[str, Any], ...]
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Method:
    """`make(model, weights, activations)` builds it; `backwards` is its backward calls a step (None: as its passes).

    `clean_first`: whether its first pass, the one that BatchNorm sees, is at the clean point.
    """

    name: str
    make: Callable[..., Regularizer]
    passes: float
    backwards: int | None = None
    clean_first: bool = True
    needs_logits: bool = False
    equation: Equation | None = None


def flooding(land: Landscape, draws: list[Tensor], level: float) -> Expected:
    clean = land.at({})
    sign = 1.0 if clean.loss > level else -1.0
    return Expected(add((sign, clean.weights)), clean.loss, (), (clean.loss - level).abs() + level)


def following(reg: Regularizer, model: nn.Module) -> Regularizer:
    """With an optimizer that has made a step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        optimizer.state[p]["momentum_buffer"] = torch.randn(p.shape, dtype=p.dtype, generator=generator)
    reg.follow(optimizer)
    return reg


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
    Method("randomattack", lambda model, weights, activations: RandomAttack(model, weights[:2], seed=1), passes=3),
    Method(
        "randomattack-joint",
        lambda model, weights, activations: RandomAttack(
            model, [*weights[:1], *activations[-1:]], 1.0, p=0.5, grouping="joint", seed=1
        ),
        passes=2,
    ),
    Method("rdrop", lambda model, weights, activations: quiet(RDrop(model)), passes=2, backwards=1, needs_logits=True),
    Method(
        "rat", lambda model, weights, activations: quiet(da.RAT(model, weights[:2], seed=1)), passes=3,
        backwards=2, needs_logits=True,
    ),
    Method(
        "rat-activations", lambda model, weights, activations: quiet(da.RAT(model, activations, seed=1)), passes=3,
        backwards=2, needs_logits=True,
    ),
    Method(
        "vat", lambda model, weights, activations: da.VAT(model, activations, xi=0.1, seed=1), passes=3,
        needs_logits=True,
    ),
    Method(
        "smart",
        lambda model, weights, activations: da.SMART(model, activations, eta=0.1, sigma=0.1, epsilon=1e-4, seed=1),
        passes=3, backwards=1, needs_logits=True,
    ),
    Method(
        "creat", lambda model, weights, activations: da.CreAT(model, activations, sigma=0.01, seed=1), passes=3,
        needs_logits=True,
    ),
    Method("awp", lambda model, weights, activations: da.AWP(model), passes=2),
    Method(
        "awp-inputs", lambda model, weights, activations: da.AWP(model, inputs=activations[0], steps=2), passes=4,
    ),
    Method("rwp", lambda model, weights, activations: da.RWP(model, seed=1), passes=2),
    Method(
        "neftune", lambda model, weights, activations: da.NEFTune(model, activations, alpha=1.0, seed=1), passes=1,
        clean_first=False,
    ),
    Method(
        "flooding", lambda model, weights, activations: da.Flooding(model, level=0.5), passes=1,
        equation=Equation(da.Flooding, flooding, ({"level": 0.5}, {"level": 2.0}), ("none",)),
    ),
    Method("fsam", lambda model, weights, activations: da.FSAM(model), passes=2),
    Method("msam", lambda model, weights, activations: following(da.MSAM(model), model), passes=1, clean_first=False),
    Method(
        "compose",
        lambda model, weights, activations: da.Compose(FGM(model, weights[:1]), DropAttack(model, weights[:2], seed=1)),
        passes=4,
    ),
    Method(
        "compose-rdrop",
        lambda model, weights, activations: da.Compose(DropAttack(model, weights[:2], seed=1), quiet(RDrop(model))),
        passes=4, backwards=3, needs_logits=True,
    ),
    Method(
        "compose-awp", lambda model, weights, activations: da.Compose(FGM(model, weights[:1]), da.AWP(model)), passes=3,
    ),
    Method("sam", lambda model, weights, activations: SAM(model), passes=2),
    Method("asam", lambda model, weights, activations: SAM(model, adaptive=True, rho=0.5), passes=2),
)  # fmt: skip


def named(name: str) -> Method:
    return next(m for m in METHODS if m.name == name)


def randomless(model: nn.Module) -> nn.Module:
    """Without dropout, so that two steps can be compared."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
