"""The library's gradient against the oracle's: every method × network × targets × dropout, in float64.

`python -m tests.regularizers.test_oracles` prints the worst relative error by method and network.
"""

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import dropattack.regularizers
from dropattack.regularizers import factory
from tests.regularizers import methods, oracles
from tests.regularizers.methods import following
from tests.regularizers.networks import NETWORKS, PADDING, TARGETS, Network, fast_on

TOLERANCE = 1e-10
SEED = 20240607


class Method(NamedTuple):
    """A row: the class, its arguments (the oracle of the class's name takes the same), the targets that it can take."""

    cls: str
    kwargs: dict[str, Any]
    targets: tuple[str, ...] = TARGETS

    def dropouts(self, which: str) -> tuple[str, ...]:
        """Choose what is worth its time: each row meets every way somewhere, and fresh masks test more than none."""
        if which == "none":  # Identity has one pass, and R-Drop's two have to differ: they have no such option
            return ("fresh",) if self.cls == "RDrop" else ("none", "fresh")
        if self.cls == "RAT":  # as R-Drop's, its two passes have to differ
            return ("fresh",)
        return {"weights": ("none", "fresh", "shared"), "activations": ("fresh", "shared")}.get(which, ("fresh",))

    def of(self, network: Network) -> "Method":
        """Return this row with the network's name for what AWP's `inputs` attacks."""
        which = self.kwargs.get("inputs")
        return self._replace(kwargs={**self.kwargs, "inputs": network.targets(which)[0]}) if which else self

    def __str__(self) -> str:
        return " ".join([self.cls, *(f"{k}={v}" for k, v in self.kwargs.items() if k not in ("epsilon", "rho"))])


