"""No step synchronises with the device: its results reach Python only when they are read."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from toys import ToyNet

from dropattack.batch import Batch
from dropattack.data.types import DataSpec
from dropattack.models import bert
from dropattack.models.bert import Bert
from dropattack.models.cnn import CNN
from dropattack.models.rnn import RNNClassifier
from dropattack.regularizers import functional
from dropattack.regularizers.rows import Rows
from dropattack.training.device import make_accelerator
from dropattack.training.step import Stepper
from tests.regularizers.methods import METHODS, Method

WORDS, CLASSES = 40, 3
TEXT = DataSpec("text", CLASSES, ("",) * WORDS, 0)


def image(side: int, channels: int = 1) -> DataSpec:
    return DataSpec("image", CLASSES, image_shape=(channels, side, side))


def rnn(cell: str, packed: bool, **options) -> nn.Module:
    return RNNClassifier(spec=TEXT, cell=cell, packed=packed, hidden_size=4, embedding_size=5, dropout=0.1, **options)


FAMILIES = {
    "lstm": lambda: rnn("lstm", packed=False),
    "lstm-packed": lambda: rnn("lstm", packed=True),
    "bigru2": lambda: rnn("gru", packed=False, bidirectional=True, layers=2),
    "bigru2-packed": lambda: rnn("gru", packed=True, bidirectional=True, layers=2),
    "lenet5": lambda: CNN(spec=image(28), dropout=0.1),
    "vgg": lambda: CNN(spec=image(32, 3), depth=11, width=1 / 32),
    "bert": lambda: Bert(spec=TEXT, pretrained=None, layers=1, hidden_size=8, heads=2),
}
each_family = pytest.mark.parametrize("family", FAMILIES)
FEW = [method for method in METHODS if method.name in ("identity", "dropattack", "rdrop")]
OTHERS = [family for family in FAMILIES if family != "lstm"]


def targets(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return (weights, activations) of a family."""
    if isinstance(model, CNN):
        return ["hidden.weight", "head.weight"], ["<input>", "hidden"]
    if isinstance(model, Bert):
        table = "encoder.embeddings.word_embeddings"
        return [f"{table}.weight", "encoder.encoder.layer.0.attention.self.query.weight"], [table]
    return ["embed.weight", "rnn.weight_ih_l0"], ["embed"]


def batch(model: nn.Module, device: str = "cpu", rows: int = 4) -> Batch:
    labels = (torch.arange(rows) % CLASSES).to(device)
    if isinstance(model, CNN):
        side, channels = {"lenet5": (28, 1), "vgg": (32, 3)}[model.arch]
        return Batch({"pixels": torch.randn(rows, channels, side, side, device=device)}, labels)
    lengths = torch.tensor([6, 5, 3, 2][:rows])  # on the host, as the loader leaves them
    ids = torch.randint(1, WORDS, (rows, 6)) * (torch.arange(6) < lengths[:, None])
    return Batch({"input_ids": ids.to(device), "lengths": lengths}, labels)


def stepper(model: nn.Module, method: Method, device: str = "cpu", **options) -> Stepper:
    torch.manual_seed(0)
    reg = method.make(model, *targets(model))
    accelerator = make_accelerator(device=device)
    model.train()
    return Stepper(model, reg, accelerator, **{"optimizer": "adam", "learning_rate": 1e-3, "clip_norm": 1.0, **options})


class _Calls(TorchFunctionMode):
    """Record the tensor methods that Python calls. On a CPU `.numpy()`, `.tolist()` and `.cpu()` dispatch nothing."""

    WAITS = frozenset(
        ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "__complex__",
         "__contains__", "__format__", "__repr__", "nonzero", "unique", "equal", "allclose", "masked_select")
    )  # fmt: skip

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in self.WAITS or (name == "to" and "cpu" in args):
            raise AssertionError(f"a step waits for the device in {name}")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Record the operations that C++ dispatches."""

    WAITS = frozenset(("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique"))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.WAITS:
            raise AssertionError(f"a step waits for the device in {func}")
        return func(*args, **(kwargs or {}))


def on_host(function):
    """Allow `function` to read data that is on the host even with a GPU; a CPU cannot tell the two apart."""

    def free(*args):
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return function(*args)

    return free


def no_waiting() -> ExitStack:
    stack = ExitStack()
    stack.enter_context(_Calls())
    stack.enter_context(_Operations())
    return stack


@pytest.mark.parametrize(("family", "methods"), [
    pytest.param("lstm", METHODS, id="lstm"),
    *(pytest.param(family, FEW, id=f"{family}, three methods") for family in OTHERS),
    *(pytest.param(family, METHODS, id=family, marks=pytest.mark.slow) for family in OTHERS),
])  # fmt: skip
def test_no_step_waits(family, methods, monkeypatch):
    # A GPU's path: neither the number of rows nor a norm is known on the host.
    monkeypatch.setattr(Rows, "of", Rows.without_waiting)
    monkeypatch.setattr(functional, "is_at_hand", lambda x: False)
    monkeypatch.setattr(bert, "_no_padding", on_host(bert._no_padding))
    for method in methods:
        model = FAMILIES[family]()
        if getattr(model, "packed", False):
            model.rnn.forward = on_host(model.rnn.forward)  # reads how many rows each time step has
        steps, batches = stepper(model, method), [batch(model), batch(model, rows=2)]
        steps.step(batches, learning_rate=1e-3)  # two micro-batches, which find out what a forward writes to
        with no_waiting():
            steps.step(batches, learning_rate=1e-3)
        assert steps.skipped() == 0, method.name
        assert steps.running()["loss"] > 0, method.name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_no_optimizer_waits(optimizer):
    model = ToyNet()
    steps = Stepper(
        model, METHODS[0].make(model, [], []), make_accelerator(device="cpu"), optimizer=optimizer, learning_rate=1e-3
    )
    rows = Batch({"pixels": torch.full((4, 8), float("nan"))}, torch.zeros(4, dtype=torch.long))
    with no_waiting():
        steps.step([rows], learning_rate=1e-3)  # a gradient that is not finite is left out on the device
        rows.inputs["pixels"] = torch.ones(4, 8)
        steps.step([rows], learning_rate=1e-3)
    assert steps.skipped() == 1


@pytest.mark.parametrize("wait", [
    lambda x: x.item(), lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: x.tolist(), lambda x: x.numpy(), bool,
    float, int, lambda x: [1, 2][x], lambda x: x.nonzero(), lambda x: x.unique(), lambda x: f"{x}",
])  # fmt: skip
def test_synchronisation_is_detected(wait):
    x = torch.ones((), dtype=torch.long)
    with no_waiting(), pytest.raises(AssertionError, match="waits"):
        wait(x)


@pytest.mark.gpu
@each_family
def test_no_step_waits_on_a_gpu(family):
    for method in METHODS:
        model = FAMILIES[family]().cuda()
        steps, batches = stepper(model, method, "cuda"), [batch(model, "cuda"), batch(model, "cuda", rows=2)]
        steps.step(batches, learning_rate=1e-3)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps.step(batches, learning_rate=1e-3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert steps.skipped() == 0, method.name
