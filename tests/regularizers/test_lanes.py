"""`parallel=True`: forwards side by side, in copies. That it is exact is a row of test_oracles.py and of methods.py."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropattack import DropAttack
from dropattack.regularizers import lanes
from tests.regularizers.networks import NETWORKS, Network

GPU = pytest.mark.gpu
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)


def gradient(model: nn.Module, forward, names, device: str = "cpu", **options) -> torch.Tensor:
    model.zero_grad()
    torch.manual_seed(0)
    reg = DropAttack(model, names, epsilon=0.5, seed=1, **options)
    losses = reg.backward(forward)
    assert reg.passes == 1 + len(losses.adversarial)
    return torch.cat([p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None])


@each_network
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("mode", ["paper", "notebook"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_it_is_the_sequential_gradient(network: Network, steps: int, mode: str, device: str):
    model, (inputs, labels) = network.build().to(device), network.batch()
    batch = inputs.to(device), labels.to(device)
    names = [*network.weights, network.activations[0]]
    one, other = (
        gradient(model, lambda: network.forward(model, batch), names, steps=steps, mode=mode, parallel=parallel)
        for parallel in (False, True)
    )
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


class Reads(nn.Module):
    """A matrix that is read in several ways: `how` of them."""

    def __init__(self, how: str, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 4, sparse=sparse)
        self.out = nn.Linear(4, 10, bias=False)
        if how == "tied":
            self.out.weight = self.embed.weight
        self.how, self.aside = how, [self.embed.weight, self.out.weight]
        self.double()

    def forward(self, ids):
        x = self.embed(ids).mean(1)
        if self.how == "twice":
            x = x + self.embed(ids.flip(0)[:, :1]).mean(1)
        if self.how == "beside its module":
            return self.out(x) + x @ self.embed.weight.T
        return self.out(x)


@pytest.mark.parametrize("how", ["once", "twice", "tied", "beside its module", "sparse"])
def test_a_matrix_that_is_read_in_several_ways(how: str):
    model = Reads(how, sparse=how == "sparse")
    ids, labels = torch.tensor([[1, 2, 2], [3, 1, 0]]), torch.tensor([4, 2])
    names = ["embed.weight"] if how == "tied" else ["embed.weight", "out.weight"]
    for steps in (1, 2):  # a matrix that turns out to be read beside its module is attacked whole: other masks
        one, other = (
            gradient(model, lambda: F.cross_entropy(model(ids), labels), names, p=1.0, steps=steps, parallel=parallel)
            for parallel in (False, True)
        )
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["by another name", "by another name and by its own"])
def test_a_weight_that_is_not_read_from_its_module_is_an_error(how: str):
    model = Reads("held elsewhere")

    def forward():
        x = model.embed(torch.tensor([[1, 2]])).mean(1)
        logits = x @ model.aside[1].T
        return F.cross_entropy(logits + model.out(x) if "own" in how else logits, torch.tensor([3]))

    before = copy.deepcopy(model.state_dict())
    assert gradient(model, forward, ["embed.weight", "out.weight"]).any()
    with pytest.raises(RuntimeError, match=r"'out.weight' was attacked in a copy.*take parallel=False"):
        gradient(model, forward, ["embed.weight", "out.weight"], parallel=True)
    assert model.out.weight is model.aside[1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Flattening(nn.Module):
    """Its forward asks the RNN to lay its weights out anew, as many a published model does."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        self.rnn.flatten_parameters()
        return self.rnn(x)[0]


def test_no_lane_lays_weights_out_anew(monkeypatch):
    model, x, asked = Flattening(), torch.randn(2, 5, 3), []
    monkeypatch.setattr(nn.GRU, "flatten_parameters", lambda self: asked.append(1))
    gradient(model, lambda: model(x).square().mean(), ["rnn.weight_ih_l0", "rnn.weight_hh_l0"], parallel=True)
    assert len(asked) == 1, "the clean pass may"
    assert "flatten_parameters" not in vars(model.rnn)


