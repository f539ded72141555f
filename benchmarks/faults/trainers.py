"""The same training with four trainers, each saving and resuming as its documentation says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.faults.task import EPOCHS, SAVE_EVERY, Places, data_and_model
from dropattack.batch import Batch
from dropattack.data.loader import Loader
from dropattack.data.types import Encoded, TensorSplit
from dropattack.runs import cli, experiment
from dropattack.tracking.base import NullTracker

Trainer = Callable[[Path, DictConfig, Places], int]


def ours(folder: Path, config: DictConfig, places: Places) -> int:
    """Train as `python run.py` does; return its exit code."""
    make = Loader._batch

    def batch(loader: Loader, *args: Any) -> Batch:
        made = make(loader, *args)
        if loader.shuffle:
            places.batch(made.inputs["pixels"])
        return made

    with (
        mock.patch.object(Loader, "_batch", batch),
        mock.patch.object(NullTracker, "log", side_effect=lambda *_: places.log()),
        mock.patch("dropattack.tracking.guard.FINISH_SECONDS", 1.0),
    ):
        return cli.guarded(lambda: print(experiment.run(config)) or 0)


def _split(split: TensorSplit) -> TensorDataset:
    return TensorDataset(split.inputs.float() / 255, split.labels)


def _loaders(encoded: Encoded, places: Places, size: int) -> tuple[DataLoader, DataLoader]:
    def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([row[0] for row in rows])
        places.batch(pixels)
        return pixels, torch.stack([row[1] for row in rows])

    train = DataLoader(_split(encoded.train), batch_size=size, shuffle=True, collate_fn=collate)
    return train, DataLoader(_split(encoded.validation), batch_size=size)


def _save(model: nn.Module, folder: Path) -> int:
    save_file(dict(model.state_dict()), folder / "weights.safetensors")
    return 0


class _WithLoss(nn.Module):
    """The form that transformers expects of a model."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixels=pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def with_transformers(folder: Path, config: DictConfig, places: Places) -> int:
    class Rows(Dataset):
        def __init__(self, split: TensorSplit, *, train: bool) -> None:
            self.rows, self.train = _split(split), train

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            pixels, label = self.rows[index]
            return {"pixels": pixels, "labels": label, "train": self.train}

    def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        batch = {key: torch.stack([row[key] for row in rows]) for key in ("pixels", "labels")}
        if rows[0]["train"]:
            places.batch(batch["pixels"])
        return batch

    class Logging(transformers.TrainerCallback):
        def on_log(self, *_: Any, **__: Any) -> None:
            places.log()

    encoded, net = data_and_model(config)
    own = config.trainer
    arguments = transformers.TrainingArguments(
        str(folder / "hf"), num_train_epochs=EPOCHS, per_device_train_batch_size=own.batch_size, use_cpu=True,
        learning_rate=own.learning_rate, save_steps=SAVE_EVERY, save_total_limit=2, eval_strategy="epoch",
        lr_scheduler_type="constant", logging_steps=SAVE_EVERY, report_to=[], seed=config.seed,
        remove_unused_columns=False,
    )  # fmt: skip
    trainer = transformers.Trainer(
        _WithLoss(net), arguments, train_dataset=Rows(encoded.train, train=True),
        eval_dataset=Rows(encoded.validation, train=False), data_collator=collate, callbacks=[Logging()],
    )  # fmt: skip
    there = (folder / "hf").is_dir()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder / "hf")) if there else None)
    return _save(net, folder)


class _Module(lightning.LightningModule):
    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate = net, rate

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss = F.cross_entropy(self.net(pixels=batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(pixels=batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


class _Logger(Logger):
    name, version = "places", 0

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.places.log()

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def with_lightning(folder: Path, config: DictConfig, places: Places) -> int:
    lightning.seed_everything(config.seed, verbose=False)
    encoded, net = data_and_model(config)
    saving = ModelCheckpoint(
        folder / "lightning", every_n_train_steps=SAVE_EVERY, save_top_k=2, monitor="step", mode="max", save_last=True
    )
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=1, callbacks=[saving], logger=_Logger(places),
        log_every_n_steps=SAVE_EVERY, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = _Module(net, config.trainer.learning_rate)
    trainer.fit(module, *_loaders(encoded, places, config.trainer.batch_size), ckpt_path="last")
    if trainer.interrupted:
        return 1
    return _save(net, folder)


def with_accelerate(folder: Path, config: DictConfig, places: Places) -> int:
    """Follow `examples/by_feature/checkpointing.py` of Accelerate: `save_state` and `skip_first_batches`."""
    set_seed(config.seed)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    encoded, net = data_and_model(config)
    train, validation = _loaders(encoded, places, config.trainer.batch_size)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.trainer.learning_rate)
    net, optimizer, train, validation = accelerator.prepare(net, optimizer, train, validation)
    saved = sorted((folder / "accelerate").glob("step_*"), key=lambda path: path.stat().st_ctime)
    step = 0
    if saved:
        accelerator.load_state(str(saved[-1]))
        step = int(re.sub(r"\D", "", saved[-1].name))
    for epoch in range(step // len(train), EPOCHS):
        net.train()
        train.set_epoch(epoch)
        done = step - epoch * len(train)
        for pixels, labels in accelerator.skip_first_batches(train, done) if done else train:
            accelerator.backward(F.cross_entropy(net(pixels=pixels), labels))
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % SAVE_EVERY == 0:
                accelerator.save_state(str(folder / "accelerate" / f"step_{step}"))
                places.log()
        net.eval()
        with torch.no_grad():
            for pixels, _ in validation:
                net(pixels=pixels)
    return _save(accelerator.unwrap_model(net), folder)


TRAINERS: dict[str, Trainer] = {
    "DropAttack": ours, "Transformers": with_transformers, "Lightning": with_lightning, "Accelerate": with_accelerate,
}  # fmt: skip


def saved(folder: Path) -> list[Path]:
    """Return the checkpoints of any trainer in `folder`, the newest last."""
    found = [*folder.glob("out/checkpoints/*/step-*"), *folder.glob("hf/checkpoint-*"),
             *folder.glob("accelerate/step_*"), *folder.glob("lightning/*.ckpt")]  # fmt: skip
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def weights(folder: Path) -> dict[str, Tensor] | None:
    """Return the weights that a finished run left, or None; ours are the best ones, so its history is added."""
    records = sorted(folder.glob("out/records/*.json"), key=lambda path: path.stat().st_mtime_ns)
    files = list(folder.glob("out/checkpoints/*/best.safetensors" if records else "weights.safetensors"))
    newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest is None:
        return None
    found = load_file(newest)
    if records:
        with suppress(ValueError):  # of a record that is cut short
            history = json.loads(records[-1].read_text())["history"]
            text = json.dumps([{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history])
            found["history"] = torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8)
    return found
