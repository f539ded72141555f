"""What every method promises, on every network: a method joins by a row of methods.py, a network of networks.py."""

import contextlib
import copy
import gc

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropattack.regularizers import dropattack, functional, randomattack, rwp
from dropattack.regularizers.rows import Rows
from dropattack.regularizers.state import Moving
from tests.regularizers.methods import METHODS, Method
from tests.regularizers.networks import NETWORKS, Network, fast_on

each_network = fast_on("lstm", "cnn", "bert")
two_networks = fast_on("lstm", "cnn")  # an embedding's rows and a RNN's flat weights; images and BatchNorm
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def make(method: Method, model: nn.Module, network: Network):
    return method.make(model, network.weights, network.activations)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rtol: float = 1e-10) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=rtol, msg=lambda m, name=name: f"{name}: {m}")


@each_network
@each_method
def test_passes_are_counted(method: Method, network: Network):
    model, batch = network.build(dropout=0.1), network.batch()
    reg, calls = make(method, model, network), {"forward": 0, "backward": 0, "no_sync": 0}
    logits = []

    def forward():
        calls["forward"] += 1
        output = network.forward(model, batch)
        logits.append(output.logits)
        return output

    def backward(loss):
        calls["backward"] += 1
        loss.backward()

    @contextlib.contextmanager
    def no_sync():
        calls["no_sync"] += 1
        yield

    losses = reg.backward(forward, backward=backward, no_sync=no_sync)
    backwards = method.backwards or method.passes
    assert reg.passes == method.passes == calls["forward"] == 1 + len(losses.adversarial)
    assert calls["backward"] == backwards
    assert calls["no_sync"] == backwards - 1, "all passes but the last are kept from synchronising"
    assert torch.equal(losses.logits, logits[0])
    assert losses.logits.data_ptr() == logits[0].data_ptr(), "no copy"
    assert not any(t.requires_grad for t in (losses.clean, losses.total, losses.logits, *losses.adversarial))


@each_network
@each_method
@pytest.mark.parametrize("dropout_masks", ["fresh", pytest.param("shared", marks=pytest.mark.slow)])  # test_oracles.py
def test_weights_are_untouched_and_the_clean_pass_is_the_plain_one(
    method: Method, network: Network, dropout_masks: str
):
    model, batch = network.build(dropout=0.1), network.batch()
    reg = make(method, model, network)
    reg.dropout_masks = dropout_masks
    places = {n: p.data_ptr() for n, p in model.named_parameters()}
    plain = copy.deepcopy(model)
    for step in range(2):
        torch.manual_seed(step)
        clean = network.forward(plain, batch)
        torch.manual_seed(step)
        losses = reg.backward(lambda: network.forward(model, batch))
        assert torch.equal(losses.logits, clean.logits) == method.clean_first
        if method.clean_first or not any(True for _ in model.buffers()):
            assert_equal(snapshot(model), snapshot(plain))
    assert_equal(dict(model.named_parameters()), dict(plain.named_parameters()))
    assert places == {n: p.data_ptr() for n, p in model.named_parameters()}, "flat buffers stay flat"
    assert all(p.requires_grad for p in model.parameters())


@two_networks
@each_method
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_exception_in_any_pass_leaves_everything_as_it_was(method: Method, network: Network, where: str):
    model, batch = network.build(), network.batch()
    reg, before = make(method, model, network), snapshot(model)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    for failing in range(int(method.passes if where == "forward" else method.backwards or method.passes)):
        calls = 0
        model.load_state_dict(before)

        def fail(this: str, failing=failing):
            nonlocal calls
            if this == where:
                calls += 1
                if calls == failing + 1:
                    raise torch.OutOfMemoryError("out of memory")

        def forward(fail=fail):
            fail("forward")
            return network.forward(model, batch)

        def backward(loss, fail=fail):
            fail("backward")
            loss.backward()

        with pytest.raises(torch.OutOfMemoryError):
            reg.backward(forward, backward=backward)
        after = snapshot(model)
        names = [n for n, _ in model.named_parameters()]
        assert_equal({n: after[n] for n in names}, {n: before[n] for n in names})
        assert all(p.requires_grad for p in model.parameters())
        assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    # And the next step is that of a regularizer that saw no exception, but for what it drew.
    model.load_state_dict(before)
    model.zero_grad()
    reg.load_state_dict(make(method, model, network).state_dict())
    reg.backward(lambda: network.forward(model, batch))
    got = gradients(model)
    model.load_state_dict(before)
    model.zero_grad()
    make(method, model, network).backward(lambda: network.forward(model, batch))
    assert_close(got, gradients(model))


@two_networks
@each_method
def test_micro_batches_accumulate(method: Method, network: Network):
    model, batches = network.build(), [network.batch(0), network.batch(1)]
    alone = []
    start = snapshot(model)
    for i, batch in enumerate(batches):
        reg = make(method, model, network)
        for earlier in batches[:i]:  # the same random numbers as in the accumulating run
            reg.backward(lambda earlier=earlier: network.forward(model, earlier))
        model.zero_grad()
        reg.backward(lambda batch=batch: network.forward(model, batch))
        alone.append(gradients(model))
    model.zero_grad()
    model.load_state_dict(start)
    reg = make(method, model, network)
    for batch in batches:
        reg.backward(lambda batch=batch: network.forward(model, batch))
    assert_close(gradients(model), {n: alone[0][n] + alone[1][n] for n in alone[0]})


