"""With `Identity`, the Lightning mixin is plain Lightning bit for bit: weights, order of hooks, logs, schedules."""

from collections.abc import Iterator

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as cb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, TensorDataset

from dropattack import Identity
from dropattack.integrations.lightning import RegularizerMixin

BATCHES, EPOCHS = 7, 4


def rows() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (4 * BATCHES,), generator=generator)
    return TensorDataset(torch.randn(4 * BATCHES, 5, generator=generator), labels)


class Plain(L.LightningModule):
    """BatchNorm, dropout, and a schedule by name."""

    def __init__(self, schedule: str = "none", optimizer: str = "sgd") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.schedule, self.optimizer = schedule, optimizer
        self.seen: list = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "index": batch_idx}

    def validation_step(self, batch, batch_idx):
        self.log("val", F.cross_entropy(self.net(batch[0]), batch[1]))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append((outputs["loss"].item(), outputs["index"], self.trainer.optimizers[0].param_groups[0]["lr"]))

    def configure_optimizers(self):
        if self.optimizer == "lbfgs":
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        return [optimizer], {
            "none": [],
            "step": [{"scheduler": schedules.StepLR(optimizer, 2, gamma=0.5), "interval": "step", "frequency": 2}],
            "epoch": [{"scheduler": schedules.StepLR(optimizer, 1, gamma=0.5), "interval": "epoch"}],
            "plateau": [{
                "scheduler": schedules.ReduceLROnPlateau(optimizer, patience=0, threshold=0.1), "monitor": "val",
            }],
        }[self.schedule]  # fmt: skip


class Ours(RegularizerMixin, Plain):
    def configure_regularizer(self):
        return Identity(self)


class Order(cb.Callback):
    """Every hook of the training, in order, with the learning rate and the gradient's norm that it sees."""

    def __init__(self) -> None:
        self.calls: list = []

    def __getattribute__(self, name: str):
        if name.startswith(("on_before", "on_after", "on_train", "on_validation", "on_save")):
            return lambda trainer, module, *args: self.calls.append((name, *self.state(trainer, module)))
        return super().__getattribute__(name)

    def state(self, trainer, module) -> tuple:
        norm = sum(float(p.grad.norm()) for p in module.parameters() if p.grad is not None)
        return str(norm), trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]


def fit(module: L.LightningModule, folder, **options) -> tuple[L.Trainer, Order]:
    order = Order()
    torch.manual_seed(1)
    more = options.pop("callbacks", list)()  # made anew for each training
    trainer = L.Trainer(**{
        "max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, "logger": CSVLogger(folder, "", ""),
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "log_every_n_steps": 1, "callbacks": [*more, order], **options,
    })  # fmt: skip
    trainer.fit(module, DataLoader(rows(), batch_size=4), DataLoader(rows(), batch_size=8))
    return trainer, order


def scaled() -> list:
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**60))]


SCHEDULES = ("none", "step", "epoch", "plateau")
OPTIONS = (
    {},
    {"accumulate_grad_batches": 3},
    {"gradient_clip_val": 0.3},
    {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value", "accumulate_grad_batches": 2},
    {"precision": "bf16-mixed"},
    {"precision": "64-true"},
    {"precision": "bf16-true"},
    {"plugins": scaled, "gradient_clip_val": 0.3},
    {"max_steps": 5},
    {"val_check_interval": 2},
    {"limit_train_batches": 3},
    {"callbacks": lambda: [cb.StochasticWeightAveraging(0.1, swa_epoch_start=2, annealing_epochs=1)]},
    {"callbacks": lambda: [cb.StochasticWeightAveraging([0.1], swa_epoch_start=0.5)], "accumulate_grad_batches": 2},
    {"callbacks": lambda: [cb.GradientAccumulationScheduler({0: 1, 1: 3})]},
    {"callbacks": lambda: [cb.EMAWeightAveraging(decay=0.5)]},
    {"callbacks": lambda: [cb.EarlyStopping("val", patience=1, min_delta=0.2)]},
)


def cells() -> Iterator:
    """Yield each option with each schedule; the default with all of them, and the others with one in turn, are fast."""
    for number, options in enumerate(OPTIONS):
        one = ("none", "epoch", "plateau")[number % 3] if "callbacks" in options else SCHEDULES[number % 4]
        for schedule in SCHEDULES:
            fast = not options or schedule == one
            name = f"{','.join(options) or 'default'}-{schedule}"
            yield pytest.param(options, schedule, id=name, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("options", "schedule"), cells())
def test_identity_is_plain_lightning(tmp_path, options: dict, schedule: str):
    if schedule == "step" and "callbacks" in options:
        pytest.skip("Lightning's SWA takes schedules by epoch alone")
    trained = []
    for kind in (Plain, Ours):
        module = kind(schedule)
        own = {k: v() if k == "plugins" else v for k, v in options.items()}
        trainer, order = fit(module, tmp_path / kind.__name__, **own)
        metrics = (tmp_path / kind.__name__ / "metrics.csv").read_text()
        trained.append((module, order.calls, trainer.global_step, metrics))
    (plain, calls, steps, metrics), (ours, our_calls, our_steps, our_metrics) = trained
    assert steps == our_steps > 0
    assert calls == our_calls
    assert plain.seen == ours.seen
    assert metrics == our_metrics
    for (name, a), b in zip(plain.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_identity_with_a_closure_that_is_called_several_times(tmp_path):
    plain, ours = Plain(optimizer="lbfgs"), Ours(optimizer="lbfgs")
    calls = [fit(module, tmp_path)[1].calls for module in (plain, ours)]
    assert calls[0] == calls[1]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


def test_a_step_that_returns_none_is_skipped_as_in_lightning(tmp_path):
    def skip(self, batch, batch_idx):
        return None if batch_idx == 1 else type(self).__mro__[1].training_step(self, batch, batch_idx)

    def ended(self, outputs, batch, batch_idx):
        pass

    changes = {"training_step": skip, "on_train_batch_end": ended}
    modules = [type(kind.__name__, (kind,), changes)() for kind in (Plain, Ours)]
    calls = [fit(module, tmp_path, max_epochs=1)[1].calls for module in modules]
    assert calls[0] == calls[1]
    plain, ours = modules
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))
