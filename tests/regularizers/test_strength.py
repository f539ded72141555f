"""How strong an attack is, when it comes, and what it finds to attack: the options that all methods share."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropattack as da
from dropattack.regularizers import Regularizer
from tests.regularizers.methods import quiet
from tests.regularizers.networks import NETWORKS, Network

TEXT, IMAGE = NETWORKS[0], NETWORKS[2]
ZERO = [  # every way to say that there is no attack
    ("FGM", {"epsilon": 0}), ("FGM", {"weight": 0}), ("FGM", {"schedule": lambda step: 0.0}), ("PGD", {"epsilon": 0}),
    ("PGD", {"weight": 0}), ("FreeLB", {"alpha": 0, "init": 0}), ("DropAttack", {"epsilon": 0}),
    ("DropAttack", {"weight": 0}), ("DropAttack", {"start_step": 9}), ("RandomAttack", {"epsilon": 0}),
    ("RandomAttack", {"weight": 0}), ("SAM", {"rho": 0}), ("SAM", {"rho": 0, "adaptive": True}), ("FSAM", {"rho": 0}),
    ("MSAM", {"rho": 0}), ("RDrop", {"alpha": 0}), ("RAT", {"epsilon": 0}), ("VAT", {"epsilon": 0}),
    ("VAT", {"alpha": 0}), ("SMART", {"eta": 0}), ("SMART", {"alpha": 0}), ("CreAT", {"epsilon": 0}),
    ("AWP", {"gamma": 0}), ("RWP", {"gamma": 0}), ("RWP", {"alpha": 0}), ("NEFTune", {"alpha": 0}),
    ("Flooding", {"level": 0}), ("Identity", {}),
]  # fmt: skip


def build(method: str, model: nn.Module, network: Network, **options) -> Regularizer:
    given = (list(network.weights[:2]),) if method == "DropAttack" else ()
    return getattr(da, method)(model, *given, **options)


def test_every_method_has_a_zero():
    methods = {n for n in da.__all__ if isinstance(c := getattr(da, n), type) and issubclass(c, Regularizer)}
    assert methods - {"Regularizer", "Compose"} == {name for name, _ in ZERO}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
@pytest.mark.parametrize(("method", "options"), ZERO, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_zero_strength_is_plain_training_bit_for_bit(method, options, network):
    plain, ours = network.build(0.3), network.build(0.3)
    optimizers = [torch.optim.Adam(m.parameters(), 0.01) for m in (plain, ours)]
    reg = build(method, ours, network, **options)
    if "schedule" not in options and "start_step" not in options:
        assert reg.passes == 1
    for step in range(3):
        torch.manual_seed(step)
        network.forward(plain, network.batch(step)).loss.backward()
        torch.manual_seed(step)
        losses = reg.backward(lambda step=step: network.forward(ours, network.batch(step)))
        assert losses.adversarial == ()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for (name, a), b in zip(plain.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_start_step_and_every_say_when():
    model, batch = TEXT.build(), TEXT.batch()
    for make, each in ((lambda **o: da.FGM(model, **o), 1), (lambda **o: da.PGD(model, steps=2, **o), 2)):
        reg = make(start_step=2, every=3)
        made = [len(reg.backward(lambda: TEXT.forward(model, batch)).adversarial) for _ in range(7)]
        assert made == [0, 0, each, 0, 0, each, 0]
        assert reg.passes == pytest.approx(1 + each / 3)
        later = make(start_step=2, every=3)
        later.load_state_dict(reg.state_dict())  # 7 calls: the next attack is the 9th
        assert [len(later.backward(lambda: TEXT.forward(model, batch)).adversarial) for _ in range(2)] == [0, each]


STRONG = [
    ("FGM", {"epsilon": 0.8}), ("PGD", {"epsilon": 0.8, "alpha": 0.4}), ("DropAttack", {"epsilon": 0.8}),
    ("RandomAttack", {"epsilon": 0.8}), ("SAM", {"rho": 0.8}), ("FSAM", {"rho": 0.8}), ("RDrop", {"alpha": 0.8}),
    ("FreeLB", {"alpha": 0.8, "init": 0.4}), ("RAT", {"epsilon": 0.8}), ("VAT", {"epsilon": 0.8}),
    ("SMART", {"eta": 0.8}), ("AWP", {"gamma": 0.8}), ("RWP", {"gamma": 0.8}), ("NEFTune", {"alpha": 0.8}),
    ("CreAT", {"alpha": 0.4, "epsilon": 0.8, "sigma": 0.1}), ("Flooding", {"level": 0.8}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), STRONG, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("how", ["warmup", "schedule"])
def test_warmup_and_schedule_scale_the_strength(method, options, how):
    """At half the way up, the gradient is that of half the strength."""
    network = TEXT
    model, batch = network.build(0.2), network.batch()
    more = {"warmup": 4, "start_step": 1} if how == "warmup" else {"schedule": lambda n: 0.5, "start_step": 2}

    def gradients(reg: Regularizer, calls: int) -> list[torch.Tensor]:
        for _ in range(calls):
            model.zero_grad()
            torch.manual_seed(0)
            reg.backward(lambda: network.forward(model, batch))
        return [p.grad.clone() for p in model.parameters()]

    scaled = build(method, model, network, seed=0, **options, **more)
    if how == "warmup":
        gradients(scaled, 2)  # a plain one and one of a quarter
        scaled._generators.clear()
        scaled.load_state_dict({**scaled.state_dict(), "own": {}})
        got = gradients(scaled, 1)
    else:
        got = gradients(scaled, 3)
    half = build(method, model, network, seed=0, **{name: value / 2 for name, value in options.items()})
    for a, b in zip(got, gradients(half, 1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every has to be a whole number >= 1, not 0"),
        ({"start_step": -1}, ValueError, "start_step has to be a whole number >= 0, not -1"),
        ({"warmup": 1.5}, ValueError, "warmup has to be a whole number >= 0, not 1.5"),
        ({"schedule": 0.5}, TypeError, "schedule has to be a function of the step, not a float"),
        ({"weight": -1}, ValueError, "weight has to be a finite number >= 0, not -1"),
        ({"norm": "l1"}, ValueError, "norm has to be one of 'l2', 'linf', not 'l1'"),
    ],
)
def test_bad_strengths_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        da.FGM(TEXT.build(), **options)


def test_the_default_of_dropattack_fits_what_it_attacks_and_a_number_stays_absolute():
    model, batch = TEXT.build(), TEXT.batch()
    for epsilon, relative in ((None, True), (0.3, False)):
        reg, norms = da.DropAttack(model, "rnn.weight_ih_l0", epsilon, p=1.0), []
        before = model.rnn.weight_ih_l0.detach().clone()

        def forward(norms=norms, before=before):
            norms.append(float((model.rnn.weight_ih_l0.detach() - before).norm()))
            return TEXT.forward(model, batch)

        reg.backward(forward)
        assert norms[1] == pytest.approx(0.1 * float(before.norm()) if relative else 0.3)


# What is attacked where nobody says.


class TwoTables(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(9, 4)


def test_targets_are_found():
    names = [da.FGM(network.build()).targets[0].name for network in NETWORKS]
    assert names == ["embed.weight", "embed.weight", da.INPUT, "bert.embeddings.word_embeddings.weight"]
    assert [t.name for t in da.FreeLB(TEXT.build()).targets] == ["embed"]
    assert da.FGM(nn.Embedding(9, 4)).targets[0].name == "weight"


def test_targets_that_are_ambiguous_are_listed():
    with pytest.raises(
        ValueError, match=r"several embeddings: name what to attack, out of words.weight, places.weight"
    ):
        da.FGM(TwoTables())
    with pytest.raises(
        ValueError, match=r"neither an embedding nor a convolution: .* out of 0.weight, 0.bias, <input>"
    ):
        da.PGD(nn.Sequential(nn.Linear(3, 2)))
    several = TwoTables()
    several.get_input_embeddings = lambda: several.words
    assert da.FGM(several).targets[0].name == "words.weight"


# What the methods ask for.


def test_what_a_divergence_needs_is_asked_for():
    model, batch = TEXT.build(), TEXT.batch()
    makes = {"R-Drop": da.RDrop, "R-AT": da.RAT, "VAT": da.VAT, "SMART": da.SMART, "CreAT without an encoder": da.CreAT}
    for name, make in makes.items():
        with pytest.raises(ValueError, match=f"{name} needs forward to return an object with .loss and .logits"):
            make(model).backward(lambda: TEXT.forward(model, batch).loss)
    with pytest.raises(RuntimeError, match="CreAT's encoder gave no tensor"):
        da.CreAT(NETWORKS[1].build(), encoder="rnn").backward(lambda: TEXT.forward(model, batch))
    with pytest.raises(ValueError, match="encoder 'encodr' is no module of this model; modules: embed, drop"):
        da.CreAT(model, encoder="encodr")
    for make in (da.RDrop, da.RAT):
        with pytest.raises(ValueError, match="compares two dropout masks"):
            make(model, dropout_masks="shared")
    for make in (da.AWP, da.RWP, da.MSAM, da.FSAM):
        with pytest.raises(ValueError, match="moves weights, and 'embed' is an activation"):
            make(model, "embed")
    for make in (da.VAT, da.SMART, da.CreAT, da.NEFTune):
        with pytest.raises(ValueError, match=r"perturbs each example, and 'rnn.weight_ih_l0' is a weight"):
            make(model, "rnn.weight_ih_l0")


def test_without_dropout_r_drop_and_r_at_have_nothing_to_agree_on():
    model, batch = TEXT.build(0.0), TEXT.batch()
    for make, name in ((da.RDrop, "R-Drop"), (da.RAT, "R-AT")):
        with pytest.raises(RuntimeError, match=f"{name}'s two forwards gave the same logits"):
            make(model).backward(lambda: TEXT.forward(model, batch))
    losses = quiet(da.RDrop(model, alpha=3.0)).backward(lambda: TEXT.forward(model, batch))
    assert losses.total == (losses.clean + losses.adversarial[0]) / 2
    losses = quiet(da.RAT(model, alpha=3.0)).backward(lambda: TEXT.forward(model, batch))
    torch.testing.assert_close(losses.total, losses.clean + (losses.adversarial[0] + losses.adversarial[1]) / 2)


def test_msam_asks_for_an_optimizer_with_momentum():
    model, batch = TEXT.build(), TEXT.batch()
    reg = da.MSAM(model)
    with pytest.raises(RuntimeError, match=r"call reg.follow\(optimizer\) before the first step"):
        reg.backward(lambda: TEXT.forward(model, batch))
    with pytest.raises(ValueError, match="this one has none"):
        reg.follow(torch.optim.SGD(model.parameters(), 0.1))
    reg.follow(torch.optim.Adam(model.parameters()))
    reg.backward(lambda: TEXT.forward(model, batch))
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    TEXT.forward(model, batch).loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(got, model.parameters(), strict=True)), "no momentum yet: plain"


def test_the_running_mean_of_f_sam_goes_on_where_it_was_saved():
    batches = [TEXT.batch(seed) for seed in range(4)]
    model = TEXT.build()
    whole, first = da.FSAM(model), da.FSAM(model)
    for reg, part in ((whole, batches), (first, batches[:2])):
        for batch in part:
            model.zero_grad()
            reg.backward(lambda batch=batch: TEXT.forward(model, batch))
    rest = da.FSAM(model)
    rest.load_state_dict(copy.deepcopy(first.state_dict()))
    for batch in batches[2:]:
        rest.backward(lambda batch=batch: TEXT.forward(model, batch))
    for name, average in whole.state_dict()["own"].items():
        assert torch.equal(average, rest.state_dict()["own"][name])
    assert set(whole.state_dict()["own"]) == {n for n, _ in model.named_parameters()}


# Several methods in one step.


def added(*gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: sum(g[name] for g in gradients) for name in gradients[0]}


def gradient_of(network: Network, model: nn.Module, make) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    model.zero_grad()
    losses = make(model).backward(lambda: network.forward(model, network.batch()))
    return {n: p.grad.clone() for n, p in model.named_parameters()}, losses.total


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_a_composition_is_the_clean_loss_and_what_each_adds(network):
    """Without dropout: the gradients of the methods alone, less the clean one that each of them has."""
    w, a = list(network.weights), list(network.activations)
    plain, plain_loss = gradient_of(network, network.build(), da.Identity)
    adding = [
        lambda m: da.FGM(m, w[:1], 0.5), lambda m: da.PGD(m, w[1:2], 0.5, steps=2),
        lambda m: da.DropAttack(m, w[:2], 0.5, steps=2, seed=3), lambda m: da.VAT(m, a[:1], xi=0.1, seed=4),
        lambda m: quiet(da.RAT(m, w[:1], 0.5)), lambda m: da.RandomAttack(m, w[:2], seed=5),
        lambda m: da.FGM(m, a, 0.5),
    ]  # fmt: skip
    leading = [None, lambda m: da.AWP(m, gamma=0.1), lambda m: da.SAM(m, rho=0.1), lambda m: da.RWP(m, seed=6),
               lambda m: quiet(da.RDrop(m)), lambda m: da.Flooding(m, 0.5),
               lambda m: da.CreAT(m, a[:1], seed=7)]  # fmt: skip
    cases = [(lead, adding[i:j]) for lead in leading for i, j in ((0, 2), (2, 4), (4, 7))]
    for lead, adders in cases:
        makes = [*adders[:1], *([lead] if lead else []), *adders[1:]]
        regs = []

        def compose(model, makes=makes, regs=regs):
            regs.append(da.Compose(*(make(model) for make in makes)))
            return regs[-1]

        got, total = gradient_of(network, network.build(), compose)
        base, base_loss = gradient_of(network, network.build(), lead) if lead else (plain, plain_loss)
        alone = [gradient_of(network, network.build(), make) for make in adders]
        minus = {n: -g for n, g in plain.items()}
        want = added(base, *(added(g, minus) for g, _ in alone))
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(total, base_loss + sum(t - plain_loss for _, t in alone))
        model = network.build()
        cost = lead(model).passes if lead else 1
        assert regs[0].passes == cost + sum(make(model).passes - 1 for make in adders)


def test_with_dropout_a_composition_is_the_loop_written_out():
    """DropAttack and R-Drop: the direction comes from R-Drop's pass, the only one at the clean point."""
    model, batch = TEXT.build(0.3), TEXT.batch()
    torch.manual_seed(0)
    reg = da.Compose(da.DropAttack(model, "rnn.weight_ih_l0", 0.5, p=1.0), da.RDrop(model, alpha=2.0))
    reg.backward(lambda: TEXT.forward(model, batch))
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    one, two = TEXT.forward(model, batch), TEXT.forward(model, batch)
    p, q = one.logits.log_softmax(-1), two.logits.log_softmax(-1)
    apart = (F.kl_div(p, q.exp(), reduction="batchmean") + F.kl_div(q, p.exp(), reduction="batchmean")) / 2
    ((one.loss + two.loss) / 2 + 2.0 * apart).backward()
    w = model.rnn.weight_ih_l0
    r, backup = 0.5 * w.grad / w.grad.norm(), w.detach().clone()
    with torch.no_grad():
        w.add_(r)
    TEXT.forward(model, batch).loss.backward()
    with torch.no_grad():
        w.copy_(backup)
    for a, p in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-10, atol=1e-13)