@two_networks
@each_method
def test_the_same_seed_gives_the_same_step_and_state_goes_on(method: Method, network: Network):
    model, batch = network.build(), network.batch()
    start = snapshot(model)

    def three_steps(interrupted: bool):
        model.load_state_dict(start)
        reg = make(method, model, network)
        for step in range(3):
            if interrupted and step == 1:
                state, reg = reg.state_dict(), make(method, model, network)
                reg.load_state_dict(state)
            model.zero_grad()
            reg.backward(lambda: network.forward(model, batch))
        return gradients(model), reg.skipped

    (a, skipped), (b, _), (c, skipped_too) = three_steps(False), three_steps(False), three_steps(True)
    assert_equal(a, b)
    assert_equal(a, c)
    assert skipped == skipped_too


LOW = ("lstm-fp16", "cnn-bf16")  # each precision on one network; the others are slow


@each_method
@pytest.mark.parametrize(("network", "precision"), [
    pytest.param(n, p, id=f"{n.name}-{p}", marks=() if f"{n.name}-{p}" in LOW else pytest.mark.slow)
    for n in NETWORKS for p in ("bf16", "fp16")
])  # fmt: skip
def test_low_precision_is_close_and_scaling_changes_nothing(method: Method, network: Network, precision: str):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    model, batch = network.build().float(), network.batch()
    if batch[0].is_floating_point():
        batch = (batch[0].float(), batch[1])
    try:
        with torch.autocast("cpu", dtype=dtype):
            network.forward(model, batch)
    except RuntimeError as error:
        pytest.skip(f"this CPU: {str(error)[:60]}")

    def run(enabled: bool, scale: float = 1.0):
        def forward():
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                return network.forward(model, batch)

        model.zero_grad()
        make(method, model, network).backward(forward, backward=lambda loss: (loss * scale).backward())
        return torch.cat([p.grad.flatten() / scale for p in model.parameters() if p.grad is not None])

    exact, low, scaled = run(False), run(True), run(True, scale=1024.0)
    assert torch.isfinite(low).all()
    assert torch.cosine_similarity(exact, low, dim=0) > 0.98
    if precision == "fp16":
        assert torch.cosine_similarity(exact, scaled, dim=0) > 0.98
    else:  # a power of two costs bf16 nothing
        torch.testing.assert_close(low, scaled, rtol=2e-2, atol=1e-3)


def absolute(reg):
    """ε would be relative to the whole matrix."""
    for one in (reg, *getattr(reg, "methods", ())):
        one.relative = False
    return reg


@fast_on()
@each_method
def test_compiled_models_get_the_same_gradient(method: Method, network: Network, monkeypatch):
    if network.name == "bigru":
        pytest.skip("torch.compile cannot trace packed sequences")
    # A compiled model's embedding is attacked as a whole matrix: other draws of a mask, so everything is attacked here.
    # (A random direction is the same for all elements, for the same reason.)
    monkeypatch.setattr(dropattack, "bernoulli_mask", lambda like, p, generator: torch.ones_like(like))
    monkeypatch.setattr(randomattack, "bernoulli_mask", lambda like, p, generator: torch.ones_like(like))
    monkeypatch.setattr(randomattack, "gaussian", lambda like, generator: torch.ones_like(like))
    monkeypatch.setattr(rwp, "gaussian", lambda like, generator: torch.ones_like(like))
    model, batch = network.build(), network.batch()
    start = snapshot(model)
    reg = absolute(make(method, model, network))
    reg.backward(lambda: network.forward(model, batch))
    want = gradients(model)
    model.zero_grad()
    model.load_state_dict(start)
    torch.compiler.reset()
    reg = absolute(make(method, model, network))
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        compiled = torch.compile(model, backend="aot_eager")
        reg.backward(lambda: network.forward(compiled, batch))
    assert_close(gradients(model), want, rtol=1e-8)


class Waits(TorchDispatchMode):
    """Counts the times that a value is brought from the device to Python."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")
        self.count += func.overloadpacket.__name__ in waits
        return func(*args, **(kwargs or {}))


@two_networks  # the others, with three methods: tests/training/test_waits.py
@each_method
def test_nothing_waits_for_the_device(method: Method, network: Network, monkeypatch):
    # The path of a GPU, where neither the number of rows nor a norm is known on the host.
    monkeypatch.setattr(Rows, "of", Rows.without_waiting)
    monkeypatch.setattr(functional, "is_at_hand", lambda x: False)
    model, batch = network.build(), network.batch()
    reg = make(method, model, network)
    for _ in range(Moving.STEPS):
        reg.backward(lambda: network.forward(model, batch))
    with Waits() as plain:  # some models wait by themselves: a packed batch for its lengths, say
        network.forward(model, batch).loss.backward()
    with Waits() as step:
        reg.backward(lambda: network.forward(model, batch))
    assert step.count == plain.count * method.passes


@fast_on("lstm")
@each_method
def test_the_model_does_not_own_its_attackers(method: Method, network: Network):
    model, batch = network.build(), network.batch()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    reg = make(method, model, network)
    reg.backward(lambda: network.forward(model, batch))
    copied = copy.deepcopy(model)
    network.forward(copied, batch).loss.backward()
    del reg
    gc.collect(2)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
