"""timm's scaler, which does backward, clipping and step in one call, used as in docs/howto/mixed-precision.md."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB, Identity

METHODS = {
    "identity": lambda m: Identity(m),
    "fgm": lambda m: FGM(m, "0.weight", epsilon=0.5),
    "pgd": lambda m: PGD(m, ["0", "0.weight"], steps=2),
    "freelb": lambda m: FreeLB(m, "0", seed=0),
    "dropattack": lambda m: DropAttack(m, ["0", "0.weight"], epsilon=0.5, steps=2, seed=0),
    "sam": lambda m: SAM(m, rho=0.2),
}
CLIP = 0.3


class LookAlike:
    """The calls of timm 1.0's `NativeScaler`."""

    def __init__(self, device: str) -> None:
        self._scaler = torch.amp.GradScaler(device)

    def __call__(
        self, loss, optimizer, clip_grad=None, clip_mode="norm", parameters=None, create_graph=False, need_update=True
    ):
        self._scaler.scale(loss).backward(create_graph=create_graph)
        if need_update:
            if clip_grad is not None:
                self._scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, clip_grad)
            self._scaler.step(optimizer)
            self._scaler.update()


def scalers() -> list:
    try:
        from timm.utils import NativeScaler
    except ImportError:
        return [LookAlike]
    return [LookAlike, NativeScaler]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def trained(step) -> list[torch.Tensor]:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        x, y = torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)
        step(model, optimizer, lambda x=x, y=y: F.cross_entropy(model(x), y))
        optimizer.zero_grad()
    return list(model.parameters())


@pytest.mark.parametrize("kind", scalers(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_the_scaler_scales_alone_and_the_step_comes_after(kind, name):
    scaled, regs = kind("cpu"), {}

    def with_scaler(model, optimizer, forward):
        reg = regs.setdefault("scaled", METHODS[name](model))
        reg.backward(forward, backward=lambda loss: scaled(loss, optimizer, need_update=False))
        scaled._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        scaled._scaler.step(optimizer)
        scaled._scaler.update()

    def by_hand(model, optimizer, forward):
        reg = regs.setdefault("plain", METHODS[name](model))
        reg.backward(forward)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    for a, b in zip(trained(with_scaler), trained(by_hand), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    if name == "identity":
        whole = kind("cpu")
        timms = trained(lambda m, o, f: whole(f(), o, clip_grad=CLIP, parameters=m.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(timms, trained(with_scaler), strict=True))
