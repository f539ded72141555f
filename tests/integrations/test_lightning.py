"""The Lightning mixin against a loop by hand: precision, accumulation, clipping, schedules, checkpoints, EMA."""

import copy
import itertools
from dataclasses import replace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dropattack import FGM, PGD, SAM, Compose, DropAttack, Flooding, FreeLB, Identity, Output, RDrop, Regularizer
from dropattack.integrations.lightning import RegularizerMixin


def alternating(m: nn.Module, name: str) -> nn.Module:
    """In place of dropout, whose masks depend on who else draws: every second output of a layer is larger."""
    factors = itertools.cycle((1.0, 1.5))
    m.get_submodule(name).register_forward_hook(lambda module, args, output: output * next(factors))
    return m


METHODS = {
    "identity": lambda m, net: Identity(m),
    "fgm": lambda m, net: FGM(m, f"{net}0.weight", epsilon=0.5),
    "pgd": lambda m, net: PGD(m, [f"{net}0", f"{net}0.weight"], steps=2),
    "freelb": lambda m, net: FreeLB(m, f"{net}0", seed=0),
    "dropattack": lambda m, net: DropAttack(m, [f"{net}0", f"{net}0.weight"], epsilon=0.5, steps=2, seed=0),
    "rdrop": lambda m, net: RDrop(alternating(m, f"{net}2"), alpha=2.0),
    "sam": lambda m, net: SAM(m, rho=0.2),
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
    def __init__(self, method: str = "dropattack", every: str = "step"):
        super().__init__()
        self.net, self.method, self.every = build(), method, every

    def configure_regularizer(self):
        return METHODS[self.method](self, "net.")

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, y), "logits": logits}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.every}}


class StatefulLoader(DataLoader):
    """A loader that a checkpoint within an epoch brings back to its place, as torchdata's does."""

    start = at = 0

    def __iter__(self):
        start, self.start = self.start, 0
        for self.at, batch in enumerate(super().__iter__(), 1):
            if self.at > start:
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["at"]


