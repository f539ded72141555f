"""Accelerate's loop gives the hand-written loop's weights."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional as F

from dropattack import FGM, PGD, DropAttack, FreeLB, Regularizer

METHODS = {
    "fgm": lambda m: FGM(m, "0.weight", epsilon=0.5),
    "pgd": lambda m: PGD(m, ["0.weight", "<input>"], steps=2),
    "freelb": lambda m: FreeLB(m, "<input>", seed=0),
    "dropattack": lambda m: DropAttack(m, ["<input>", "0.weight"], epsilon=0.5, steps=2, seed=0),
}


@pytest.fixture(autouse=True)
def fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(6)]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
def test_accelerate_is_the_loop_by_hand(make, accumulate: int, precision: str):
    model, optimizer = build()
    reg: Regularizer = make(model)
    for i, (x, y) in enumerate(batches(), 1):

        def forward(x=x, y=y):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = model(x)
            return F.cross_entropy(logits.float(), y)

        reg.backward(forward, backward=lambda loss: (loss / accumulate).backward())
        if i % accumulate == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()

    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulate)
    prepared, optimizer = accelerator.prepare(*build())
    reg = make(prepared)
    for x, y in batches():
        with accelerator.accumulate(prepared):
            reg.backward(
                lambda x=x, y=y: F.cross_entropy(prepared(x), y),
                backward=accelerator.backward,
                no_sync=lambda: accelerator.no_sync(prepared),
            )
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(model.parameters(), prepared.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert reg.skipped == 0
