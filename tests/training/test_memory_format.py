"""Convolutions with weights in channels_last have the same gradients, and their checkpoints can be resumed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack.batch import Batch
from dropattack.data.types import DataSpec
from dropattack.models.cnn import CNN
from dropattack.regularizers import Identity, Output
from dropattack.training.checkpoint import Checkpoints, Snapshot
from dropattack.training.device import make_accelerator
from dropattack.training.step import Stepper
from tests.regularizers.methods import METHODS

SPEC = DataSpec("image", 3, image_shape=(3, 32, 32))
BATCH = Batch({"pixels": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}, torch.arange(4) % 3)


def vgg(channels_last: bool) -> nn.Module:
    torch.manual_seed(0)
    model = CNN(spec=SPEC, depth=11, width=1 / 16).train()
    return model.to(memory_format=torch.channels_last) if channels_last else model


RANDOM = ("dropattack", "randomattack", "vat", "smart", "creat", "rwp", "neftune")  # drawn in the order of the memory


WITH_MASKS = ("compose", "compose-rdrop")  # DropAttack is one of the methods in them
FIXED = [m for m in METHODS if not m.name.startswith(RANDOM) and m.name not in WITH_MASKS]


@pytest.mark.parametrize("method", FIXED, ids=lambda m: m.name)
def test_gradients_are_the_same(method):
    """The gradients do not depend on the memory format, for the methods that draw no random numbers of their own."""

    def gradients(channels_last: bool):
        model = vgg(channels_last).double()
        reg = method.make(model, ["hidden.weight", "head.weight"], ["hidden"])
        if method.name == "freelb":
            reg.init = 0.0

        def forward():
            logits = model(BATCH.inputs["pixels"].double())
            return Output(F.cross_entropy(logits, BATCH.labels), logits)

        reg.backward(forward)
        return [p.grad for p in model.parameters()]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_run_resumes_from_a_checkpoint_bit_for_bit(tmp_path, optimizer):
    def start() -> Stepper:
        model = vgg(channels_last=True)
        return Stepper(model, Identity(model), make_accelerator(device="cpu"), optimizer=optimizer, learning_rate=1e-2)

    steps = start()
    steps.step([BATCH], 1e-2)
    Checkpoints(tmp_path).save(Snapshot(1, steps.state_dict()))
    steps.step([BATCH], 1e-2)
    continued = start()
    continued.load_state_dict(Checkpoints(tmp_path).load().state)
    continued.step([BATCH], 1e-2)
    for one, other in zip(steps.raw.parameters(), continued.raw.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.gpu
def test_a_gpu_uses_it_with_mixed_precision():
    model = vgg(channels_last=False)
    Stepper(model, Identity(model), make_accelerator(precision="bf16"), optimizer="adam", learning_rate=1e-2)
    assert model.hidden.weight.is_contiguous(memory_format=torch.channels_last)