def test_forwards_that_read_what_they_write_keep_their_order(monkeypatch):
    """Spectral norm iterates in its forward; BatchNorm in train mode only writes."""
    asked = []
    original = lanes.Lanes.__init__

    def init(self, model, count, *, in_order):
        asked.append(in_order)
        original(self, model, count, in_order=in_order)

    monkeypatch.setattr(lanes.Lanes, "__init__", init)
    x = torch.randn(6, 3, dtype=torch.float64)
    for norm, wanted in ((nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), True), (nn.BatchNorm1d(3), False)):
        model = nn.Sequential(norm, nn.Tanh(), nn.Linear(4 if wanted else 3, 2)).double()
        names = ["2.weight", "2.bias"]
        gradient(model, lambda model=model: model(x).square().mean(), names, parallel=True)
        assert asked.pop() is wanted


def test_a_part_without_gradients_is_moved_too():
    """A teacher's forward under no_grad looks words up in the same matrix."""
    model, ids = (
        nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 2)).double(),
        torch.tensor([[1, 2], [3, 1]]),
    )

    def forward():
        with torch.no_grad():
            teacher = model(ids)
        return (model(ids) - 2 * teacher).square().mean()

    one, other = (gradient(model, forward, ["0.weight", "2.weight"], p=1.0, parallel=p) for p in (False, True))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_autocast_outside_of_the_step():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = (
            gradient(model, lambda: model(x).square().mean(), ["0.weight", "2.weight"], parallel=p)
            for p in (False, True)
        )
    torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("names", [["0.weight", "2.weight"], ["0", "2.weight"]])
def test_checkpointing_is_an_error_and_not_another_gradient(names):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3)

    def forward():
        return checkpoint(model, x, use_reentrant=False).square().mean()

    assert gradient(model, forward, names).any()
    with pytest.raises(RuntimeError, match="gradient checkpointing"):
        gradient(model, forward, names, parallel=True)
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_all_targets_at_once_have_nothing_to_run_beside():
    with pytest.raises(ValueError, match="grouping='joint' has only one"):
        DropAttack(Reads("once"), "out.weight", grouping="joint", parallel=True)


@GPU
@pytest.mark.filterwarnings("error:RNN module weights")
def test_a_step_on_a_gpu_waits_for_nothing_and_leaves_flat_weights_flat():
    model = nn.Sequential(nn.Embedding(1000, 32), nn.LSTM(32, 64, batch_first=True)).cuda()
    ids = torch.randint(1000, (16, 20), device="cuda")
    reg = DropAttack(model, ["0.weight", "1.weight_ih_l0"], epsilon=0.1, steps=2, parallel=True)

    def forward():
        return model(ids)[0].square().mean()

    places = [w.data_ptr() for w in model[1]._flat_weights]
    reg.backward(forward)
    torch.cuda.synchronize()
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            reg.backward(forward)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert places == [w.data_ptr() for w in model[1]._flat_weights]


@GPU
@each_network
@pytest.mark.parametrize("where", ["before", "forward"])
def test_a_slow_stream_is_waited_for(network: Network, where: str):
    """Were one wait missing, a stream that sleeps first would read or write too late."""
    model, (inputs, labels) = network.build().cuda(), network.batch()
    batch, names = (inputs.cuda(), labels.cuda()), [*network.weights, network.activations[0]]
    wanted = gradient(model, lambda: network.forward(model, batch), names, steps=2)
    for _ in range(3):
        if where == "before":
            torch.cuda._sleep(50_000_000)

        def forward():
            if where == "forward":
                torch.cuda._sleep(20_000_000)
            return network.forward(model, batch)

        got = gradient(model, forward, names, steps=2, parallel=True)
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@GPU
def test_lanes_are_streams_of_their_own():
    model = nn.Linear(2, 2).cuda()
    with lanes.Lanes(model, 2) as both:
        streams = []
        for lane in both:
            with lane:
                streams.append(torch.cuda.current_stream())
    assert len({s.cuda_stream for s in [*streams, torch.cuda.current_stream()]}) == 3
