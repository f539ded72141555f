"""Bad input and odd models: each has a defined outcome, and the weights are what they were."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropattack import (
    FGM,
    INPUT,
    PGD,
    SAM,
    DropAttack,
    Flooding,
    FreeLB,
    Identity,
    Output,
    RandomAttack,
    RDrop,
)  # fmt: skip
from dropattack.regularizers import functional
from dropattack.regularizers.activations import Activation
from dropattack.regularizers.rows import EmbeddingRows
from dropattack.regularizers.targets import Weight
from tests.regularizers.networks import NETWORKS, PADDING

LSTM = NETWORKS[0]


class Tied(nn.Module):
    """The embedding is the output layer too, as in a language model."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(self.embed(ids).mean(1))


# What it looks like in a log.


def test_repr_names_the_targets_and_settings(model):
    attack = DropAttack(model, "embed.weight", every=2)
    assert repr(attack) == (
        "DropAttack(embed.weight, epsilon=0.1, p=0.5, steps=1, mode='paper', grouping='sequential', relative=True, "
        "norm='l2', weight=1.0, every=2)"
    )
    assert (
        repr(SAM(model))
        == "SAM(embed.weight, rnn.weight_ih_l0, rnn.weight_hh_l0, … and 4 more, rho=0.05, adaptive=False)"
    )
    assert repr(Identity()) == "Identity()"


# What a name can be.


def test_names_become_targets(model):
    kinds = [
        ("embed.weight", [EmbeddingRows]),
        ("rnn.weight_ih_l0", [Weight]),
        ("rnn.weight_*", [Weight, Weight]),
        ("embed", [Activation]),
        (INPUT, [Activation]),
        (["head.weight", "head.*", "embed.weight"], [Weight, Weight, EmbeddingRows]),
    ]
    for names, expected in kinds:
        assert [type(t) for t in FGM(model, names).targets] == expected


def test_a_name_that_matches_nothing_lists_the_nearest(model):
    with pytest.raises(ValueError, match=r"'embd.weight' matches no parameter or module; nearest: .*embed.weight"):
        DropAttack(model, ["embd.weight"])
    with pytest.raises(ValueError, match=r"parameters: embed.weight, rnn.weight_ih_l0"):
        FGM(model, "transformer.*")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: FGM(m, []), "targets is empty"),
        (lambda m: FGM(m, "embed.weight", epsilon=-1), "epsilon must be a finite number >= 0, not -1"),
        (lambda m: FGM(m, "embed.weight", epsilon=float("nan")), "epsilon must be a finite number >= 0, not nan"),
        (lambda m: PGD(m, "embed.weight", steps=0), "steps must be a whole number >= 1, not 0"),
        (lambda m: PGD(m, "embed.weight", steps=1.5), "steps must be a whole number"),
        (lambda m: DropAttack(m, "embed.weight", p=1.5), r"p must be in \[0, 1\], not 1.5"),
        (lambda m: DropAttack(m, "embed.weight", mode="gpu"), "mode must be one of 'paper', 'notebook', not 'gpu'"),
        (lambda m: DropAttack(m, "embed.weight", every=0), "every must be a whole number >= 1"),
        (lambda m: DropAttack(m, "embed.weight", dropout_masks="none"), "dropout_masks must be one of"),
        (lambda m: FreeLB(m, "rnn.weight_ih_l0"), "FreeLB perturbs each example, and 'rnn.weight_ih_l0' is a weight"),
        (lambda m: SAM(m, "embed"), "SAM moves weights, and 'embed' is an activation"),
    ],
)
def test_bad_options_say_what_is_wrong(model, make, message):
    with pytest.raises(ValueError, match=message):
        make(model)


def test_frozen_integer_and_buffer_targets():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].weight.requires_grad_(False)
    model.register_parameter("counts", nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False))
    with pytest.raises(ValueError, match=r"'0.weight' is frozen"):
        FGM(model, "0.weight")
    with pytest.raises(ValueError, match=r"'counts' holds torch.int64"):
        FGM(model, "counts")
    with pytest.raises(ValueError, match=r"'1.running_mean' is a buffer"):
        FGM(model, "1.running_mean")
    assert [t.name for t in SAM(model).targets] == ["0.bias", "1.weight", "1.bias"], "globs pass over the frozen"