ROWS = [row.equation for row in methods.METHODS if row.equation is not None]
EQUATIONS = {one.cls.__name__: one.expected for one in ROWS}
DROP = {"epsilon": 0.7, "p": 0.6}
SEVERAL = ("weights", "mixed")  # what tells the options apart needs more than one target
EXAMPLES = ("embedding", "activation", "activations")
METHODS = (
    Method("Identity", {}, ("none",)),
    Method("FGM", {"epsilon": 0.7}),
    Method("PGD", {"epsilon": 0.7, "alpha": 0.3, "steps": 1}, SEVERAL),
    Method("PGD", {"epsilon": 0.7, "alpha": 0.3, "steps": 3}),  # 3 · 0.3 > 0.7: the projection takes hold
    Method("FreeLB", {"alpha": 0.2, "steps": 1}, ("activation",)),
    Method("FreeLB", {"alpha": 0.2, "steps": 3}, ("embedding", "activation", "activations")),
    Method("FreeLB", {"alpha": 0.2, "steps": 3, "epsilon": 0.3, "init": 0.25}, ("activation", "activations")),
    Method("DropAttack", {**DROP, "steps": 1}),
    Method("DropAttack", {**DROP, "steps": 3}),
    Method("DropAttack", {"epsilon": 0.7, "p": 1.0, "steps": 3}, SEVERAL),
    Method("DropAttack", {"epsilon": 0.7, "p": 0.0, "steps": 2}, SEVERAL),
    Method("DropAttack", {**DROP, "steps": 1, "mode": "notebook"}, SEVERAL),
    Method("DropAttack", {**DROP, "steps": 3, "mode": "notebook"}),
    Method("DropAttack", {**DROP, "steps": 3, "projection": "l2"}),
    Method("DropAttack", {**DROP, "steps": 1, "grouping": "joint"}, SEVERAL),
    Method("DropAttack", {**DROP, "steps": 3, "grouping": "joint"}, ("weights", "activations", "mixed")),
    Method("DropAttack", {**DROP, "steps": 3, "grouping": "joint", "mode": "notebook", "projection": "l2"}, SEVERAL),
    Method("DropAttack", {"epsilon": 0.2, "p": 0.6, "steps": 1, "relative": True}),
    Method("DropAttack", {"epsilon": 0.2, "p": 0.6, "steps": 3, "relative": True, "projection": "l2"}, SEVERAL),
    Method("RandomAttack", {"epsilon": 0.7, "p": 0.6}),
    Method("RandomAttack", {}),  # ε = 0.1 of what is attacked
    Method("RandomAttack", {"epsilon": 0.2, "relative": True, "p": 0.6, "grouping": "joint"}, SEVERAL),
    Method("RDrop", {"alpha": 2.0}, ("none",)),
    Method("FGM", {"epsilon": 0.2, "relative": True, "weight": 0.5}, SEVERAL),
    Method("FGM", {"epsilon": 0.02, "norm": "linf"}, SEVERAL),
    Method("PGD", {"epsilon": 0.07, "alpha": 0.03, "steps": 3, "relative": True, "weight": 0.5}, SEVERAL),
    Method("PGD", {"epsilon": 0.07, "alpha": 0.03, "steps": 3, "norm": "linf"}, SEVERAL),
    Method("PGD", {"epsilon": 0.07, "alpha": 0.03, "steps": 2, "norm": "linf", "relative": True}, ("mixed",)),
    Method("DropAttack", {"epsilon": None, "p": 0.6, "steps": 2, "weight": 0.5}, SEVERAL),
    Method("DropAttack", {**DROP, "epsilon": 0.02, "steps": 2, "norm": "linf", "projection": "linf"}, ("mixed",)),
    Method("RAT", {"epsilon": 0.7, "alpha": 2.0}, ("weights", "activations", "mixed")),
    Method("RAT", {"epsilon": 0.2, "relative": True}, ("mixed",)),
    Method("VAT", {"epsilon": 0.7, "alpha": 2.0, "xi": 0.1}, EXAMPLES),
    Method("VAT", {"epsilon": 0.7, "xi": 0.1, "steps": 2}, ("activations",)),
    Method("SMART", {"alpha": 2.0, "eta": 0.3, "sigma": 0.1}, EXAMPLES),
    Method("CreAT", {"alpha": 0.3, "epsilon": 0.2, "sigma": 0.05}, EXAMPLES),
    Method("CreAT", {"alpha": 0.3, "epsilon": 0.5, "sigma": 0.05, "steps": 2, "tau": 2.0}, ("activations",)),
    Method("AWP", {"gamma": 0.05}, ("weights",)),
    Method("AWP", {"gamma": 0.3, "relative": False}, ("weights",)),
    Method("AWP", {"gamma": 0.05, "inputs": "activation", "epsilon": 0.5, "steps": 2}, ("weights",)),
    Method("RWP", {"gamma": 0.05, "alpha": 0.3}, ("*", "weights")),
    Method("RWP", {"gamma": 0.05, "relative": False}, ("weights",)),
    Method("NEFTune", {"alpha": 2.0}, EXAMPLES),
    Method("FSAM", {"rho": 0.3}, ("*", "weights")),
    Method("MSAM", {"rho": 0.5}, ("*", "weights")),
    Method("SAM", {"rho": 0.3}, ("*", "weight", "weights")),
    Method("SAM", {"rho": 0.5, "adaptive": True}, ("*", "weights")),
    *(Method(one.cls.__name__, options, one.targets) for one in ROWS for options in one.options),
)