def test_each_method_of_a_composition_keeps_its_own_time_and_state():
    model, batch = TEXT.build(), TEXT.batch()
    make = lambda: da.Compose(da.FGM(model, every=2), da.DropAttack(model, ["embed.weight"], start_step=1, seed=0))  # noqa: E731
    reg = make()
    counts = [len(reg.backward(lambda: TEXT.forward(model, batch)).adversarial) for _ in range(4)]
    assert counts == [1, 1, 2, 1]
    other = make()
    other.load_state_dict(reg.state_dict())
    model.zero_grad()
    reg.backward(lambda: TEXT.forward(model, batch))
    want = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    other.backward(lambda: TEXT.forward(model, batch))
    assert all(torch.equal(a, p.grad) for a, p in zip(want, model.parameters(), strict=True))


def test_what_cannot_be_composed_says_why():
    model, other = TEXT.build(), TEXT.build()
    with pytest.raises(ValueError, match="SAM and AWP both replace the gradient of L"):
        da.Compose(da.SAM(model), da.FGM(model), da.AWP(model))
    for alone in (da.FreeLB, da.NEFTune, da.MSAM):
        with pytest.raises(ValueError, match=f"{alone.__name__} has no clean pass that others could share"):
            da.Compose(da.FGM(model), alone(model))
    with pytest.raises(ValueError, match="methods over one model"):
        da.Compose(da.FGM(model), da.FGM(other))
    with pytest.raises(ValueError, match="one dropout_masks for all"):
        da.Compose(da.FGM(model), da.PGD(model, dropout_masks="shared"))
    with pytest.raises(ValueError, match=r"attack 'embed.weight' in forms that cannot be read at once"):
        da.Compose(da.FGM(model), da.FSAM(model))
    with pytest.raises(ValueError, match="at least one method"):
        da.Compose()
    with pytest.raises(TypeError, match=r"Compose takes methods, .* not a type"):
        da.Compose(da.FGM)