def test_wrapped_models_keep_their_names(model):
    for wrapped in (
        nn.DataParallel(model),
        torch.compile(model, backend="eager"),
        torch.compile(nn.DataParallel(model)),
    ):
        assert FGM(wrapped, "embed.weight").targets[0].parameter is model.embed.weight


# What a forward can be.


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda m: None, "not NoneType"),
        (lambda m: m.head.weight.sum(0), r"not a tensor of shape \(7,\)"),
        (lambda m: torch.tensor(1.0), "has no graph"),
        (lambda m: Output(None), "not Output"),
    ],
)
@pytest.mark.parametrize("make", [Identity, lambda m: FGM(m, "embed.weight"), RDrop])
def test_a_forward_that_returns_no_loss(model, make, result, message):
    with pytest.raises(ValueError, match=message):
        make(model).backward(lambda: result(model))


def test_no_grad_and_logits_and_targets_outside_the_forward(model, forward):
    with torch.no_grad(), pytest.raises(RuntimeError, match="inside no_grad"):
        FGM(model, "embed.weight").backward(forward)
    with pytest.raises(ValueError, match="R-Drop needs forward to return an object"):
        RDrop(model).backward(lambda: forward().loss)
    model.unused = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="'unused' was not called: is it part of this model's forward"):
        FGM(model, "unused").backward(forward)
    with pytest.raises(RuntimeError, match="'rnn' gives tuple, not a floating-point tensor: name its weights"):
        FGM(model, "rnn").backward(forward)
    with pytest.raises(RuntimeError, match="no floating-point tensor to attack: for token ids, attack the embedding"):
        FGM(model, INPUT).backward(forward)
    twice = nn.Sequential(linear := nn.Linear(3, 3), linear)
    with pytest.raises(RuntimeError, match="'0' is called twice in one forward: attack its weight"):
        FGM(twice, "0").backward(lambda: twice(torch.ones(2, 3)).sum())


def test_logits_are_there_if_forward_returned_them(model, forward):
    reg = FGM(model, "embed.weight")
    assert reg.backward(forward).logits is not None
    assert reg.backward(lambda: forward().loss).logits is None
    assert reg.backward(lambda: SimpleNamespace(loss=forward().loss, logits=())).logits is None


def test_what_a_tired_person_hands_in(model, forward):
    reg = FGM(model, "embed.weight")
    with pytest.raises(TypeError, match=r"forward must be a function, as in .*lambda: loss\), not a Tensor"):
        reg.backward(forward().loss)
    with pytest.raises(TypeError, match="backward must be a function"):
        reg.backward(forward, backward=torch.amp.GradScaler("cpu"))
    for targets, given in ([model.embed.weight], "a Parameter"), (model.embed, "an Embedding"), ([3], "an int"):
        for method in (FGM, DropAttack, FreeLB if given == "a Parameter" else FGM):
            with pytest.raises(TypeError, match=f"targets are names, such as 'embed.weight', not {given}"):
                method(model, targets)
    with pytest.raises(TypeError, match=r"model must be the nn.Module itself, not a generator"):
        DropAttack(model.parameters(), "embed.weight")
    with pytest.raises(ValueError, match="epsilon must be a finite number >= 0, not '5'"):
        FGM(model, "embed.weight", epsilon="5")


def test_the_state_of_another_method_is_refused(model):
    reg = DropAttack(model, ["embed.weight", "rnn.weight_ih_l0"])
    for other in (FGM(model, "embed.weight").state_dict(), DropAttack(model, "embed.weight").state_dict(), {}):
        with pytest.raises(ValueError, match=r"this is DropAttack\(embed.weight, rnn.*\), and the state is of"):
            reg.load_state_dict(other)


# What a gradient can be.


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_gradient_without_direction_skips_the_attack_and_not_the_step(model, forward, value):
    reg = DropAttack(model, ["embed.weight", "rnn.weight_ih_l0"], steps=2)
    before = copy.deepcopy(model.state_dict())
    reg.backward(forward, backward=lambda loss: (loss * value).backward())
    assert reg.skipped == 4, "two targets, two steps"
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.zero_grad()
    reg.backward(forward)
    assert reg.skipped == 4
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_per_example_skips_spare_the_other_examples():
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    step = functional.l2_step(x, 2.0, per_example=True)
    torch.testing.assert_close(functional.l2_norm(step, per_example=True).flatten(), torch.tensor([2.0, 0.0, 2.0]))