def targets_of(network: Network, which: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the library's arguments, and what they mean in the oracle."""
    if which == "*":
        return ("*",), tuple(name for name, _ in network.build().named_parameters())
    if which == "embedding":  # FreeLB takes an embedding's weight name as that module's output
        return (f"{network.embedding}.weight",), (f"{network.embedding}",)
    names = () if which == "none" else network.targets(which)
    return names, names


def library(method: Method, model: torch.nn.Module, targets: tuple[str, ...], **more: Any):
    args = () if "none" in method.targets else (list(targets),)
    reg = getattr(dropattack, method.cls)(model, *args, **method.kwargs, **more)
    return following(reg, model) if method.cls == "MSAM" else reg


USES_OF_CHANCE = [
    (module, name)
    for path, module in sys.modules.items()
    for name in ("bernoulli_mask", "gaussian", "uniform_start")
    if path.startswith("dropattack.regularizers") and hasattr(module, name)
]


def recorder(original: Callable[..., Tensor], draws: list[Tensor]) -> Callable[..., Tensor]:
    def record(*args: Any, **kwargs: Any) -> Tensor:
        drawn = original(*args, **kwargs)
        draws.append(drawn.detach().clone())
        return drawn

    return record


@contextlib.contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Collect the random tensors that the library draws, in order, because the oracle cannot know them."""
    draws: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in USES_OF_CHANCE:
            patch.setattr(module, name, recorder(getattr(module, name), draws))
        yield draws


def error(found: dict[str, Tensor | None], wanted: dict[str, Tensor]) -> float:
    """Return the worst ‖a − b‖/‖b‖ over the parameters and over all of them together.

    A gradient that is zero by symmetry (a bias before BatchNorm, BERT's key biases) is rounding noise, so a
    parameter's norm counts as a ten-thousandth of the whole at least.
    """
    whole = math.sqrt(sum(float(b.pow(2).sum()) for b in wanted.values()))
    differences = {}
    for name, b in wanted.items():
        a = found[name]
        differences[name] = float((b if a is None else a - b).norm())
    worst = max(d / max(float(wanted[name].norm()), 1e-4 * whole) for name, d in differences.items())
    return max(worst, math.sqrt(sum(d**2 for d in differences.values())) / whole)


def compare(method: Method, network: Network, which: str, dropout: str) -> float:
    """Make one call of the library, check all that it promises, and return the gradient's relative error."""
    method = method.of(network)
    given, meant = targets_of(network, which)
    meant = (*meant, *filter(None, [method.kwargs.get("inputs")]))
    model, batch = network.build(0.0 if dropout == "none" else 0.3), network.batch()
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    land = oracles.Landscape(network, model, batch, meant, shared=dropout == "shared")
    more = {"dropout_masks": "shared"} if dropout == "shared" else {}  # "fresh" is the default
    reg = library(method, model, given, seed=3, **more)
    with recorded() as draws:
        torch.manual_seed(SEED)
        losses = reg.backward(lambda: network.forward(model, batch))
    skips_masks = method.cls == "DropAttack" and method.kwargs.get("p") in (0, 1)
    torch.manual_seed(SEED)
    equation = EQUATIONS.get(method.cls) or getattr(oracles, method.cls.lower())
    wanted = equation(land, [] if skips_masks else draws, **method.kwargs)

    for name, w in model.named_parameters():
        assert torch.equal(w, before[name]), f"{name} was changed"
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, land.buffers[name], rtol=TOLERANCE, atol=0)
    assert len(losses.adversarial) == len(wanted.adversarial)
    assert reg.passes == 1 + len(wanted.adversarial)
    got = torch.stack([losses.clean, *losses.adversarial, losses.total])
    assert not got.requires_grad
    torch.testing.assert_close(
        got, torch.stack([wanted.clean, *wanted.adversarial, wanted.total]), rtol=TOLERANCE, atol=0
    )
    return error({name: w.grad for name, w in model.named_parameters()}, wanted.gradient)


def cases() -> list[tuple[Method, Network, str]]:
    return [
        (method, network, which)
        for method in METHODS
        for network in NETWORKS
        for which in method.targets
        if which != "embedding" or network.embedding
    ]


def test_every_method_has_an_equation():
    by_name = {factory.method_named(name).__name__ for name in factory.names()}
    assert {method.cls for method in METHODS} == by_name


def label(value: Any) -> str:
    return value.name if isinstance(value, Network) else str(value)


def params() -> Iterator:
    """Yield the cases: on the LSTM and the CNN all are fast, and on the others one of each method's targets in turn."""
    for method, network, which in cases():
        turn = METHODS.index(method) % len(method.targets)
        fast = network.name in ("lstm", "cnn") or which == method.targets[turn]
        name = "-".join(map(label, (method, network, which)))
        yield pytest.param(method, network, which, id=name, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("method", "network", "which"), [*params()])
def test_gradient_and_losses_are_the_oracles(method, network, which):
    for dropout in method.dropouts(which):
        assert compare(method, network, which, dropout) <= TOLERANCE, dropout


@fast_on("lstm", "cnn")
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_adds_to_what_is_there_and_scales(method, network):
    """Earlier gradients are added to, never attacked along; `backward` may scale (AMP): 1024 × is exact in binary."""
    method = method.of(network)
    given, _ = targets_of(network, method.targets[-1])
    model, batch = network.build(0.3), network.batch()
    twin = copy.deepcopy(model)
    torch.manual_seed(SEED)
    library(method, model, given, seed=3).backward(lambda: network.forward(model, batch))
    earlier = {name: torch.randn_like(w) for name, w in twin.named_parameters()}
    for name, w in twin.named_parameters():
        w.grad = earlier[name].clone()
    torch.manual_seed(SEED)
    reg = library(method, twin, given, seed=3)
    reg.backward(lambda: network.forward(twin, batch), backward=lambda loss: (loss * 1024).backward())
    plain = {name: 1024 * w.grad for name, w in model.named_parameters() if w.grad is not None}
    added = {name: w.grad - earlier[name] for name, w in twin.named_parameters() if name in plain}
    assert error(added, plain) <= TOLERANCE


@pytest.mark.parametrize("network", NETWORKS, ids=label)
def test_every_second_step_of_an_accumulation(network):
    """Four micro-batches, of which the first and third are attacked, add up in `.grad`."""
    method = Method("DropAttack", {**DROP, "steps": 2, "every": 2})
    names = network.targets("mixed")
    model = network.build(0.3)
    reg = library(method, model, names, seed=3)
    land_model, wanted = copy.deepcopy(model), None
    for number in range(4):
        batch = network.batch(seed=number)
        with recorded() as draws:
            torch.manual_seed(number)
            reg.backward(lambda batch=batch: network.forward(model, batch))
        land = oracles.Landscape(network, land_model, batch, names)
        torch.manual_seed(number)
        step = oracles.dropattack(land, draws, **DROP, steps=2, attack=number % 2 == 0).gradient
        wanted = step if wanted is None else oracles.add((1, wanted), (1, step))
    assert error({name: w.grad for name, w in model.named_parameters()}, wanted) <= TOLERANCE


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.embedding], ids=label)
def test_freelb_starts_inside_its_radius_and_off_the_padding(network):
    """δ_0 = uniform(−1, 1)·init/√d, d the example's elements that are not padding, and zero on padding."""
    model, batch = network.build(), network.batch()
    reg = library(Method("FreeLB", {"init": 0.5, "steps": 1}), model, (network.embedding,), seed=3)
    with recorded() as draws:
        reg.backward(lambda: network.forward(model, batch))
    (start,) = draws
    keep = (batch[0] != PADDING)[:, :, None].expand_as(start)
    assert not start[~keep].any()
    unit = start / (0.5 / keep.sum(dim=(1, 2)).sqrt())[:, None, None]
    assert unit.abs().max() <= 1
    assert unit[keep].abs().max() > 0.9
    assert abs(float(unit[keep].mean())) < 4 / math.sqrt(3 * int(keep.sum()))
    assert float(unit[keep].std()) == pytest.approx(1 / math.sqrt(3), rel=0.15)


