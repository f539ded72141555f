"""How strong an attack is, when it comes, and what it finds to attack: the options that all methods share."""

import copy
import inspect

import pytest
import torch
from torch import nn

import dropattack as da
from dropattack.regularizers import Regularizer, functional
from tests.regularizers.methods import quiet
from tests.regularizers.networks import NETWORKS, Network, fast_on

TEXT, IMAGE = NETWORKS[0], NETWORKS[2]
METHODS = {
    name: method for name in da.__all__
    if isinstance(method := getattr(da, name), type) and issubclass(method, Regularizer) and method is not Regularizer
}  # fmt: skip
ZERO = [  # every way to say that there is no attack: each strength of each method, and what no single one says
    *((name, {strength: 0}) for name, method in METHODS.items() for strength in method.strengths),
    ("FGM", {"schedule": lambda step: 0.0}), ("FreeLB", {"alpha": 0, "init": 0}), ("DropAttack", {"start_step": 9}),
    ("SAM", {"rho": 0, "adaptive": True}), ("CreAT", {"epsilon": 0}), ("Identity", {}), ("Compose", {}),
]  # fmt: skip


def build(method: str, model: nn.Module, network: Network, **options) -> Regularizer:
    if method == "Compose":
        return da.Compose(da.FGM(model, epsilon=0), da.SAM(model, rho=0), da.RAT(model, epsilon=0))
    given = (list(network.weights[:2]),) if method == "DropAttack" else ()
    return getattr(da, method)(model, *given, **options)


def test_every_method_has_a_zero():
    assert set(METHODS) == {name for name, _ in ZERO}


@fast_on("lstm", "cnn")
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
        ({"every": 0}, ValueError, "every must be a whole number >= 1, not 0"),
        ({"start_step": -1}, ValueError, "start_step must be a whole number >= 0, not -1"),
        ({"warmup": 1.5}, ValueError, "warmup must be a whole number >= 0, not 1.5"),
        ({"schedule": 0.5}, TypeError, "schedule must be a function of the step, not a float"),
        ({"weight": -1}, ValueError, "weight must be a finite number >= 0, not -1"),
        ({"norm": "l1"}, ValueError, "norm must be one of 'l2', 'linf', not 'l1'"),
        ({"epsilon": True}, ValueError, "epsilon must be a finite number >= 0, not True"),
        ({"every": True}, ValueError, "every must be a whole number >= 1, not True"),
        ({"every": float("inf")}, ValueError, "every must be a whole number >= 1, not inf"),
        ({"warmup": False}, ValueError, "warmup must be a whole number >= 0, not False"),
        ({"warmup": float("nan")}, ValueError, "warmup must be a whole number >= 0, not nan"),
        ({"seed": "a"}, ValueError, "seed must be an integer, not 'a'"),
        ({"seed": True}, ValueError, "seed must be an integer, not True"),
        ({"seed": 1.0}, ValueError, "seed must be an integer, not 1.0"),
        ({"batch_dim": True}, ValueError, "batch_dim must be an integer, not True"),
        ({"batch_dim": "1"}, ValueError, "batch_dim must be an integer, not '1'"),
    ],
)
def test_bad_strengths_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        da.FGM(TEXT.build(), **options)