# Rows, not vocabularies.


class Sizes(TorchDispatchMode):
    """Notes what makes or changes a tensor as large as the vocabulary's matrix."""

    def __init__(self, size):
        super().__init__()
        self.size, self.seen = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        views = ("detach", "alias", "view", "t", "index_add_", "index_copy_")
        name = func.overloadpacket.__name__
        if isinstance(result, torch.Tensor) and result.numel() >= self.size and name not in views:
            self.seen.append(name)
        return result


@pytest.mark.parametrize("make", [FGM, PGD, lambda m, t: DropAttack(m, t, steps=3), lambda m, t: SAM(m, rho=0.1)])
def test_nothing_of_the_vocabularys_size_but_one_gradient(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5000, 4), nn.Flatten(), nn.Linear(12, 3))
    ids, labels = torch.randint(0, 5000, (4, 3)), torch.randint(0, 3, (4,))
    reg = make(model, ["0.weight"])
    with Sizes(5000 * 4) as sizes:
        F.cross_entropy(model(ids), labels).backward()
    plain = sizes.seen
    model.zero_grad()
    with Sizes(5000 * 4) as sizes:
        reg.backward(lambda: F.cross_entropy(model(ids), labels))
    assert plain
    assert sizes.seen == plain, "the dense gradient of one plain step, whatever the number of passes"


@pytest.mark.parametrize("method", [FGM, lambda m, t: DropAttack(m, t, p=1.0, steps=2), PGD])
def test_tied_and_sparse_embeddings_are_exact(method):
    ids, labels = torch.tensor([[1, 2, 2], [3, 1, 0]]), torch.tensor([4, 2])

    def gradient(model, name):
        method(model, [name]).backward(lambda: F.cross_entropy(model(ids), labels))
        grad = model.get_parameter(name).grad
        return grad.to_dense() if grad.is_sparse else grad

    torch.manual_seed(0)
    tied = Tied()
    direct = copy.deepcopy(tied)  # used outside its module, which no name tells
    direct.out = None
    direct.forward = lambda ids: direct.embed(ids).mean(1) @ direct.embed.weight.T
    assert type(FGM(tied, "embed.weight").targets[0]) is Weight
    assert type(FGM(direct, "embed.weight").targets[0]) is EmbeddingRows
    torch.testing.assert_close(gradient(direct, "embed.weight"), gradient(tied, "embed.weight"))
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 5))
    sparse = copy.deepcopy(dense)
    sparse[0].sparse = True
    torch.testing.assert_close(gradient(sparse, "0.weight"), gradient(dense, "0.weight"))


@pytest.mark.parametrize("method", [RDrop, Flooding])
def test_targets_of_a_method_without_them_are_refused(method):
    with pytest.raises(TypeError, match=rf"^{method.__name__} has no option 'targets'; options: "):
        method(nn.Linear(2, 2), targets=["weight"])


def test_the_nearest_option_is_named():
    with pytest.raises(TypeError, match=r"^DropAttack has no option 'epsilom' \(epsilon\?\); options: targets, "):
        DropAttack(nn.Linear(2, 2), "weight", epsilom=1.0)