def test_the_oracle_moves_recurrent_weights():
    """An RNN keeps its weights in a list of its own, so a shift that never reached it would go unseen otherwise."""
    network = NETWORKS[0]
    model, batch = network.build(), network.batch()
    shift = torch.randn_like(model.rnn.weight_ih_l0)
    moved = oracles.Landscape(network, model, batch, ()).at({"rnn.weight_ih_l0": shift})
    with torch.no_grad():
        model.rnn.weight_ih_l0 += shift
    wanted = network.forward(model, batch).loss
    torch.testing.assert_close(moved.loss, wanted.detach(), rtol=1e-14, atol=0)
    (grad,) = torch.autograd.grad(wanted, [model.rnn.weight_ih_l0])
    torch.testing.assert_close(moved.weights["rnn.weight_ih_l0"], grad, rtol=1e-12, atol=1e-16)


def main() -> None:
    names = [network.name for network in NETWORKS]
    worst: dict[str, dict[str, float]] = {}
    for method, network, which in cases():
        row = worst.setdefault(str(method), dict.fromkeys(names, 0.0))
        row[network.name] = max(
            row[network.name], *(compare(method, network, which, d) for d in method.dropouts(which))
        )
    width = max(map(len, worst))
    print(f"{'worst relative error':{width}}", *(f"{name:>9}" for name in names))
    for method_name, row in worst.items():
        print(f"{method_name:{width}}", *(f"{row[name]:9.1e}" for name in names))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