def test_every_yes_or_no_is_true_or_false():
    model, asked = TEXT.build(), 0
    for name, method in METHODS.items():
        for option in {"relative", "adaptive"}.intersection(inspect.signature(method).parameters):
            with pytest.raises(ValueError, match=f"{option} must be True or False, not 'no'"):
                build(name, model, TEXT, **{option: "no"})
            asked += 1
    assert asked == 9  # seven that are relative, SAM and F-SAM
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], not True"):
        da.RandomAttack(model, p=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize("compose", [False, True])
def test_a_schedule_without_a_strength_is_an_error_before_any_pass(value, compose):
    model, batch, calls = TEXT.build(), TEXT.batch(), []
    reg = da.FGM(model, start_step=1, schedule=lambda n: value if n == 1 else 0.0)
    reg = da.Compose(reg, da.SAM(model)) if compose else reg

    def forward():
        calls.append(1)
        return TEXT.forward(model, batch)

    for _ in range(2):
        reg.backward(forward)
    model.zero_grad()
    made = len(calls)
    with pytest.raises(ValueError, match=rf"schedule\(1\) is {value}"):
        reg.backward(forward)
    assert len(calls) == made
    assert all(p.grad is None for p in model.parameters())


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
    assert da.FGM(nn.EmbeddingBag(9, 4)).targets[0].name == "weight"


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
    with pytest.raises(ValueError, match="encoder 'encodr' is not a module of this model; modules: embed, drop"):
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


def test_a_relative_strength_on_a_weight_that_is_zero_is_counted():
    model, batch = TEXT.build(), TEXT.batch()
    torch.nn.init.zeros_(model.head.weight)
    for make in (da.FGM, da.RandomAttack):
        reg = make(model, "head.weight", 0.1, relative=True)
        reg.backward(lambda: TEXT.forward(model, batch))
        assert reg.skipped == 1


def test_a_state_saved_before_the_first_draw_draws_the_same():
    model, batch = TEXT.build(), TEXT.batch()
    first = da.DropAttack(model, "head.weight", start_step=1)
    first.backward(lambda: TEXT.forward(model, batch))
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(9)
    second = da.DropAttack(model, "head.weight", start_step=1)
    second.load_state_dict(state)
    found = []
    for reg in (first, second):
        model.zero_grad()
        reg.backward(lambda: TEXT.forward(model, batch))
        found.append(model.head.weight.grad.clone())
    assert torch.equal(*found)


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


def test_msam_asks_for_a_momentum_that_it_knows():
    class Other(torch.optim.SGD):
        def step(self):
            for p in self.param_groups[0]["params"]:
                self.state[p]["state1"] = p.grad.clone()

    model, batch = TEXT.build(), TEXT.batch()
    reg, optimizer = da.MSAM(model), Other(model.parameters(), 0.1, momentum=0.9)
    reg.follow(optimizer)
    reg.backward(lambda: TEXT.forward(model, batch))
    optimizer.step()
    with pytest.raises(RuntimeError, match="reads momentum_buffer or exp_avg, and Other keeps state1"):
        reg.backward(lambda: TEXT.forward(model, batch))


def f_sam(scales, bad=None, waiting=True):
    """Return the gradients, before scaling, of five steps of F-SAM; step `bad` has a loss that is not finite."""
    torch.manual_seed(0)
    layer, found = torch.nn.Linear(4, 3).double(), []
    reg = da.FSAM(layer, rho=0.5)
    for step in range(5):
        x = torch.randn(5, 4).double()
        loss = (lambda x=x: layer(x).square().mean() * float("nan")) if step == bad else (
            lambda x=x: layer(x).exp().mean())  # fmt: skip
        scale = scales[step % len(scales)]
        reg.backward(loss, backward=lambda loss, scale=scale: (loss * scale).backward())
        if step != bad:
            found.append(layer.weight.grad / scale)
        layer.zero_grad()
    assert reg.skipped == (bad is not None)
    return found, reg.state_dict()["own"]


@pytest.mark.parametrize("at_hand", [True, False], ids=["cpu", "as on a GPU"])
def test_the_running_mean_of_f_sam_is_that_of_unscaled_usable_gradients(at_hand, monkeypatch):
    if not at_hand:
        monkeypatch.setattr(functional, "is_at_hand", lambda x: False)
    (plain, mean), (scaled, of_scaled) = f_sam([1.0]), f_sam([2.0**16, 2.0**15, 0.25])
    torch.testing.assert_close(scaled, plain)
    torch.testing.assert_close(of_scaled, mean)
    for bad in (0, 2):
        gradients, mean = f_sam([1.0], bad)
        assert all(g.isfinite().all() for g in (*gradients, *mean.values()))
    # A bad first batch leaves no mean: the second one starts it.
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3).double()
    reg = da.FSAM(layer)
    reg.backward(lambda: layer(torch.ones(1, 4).double()).sum() * float("inf"))
    layer.zero_grad()
    assert reg.state_dict().get("own", {}) == {}
    reg.backward(lambda: layer(torch.ones(1, 4).double()).sum())
    torch.testing.assert_close(reg.state_dict()["own"]["weight"], torch.ones(3, 4).double())


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


def test_the_default_seed_is_not_that_of_the_initial_weights():
    torch.manual_seed(0)
    linear = nn.Linear(4, 8)
    start, moved = linear.weight.detach().clone(), []
    linear.register_forward_pre_hook(lambda module, args: moved.append(module.weight.detach().clone()))
    reg = da.DropAttack(linear, "weight", epsilon=5.0)
    reg.backward(lambda: linear(torch.randn(3, 4)).square().sum())
    assert not torch.equal(moved[1] != start, start < 0), "the mask would repeat the draws of the weights"
    torch.manual_seed(0)
    assert da.DropAttack(nn.Linear(4, 8), "weight").seed == reg.seed, "it follows from torch's"
    assert da.DropAttack(nn.Linear(4, 8), "weight", seed=7).seed == 7