def test_ids_may_change_between_the_passes():
    """A forward that drops words at random looks other rows up in each pass; none of their gradients is lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 2)).double()
    views = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 5], [6, 4]]), torch.tensor([[7, 7], [7, 7]])]
    labels = torch.tensor([0, 1])
    calls = iter(views)
    DropAttack(model, "0.weight", p=0.0, steps=2).backward(lambda: F.cross_entropy(model(next(calls)), labels))
    got = model[0].weight.grad.clone()
    model.zero_grad()
    for view, scale in zip(views, (1, 0.5, 0.5), strict=True):
        (scale * F.cross_entropy(model(view), labels)).backward()
    torch.testing.assert_close(got, model[0].weight.grad)


# What else can happen to a model.


def test_models_with_a_regularizer_copy_and_pickle():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    reg = FreeLB(model, [INPUT, "0"])
    reg.backward(lambda: model(torch.ones(2, 3)).sum())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(torch.ones(2, 3)), model(torch.ones(2, 3)))


def test_every_nth_call_attacks(model, forward):
    reg = DropAttack(model, "embed.weight", every=3)
    assert [len(reg.backward(forward).adversarial) for _ in range(7)] == [1, 0, 0, 1, 0, 0, 1]
    assert reg.passes == 1 + 1 / 3


@pytest.mark.gpu
def test_a_cudnn_rnn_in_eval_mode_says_what_to_do():
    model = LSTM.build().float().cuda().eval()
    with pytest.raises(RuntimeError, match="cuDNN has no backward for a RNN in eval mode: call train"):
        FGM(model, "embed.weight").backward(lambda: model(torch.ones(1, 2, dtype=torch.long, device="cuda")).sum())


# The pure functions.


def test_steps_projections_masks_and_starts():
    g = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(functional.l2_step(g, 10.0), torch.tensor([6.0, 8.0]))
    torch.testing.assert_close(functional.project_l2(g, 1.0), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(functional.project_l2(g, 9.0), g)
    assert not functional.project_l2(torch.zeros(2), 1.0).any()
    generator = torch.Generator().manual_seed(0)
    mask = functional.bernoulli_mask(torch.empty(100, 100), 0.3, generator)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert abs(mask.mean().item() - 0.3) < 0.02
    keep = torch.tensor([[[True], [False]], [[True], [True]]])
    start = functional.uniform_start(torch.zeros(2, 2, 500), 2.0, keep, generator)
    assert not start[0, 1].any()
    norms = functional.l2_norm(start, per_example=True).flatten()
    torch.testing.assert_close(norms, torch.full((2,), 2.0 / 3**0.5), rtol=0.05, atol=0)  # E[u²] = 1/3
    assert functional.l2_norm(torch.full((4,), 300.0, dtype=torch.float16)).item() == 600.0
    p, q = torch.randn(4, 3), torch.randn(4, 3)
    kl = F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean")
    lk = F.kl_div(p.log_softmax(-1), q.softmax(-1), reduction="batchmean")
    torch.testing.assert_close(functional.symmetric_kl(p, q), (kl + lk) / 2)


# The control.


def test_a_random_direction_is_as_long_as_the_attack_it_stands_for_and_spares_padding(model, forward):
    """‖r‖ = ε before masking, on the rows of the batch without padding; about p of it is left after masking."""
    for targets, p in (("embed.weight", 1.0), ("embed.weight", 0.5), ("rnn.weight_ih_l0", 1.0)):
        reg = RandomAttack(model, targets, 2.0, p=p, seed=0)
        weight, moved = model.get_parameter(targets).detach().clone(), []

        def watched(weight=weight, moved=moved, targets=targets):
            moved.append(model.get_parameter(targets).detach() - weight)
            return forward()

        reg.backward(watched)
        assert not moved[0].any()
        if p == 1.0:
            torch.testing.assert_close(moved[1].norm().item(), 2.0, rtol=1e-12, atol=0)
        else:
            assert 0 < moved[1].norm() < 2.0
        if targets == "embed.weight":
            rows = set(LSTM.batch()[0].unique().tolist()) - {PADDING}
            assert set(moved[1].any(-1).nonzero().flatten().tolist()) == rows
    assert RandomAttack(model, "embed.weight").epsilon == 0.1
    assert RandomAttack(model, "embed.weight").relative
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], not 2"):
        RandomAttack(model, "embed.weight", p=2)
    with pytest.raises(RuntimeError, match=r"'embed\.weight' got no gradient"):
        RandomAttack(model, "embed.weight").backward(lambda: (model.head.weight**2).sum())


def test_random_numbers_go_on_with_the_gpu_and_start_on_another_device(model, forward):
    reg = DropAttack(model, "rnn.weight_hh_l0", seed=3)
    reg.backward(forward)
    state = reg.state_dict()
    other = DropAttack(model, "rnn.weight_hh_l0", seed=3)
    other.load_state_dict({**state, "generators": {"cuda:1": state["generators"]["cpu"]}})
    assert other._saved_on(torch.device("cuda:0")) == "cuda:1"
    assert other._saved_on(torch.device("cpu")) is None
    other.backward(forward)  # on a machine without a GPU
    assert set(other.state_dict()["generators"]) == {"cpu", "cuda:1"}
