"""Several methods in one step, with one clean pass for all of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropattack as da
from tests.regularizers.methods import quiet
from tests.regularizers.networks import NETWORKS, Network

TEXT, IMAGE = NETWORKS[0], NETWORKS[2]


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
    for make in (da.DropAttack, da.RandomAttack, da.VAT):
        with pytest.raises(ValueError, match=rf"two {make.__name__} with one seed .* seed=1\)"):
            da.Compose(make(model, "embed.weight"), da.FGM(model), make(model, "embed.weight"))
        da.Compose(make(model, "embed.weight"), make(model, "embed.weight", seed=1))
    da.Compose(*(da.DropAttack(model, "embed.weight", p=1.0) for _ in range(2)))  # without masks
    with pytest.raises(ValueError, match="at least one method"):
        da.Compose()
    with pytest.raises(TypeError, match=r"Compose takes methods, .* not a type"):
        da.Compose(da.FGM)
    with pytest.raises(ValueError, match="attack 'embed' in forms that cannot be read at once"):
        da.Compose(da.FGM(model, "embed", batch_dim=0), da.PGD(model, "embed", batch_dim=1))


@pytest.mark.parametrize("target", ["embed.weight", "embed", "head.weight"])
def test_each_method_starts_from_the_clean_point(target):
    """The passes of an earlier method overwrite what the target knows; gradient and value are put back for the next."""

    def earlier(model):
        return da.PGD(model, target, 5.0, 5.0, steps=2)

    def later(model):
        return da.FGM(model, target, 0.5, relative=True)

    plain, plain_loss = gradient_of(TEXT, TEXT.build(), da.Identity)
    got, total = gradient_of(TEXT, TEXT.build(), lambda m: da.Compose(earlier(m), later(m)))
    (first, first_loss), (second, second_loss) = (gradient_of(TEXT, TEXT.build(), make) for make in (earlier, later))
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, first[name] + second[name] - plain[name], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(total, first_loss + second_loss - plain_loss)


def test_a_composition_in_a_composition_stands_for_its_methods():
    network = TEXT
    found = []
    for nested in (False, True):
        model, batch = network.build(), network.batch()
        one, two, lead = da.FGM(model), da.FGM(model, "head.weight", 0.5), da.SAM(model, rho=0.1)
        reg = da.Compose(one, da.Compose(two, lead)) if nested else da.Compose(one, two, lead)
        for _ in range(2):
            reg.backward(lambda model=model, batch=batch: network.forward(model, batch))
        found.append([reg.passes, reg.state_dict()["method"], *(p.grad for p in model.parameters())])
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(a, b) for a, b in zip(found[0][2:], found[1][2:], strict=True))


def test_f_sam_in_a_composition_is_f_sam():
    network = TEXT
    found = []
    for make in (
        lambda m: da.FSAM(m, rho=0.1),
        lambda m: da.Compose(da.FSAM(m, rho=0.1), da.FGM(m, "head.weight", 0.0)),
    ):
        model, batch = network.build(), network.batch()
        reg = make(model)
        for scale in (1.0, 8.0, 2.0):
            model.zero_grad()
            reg.backward(
                lambda model=model, batch=batch: network.forward(model, batch),
                backward=lambda loss, scale=scale: (loss * scale).backward(),
            )
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def small() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double(), torch.randn(6, 4).double(), torch.randint(3, (6,))


@pytest.mark.parametrize("lead", [lambda m: da.Flooding(m, 3.0), lambda m: da.RWP(m, alpha=0.4, seed=1)])
def test_the_others_ascend_the_loss_whatever_the_first_pass_is_worth(lead):
    """Below its level Flooding turns the gradient round."""
    model, x, y = small()
    alone = da.FGM(model, da.INPUT, epsilon=0.5).backward(lambda: F.cross_entropy(model(x), y))
    both = da.Compose(lead(model), da.FGM(model, da.INPUT, epsilon=0.5)).backward(lambda: F.cross_entropy(model(x), y))
    torch.testing.assert_close(both.adversarial[-1], alone.adversarial[0])


def test_accumulated_directions_do_not_depend_on_the_weight_of_the_first_pass():
    model, x, y = small()
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(module.weight.detach().clone()))
    options = {"epsilon": 0.5, "p": 1.0, "steps": 2, "mode": "notebook"}
    for lead in ([], [da.RWP(model, "bias", alpha=0.4, gamma=0.0001, seed=1)]):
        da.Compose(*lead, da.DropAttack(model, "weight", **options)).backward(lambda: F.cross_entropy(model(x), y))
    torch.testing.assert_close(seen[-1], seen[2])


def test_a_first_pass_without_weight_is_refused():
    model, x, y = small()
    reg = da.Compose(da.RWP(model, alpha=1.0), da.FGM(model, da.INPUT, epsilon=0.5))
    with pytest.raises(ValueError, match="take RWP's alpha below 1"):
        reg.backward(lambda: F.cross_entropy(model(x), y))