def fit(module: L.LightningModule, checkpoint=None, **options) -> L.Trainer:
    defaults = {
        "max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    trainer = L.Trainer(**{**defaults, **options})
    trainer.fit(module, StatefulLoader(rows(), batch_size=4), ckpt_path=checkpoint, weights_only=True)
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
                    logits = net(x)
                    return Output(F.cross_entropy(logits, y), logits)

            losses = reg.backward(forward, backward=lambda loss: (loss / accumulate).backward())
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
    return net, losses


@each_method
@pytest.mark.parametrize(("accumulate", "clip_norm", "every", "precision"), [
    (1, None, "epoch", "32-true"), (2, 0.3, "step", "bf16-mixed"), (3, 0.3, "step", "32-true"),
    *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (
        (1, None, "epoch", "bf16-mixed"), (2, 0.3, "step", "32-true"), (3, 0.3, "step", "bf16-mixed"),
    )),
])  # fmt: skip
def test_lightning_is_the_loop_by_hand(method, accumulate, clip_norm, every, precision):
    module = Module(method, every)
    fit(module, precision=precision, accumulate_grad_batches=accumulate, gradient_clip_val=clip_norm)
    autocast = torch.bfloat16 if precision == "bf16-mixed" else None
    net, losses = by_hand(method, accumulate, clip_norm, every, autocast)
    for a, b in zip(module.net.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert module.trainer.global_step == 2 * -(-BATCHES // accumulate)
    assert module.losses == replace(losses, logits=None)


@pytest.mark.parametrize("composed", [False, True])
def test_a_strength_that_is_raised_later(composed):
    """It is 0 where the method is made, and through the first epoch."""

    def made(m: nn.Module, net: str) -> tuple[Regularizer, FGM]:
        fgm = FGM(m, f"{net}0.weight", epsilon=0.0)
        return (Compose(fgm, Flooding(m, level=0.0)) if composed else fgm), fgm

    class Raised(Module):
        def configure_regularizer(self):
            regularizer, self.fgm = made(self, "net.")
            return regularizer

        def on_train_epoch_start(self):
            _ = self.regularizer
            self.fgm.epsilon = 0.5 * self.current_epoch

    module, net = Raised(every="epoch"), build()
    reg, fgm = made(net, "")
    fit(module)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for epoch in range(2):
        fgm.epsilon = 0.5 * epoch
        for x, y in DataLoader(rows(), batch_size=4):
            optimizer.zero_grad()
            losses = reg.backward(lambda x=x, y=y: F.cross_entropy(net(x), y))
            optimizer.step()
        schedule.step()
    assert len(losses.adversarial) == 1
    for a, b in zip(module.net.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)


@each_method
def test_16_mixed_unscales_before_it_clips_and_skips_overflow(method):
    def scaled(scale: float) -> tuple[Module, torch.amp.GradScaler]:
        module, scaler = Module(method), torch.amp.GradScaler("cpu", init_scale=scale)
        fit(module, plugins=[MixedPrecision("16-mixed", "cpu", scaler)], max_epochs=1, gradient_clip_val=0.3)
        return module, scaler

    exact = Module(method)
    fit(exact, max_epochs=1, gradient_clip_val=0.3)
    module, _ = scaled(2.0**8)
    for a, b in zip(module.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    untouched, scaler = scaled(2.0**60)
    assert scaler.get_scale() < 2.0**60
    assert all(torch.equal(a, b) for a, b in zip(untouched.net.parameters(), build().parameters(), strict=True))


@pytest.mark.gpu
def test_16_mixed_on_a_gpu():
    module = Module()
    fit(module, precision="16-mixed", accelerator="gpu", gradient_clip_val=0.3)
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(("when", "name"), [("every_n_epochs", "epoch=0"), ("every_n_train_steps", "step=7")])
@pytest.mark.parametrize("method", ["freelb", "dropattack"])
def test_a_resumed_training_is_the_one_that_was_never_stopped(tmp_path, method, when, name):
    """Saved after the first epoch, or within the second."""
    whole, rest = Module(method), Module(method)
    key, number = name.split("=")
    saved = ModelCheckpoint(tmp_path, f"{{{key}}}", save_top_k=-1, **{when: max(int(number), 1)})
    fit(whole, callbacks=[saved], enable_checkpointing=True)
    trainer = fit(rest, checkpoint=tmp_path / f"{name}.ckpt")
    assert trainer.global_step == 2 * BATCHES
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))


class Alone(Module):
    """Lightning's own hooks do nothing, so many modules do not call them."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["vocabulary"] = ["a"]

    def on_load_checkpoint(self, checkpoint):
        self.vocabulary = checkpoint["vocabulary"]


class Calling(Alone):
    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        assert len(checkpoint["regularizer"]) == 1

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        assert self._held.restored is checkpoint["regularizer"]


class Hooks:
    def on_save_checkpoint(self, checkpoint):
        checkpoint["vocabulary"] = ["a"]

    def on_load_checkpoint(self, checkpoint):
        self.vocabulary = checkpoint["vocabulary"]


class Before(Hooks, Module):
    """Another mixin comes first."""


@pytest.mark.parametrize("kind", [Alone, Calling, Before])
def test_hooks_of_a_module_do_not_hide_the_regularizers_state(tmp_path, kind):
    whole, first, rest = Module(), kind(), kind()
    fit(whole)
    fit(first, max_epochs=1).save_checkpoint(tmp_path / "first.ckpt")
    fit(rest, checkpoint=tmp_path / "first.ckpt")
    assert rest.vocabulary == ["a"]
    assert rest.regularizer.state_dict()["calls"] == whole.regularizer.state_dict()["calls"] == 2 * BATCHES
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))


def test_a_state_that_a_module_saves_itself_is_its_own(tmp_path):
    class Own(Alone):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["regularizer"] = self.regularizer.state_dict()

        def on_load_checkpoint(self, checkpoint):
            self.regularizer.load_state_dict(checkpoint["regularizer"])

    first, rest = Own(), Own()
    fit(first, max_epochs=1).save_checkpoint(tmp_path / "first.ckpt")
    fit(rest, checkpoint=tmp_path / "first.ckpt")
    assert rest.regularizer.state_dict()["calls"] == 2 * BATCHES


def test_an_averaged_copy_has_no_regularizer():
    module, averaging = Module(), EMAWeightAveraging(decay=0.5)
    fit(module, callbacks=[averaging])
    copied = copy.deepcopy(module)
    assert copied._held.regularizer is None
    assert copied.regularizer.model is copied
    assert module.regularizer.model is module


def test_a_trainer_that_goes_on_with_a_plain_module_trains_it_plainly():
    class Bare(L.LightningModule):
        training_step, configure_optimizers = Module.training_step, Module.configure_optimizers

        def __init__(self):
            super().__init__()
            self.net, self.every = build(), "step"

    alone, after = Bare(), Bare()
    fit(alone, max_epochs=1)
    trainer = fit(Module(), max_epochs=1)
    trainer.fit_loop.epoch_progress.reset()
    trainer.fit_loop.max_epochs = 1
    trainer.fit(after, DataLoader(rows(), batch_size=4))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), after.parameters(), strict=True))


def test_only_the_clean_pass_logs():
    seen = []

    class Logging(Module):
        def training_step(self, batch, batch_idx):
            result = super().training_step(batch, batch_idx)
            self.log("loss", result["loss"])
            seen.append((self.is_clean_pass, result["loss"].item()))
            return result

        def on_train_batch_end(self, outputs, batch, batch_idx):
            assert self.trainer.callback_metrics["loss"].item() == outputs["loss"].item() == self.losses.clean.item()

    module = Logging("fgm")
    fit(module)
    assert [clean for clean, _ in seen] == [True, False] * 2 * BATCHES
    assert all(one != two for (_, one), (_, two) in zip(seen[::2], seen[1::2], strict=True))
    assert module.is_clean_pass


def test_a_checkpoint_of_another_number_of_processes_is_said(tmp_path):
    first, second = Module("freelb"), Module("freelb")
    trainer = fit(first, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    saved["regularizer"] *= 2  # as of two processes
    torch.save(saved, tmp_path / "two.ckpt")
    with pytest.warns(UserWarning, match="another number of processes"):
        fit(second, checkpoint=tmp_path / "two.ckpt")
    assert second.regularizer.state_dict()["calls"] == first.regularizer.state_dict()["calls"] + BATCHES


def test_a_new_training_of_old_weights_starts_the_regularizer_anew(tmp_path):
    trainer = fit(Module("dropattack"), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module = Module.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    fit(module, max_epochs=1)
    assert module.regularizer.state_dict()["calls"] == BATCHES


def test_a_checkpoint_before_the_first_resumed_step_keeps_the_state(tmp_path):
    class SaveAtOnce(L.Callback):
        def on_train_start(self, trainer, module):
            trainer.save_checkpoint(tmp_path / "two.ckpt")

    trainer = fit(Module("dropattack"), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    fit(Module("dropattack"), checkpoint=tmp_path / "one.ckpt", callbacks=[SaveAtOnce()])
    one, two = (torch.load(tmp_path / name, weights_only=True)["regularizer"] for name in ("one.ckpt", "two.ckpt"))
    assert one[0]["calls"] == two[0]["calls"] == BATCHES


def test_what_cannot_work_says_so():
    class Forgetful(Module):
        configure_regularizer = RegularizerMixin.configure_regularizer

    with pytest.raises(NotImplementedError, match="configure_regularizer"):
        fit(Forgetful())

    with pytest.raises(TypeError, match="must come before LightningModule"):
        type("Late", (L.LightningModule, RegularizerMixin), {})

    class Sometimes(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if self.is_clean_pass else None

    with pytest.raises(RuntimeError, match="None in another"):
        fit(Sometimes("fgm"))


class Named(Module):
    """A module that is told the method's name."""

    def __init__(self, **given):
        RegularizerMixin.__init__(self, **given)
        self.net, self.every = build(), "step"

    configure_regularizer = RegularizerMixin.configure_regularizer


def test_a_name_is_the_method():
    options = {"targets": "net.0.weight", "epsilon": 0.5}
    named, method = Named(regularizer="fgm", regularizer_options=options), Module("fgm")
    fit(named)
    fit(method)
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), method.parameters(), strict=True))
    function = Named(regularizer=lambda m: FGM(m, "net.0.weight", epsilon=0.5))
    assert isinstance(function.regularizer, FGM)


def test_a_name_that_is_none_says_what_to_write():
    with pytest.raises(ValueError, match="there is no method 'fmg'; did you mean 'fgm'"):
        Named(regularizer="fmg")
    with pytest.raises(TypeError, match="but must be the name of a method"):
        Named(regularizer_options={"epsilon": 1.0})
    with pytest.raises(TypeError, match="does not exist yet"):
        Named(regularizer=FGM(build(), "0.weight"))
    with pytest.raises(NotImplementedError, match='regularizer="fgm"'):
        _ = Named().regularizer
