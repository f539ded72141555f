"""The Lightning mixin against a loop by hand: precision, accumulation, clipping, schedules, checkpoints, EMA."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dropattack import FGM, PGD, DropAttack, FreeLB, Identity
from dropattack.integrations.lightning import RegularizerMixin

METHODS = {
    "identity": lambda m, net: Identity(m),
    "fgm": lambda m, net: FGM(m, f"{net}0.weight", epsilon=0.5),
    "pgd": lambda m, net: PGD(m, [f"{net}0", f"{net}0.weight"], steps=2),
    "freelb": lambda m, net: FreeLB(m, f"{net}0", seed=0),
    "dropattack": lambda m, net: DropAttack(m, [f"{net}0", f"{net}0.weight"], epsilon=0.5, steps=2, seed=0),
}
each_method = pytest.mark.parametrize("method", METHODS)
BATCHES = 5


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def rows() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(4 * BATCHES, 5, generator=generator), torch.randint(3, (4 * BATCHES,), generator=generator)
    )


class Module(RegularizerMixin, L.LightningModule):
    def __init__(self, method: str = "dropattack", accumulate: int = 1, clip_norm: float | None = None, every="step"):
        super().__init__()
        self.net, self.method, self.every = build(), method, every
        self.accumulate, self.clip_norm = accumulate, clip_norm

    def configure_regularizer(self):
        return METHODS[self.method](self, "net.")

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.regularized_step(lambda: F.cross_entropy(self.net(x), y), batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.every}}


def fit(module: L.LightningModule, checkpoint=None, **options) -> L.Trainer:
    defaults = {
        "max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    trainer = L.Trainer(**{**defaults, **options})
    trainer.fit(module, DataLoader(rows(), batch_size=4), ckpt_path=checkpoint, weights_only=True)
    return trainer


def by_hand(method: str, accumulate: int, clip_norm: float | None, every: str, autocast: torch.dtype | None):
    net = build()
    reg = METHODS[method](net, "")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(2):
        for i, (x, y) in enumerate(DataLoader(rows(), batch_size=4), 1):

            def forward(x=x, y=y):
                with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                    return F.cross_entropy(net(x), y)

            reg.backward(forward, backward=lambda loss: (loss / accumulate).backward())
            if i % accumulate and i < BATCHES:
                continue
            if clip_norm:
                nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if every == "step":
                schedule.step()
        if every == "epoch":
            schedule.step()
    return net


@each_method
@pytest.mark.parametrize(("accumulate", "clip_norm", "every"), [(1, None, "epoch"), (2, 0.3, "step")])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_is_the_loop_by_hand(method, accumulate, clip_norm, every, precision):
    module = Module(method, accumulate, clip_norm, every)
    fit(module, precision=precision)
    wanted = by_hand(method, accumulate, clip_norm, every, torch.bfloat16 if precision == "bf16-mixed" else None)
    for a, b in zip(module.net.parameters(), wanted.parameters(), strict=True):
        # the backward too is inside Lightning's autocast, where sums of 16-bit gradients may be rounded otherwise
        tolerance = 1e-6 if precision == "32-true" else 1e-2
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    assert module.trainer.global_step == 2 * -(-BATCHES // accumulate)


@each_method
def test_16_mixed_unscales_before_it_clips_and_skips_overflow(method):
    def scaled(scale: float) -> tuple[Module, torch.amp.GradScaler]:
        module, scaler = Module(method, clip_norm=0.3), torch.amp.GradScaler("cpu", init_scale=scale)
        fit(module, plugins=[MixedPrecision("16-mixed", "cpu", scaler)], max_epochs=1)
        return module, scaler

    exact = Module(method, clip_norm=0.3)
    fit(exact, max_epochs=1)
    module, _ = scaled(2.0**8)
    for a, b in zip(module.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    untouched, scaler = scaled(2.0**60)
    assert scaler.get_scale() < 2.0**60
    assert all(torch.equal(a, b) for a, b in zip(untouched.net.parameters(), build().parameters(), strict=True))


@pytest.mark.gpu
def test_16_mixed_on_a_gpu():
    module = Module(clip_norm=0.3)
    fit(module, precision="16-mixed", accelerator="gpu")
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_resumed_training_is_the_one_that_was_never_stopped(tmp_path):
    whole, half, rest = Module("freelb"), Module("freelb"), Module("freelb")
    fit(whole)
    fit(half, max_epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    fit(rest, checkpoint=tmp_path / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))


def test_an_averaged_copy_has_no_regularizer():
    module, averaging = Module(), EMAWeightAveraging(decay=0.5)
    fit(module, callbacks=[averaging])
    copied = copy.deepcopy(module)
    assert copied._held.regularizer is None
    assert copied.regularizer.model is copied
    assert module.regularizer.model is module


def test_toggled_optimizers():
    class Two(Module):
        def training_step(self, batch, batch_idx):
            x, y = batch
            for optimizer in self.optimizers():
                self.toggle_optimizer(optimizer)
                before = [p.clone() for p in self.parameters()]
                self.regularized_step(lambda: F.cross_entropy(self.net(x), y), batch_idx, optimizer=optimizer)
                mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
                for p, old in zip(self.parameters(), before, strict=True):
                    assert torch.equal(p, old) != (id(p) in mine)
                self.untoggle_optimizer(optimizer)

        def configure_regularizer(self):
            return PGD(self, "net.0", steps=2)

        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]

    fit(Two())


def test_what_cannot_work_says_so():
    class Forgetful(Module):
        configure_regularizer = RegularizerMixin.configure_regularizer

    with pytest.raises(NotImplementedError, match="configure_regularizer"):
        fit(Forgetful())

    class Several(Module):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]

    with pytest.raises(ValueError, match="several optimizers"):
        fit(Several())
