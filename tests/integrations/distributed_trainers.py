"""The Trainer and Lightning in each of two gloo processes; test_ddp.py starts them and compares.

torchrun --standalone --nproc_per_node=2 -m tests.integrations.distributed_trainers FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dropattack import DropAttack, Identity, Regularizer
from dropattack.integrations.hf import RegularizedTrainer
from dropattack.integrations.lightning import RegularizerMixin
from tests.integrations.distributed import Net, batch, drop_attack
from tests.integrations.tiny_bert import QUERY, WORDS, InOrder, Rows, arguments, bert

ACCUMULATE, STEPS, CLIP = 2, 3, 0.2
AUTOMATIC = {"accumulate_grad_batches": ACCUMULATE, "gradient_clip_val": CLIP}


class Plain(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net().double()

    def training_step(self, part: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        ids, labels = part
        return F.cross_entropy(self.net(ids), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Module(RegularizerMixin, Plain):
    def configure_regularizer(self) -> Regularizer:
        return drop_attack(self.net)


class WithIdentity(Module):
    def configure_regularizer(self) -> Regularizer:
        return Identity(self.net)


class Manual(Module):
    """Manual optimization: accumulation and clipping are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, part: list[torch.Tensor], batch_idx: int) -> None:
        ids, labels = part
        optimizer = self.optimizers()
        self.regularized_step(lambda: F.cross_entropy(self.net(ids), labels))
        if (batch_idx + 1) % ACCUMULATE == 0:
            for p in self.parameters():
                p.grad /= ACCUMULATE
            torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()


def with_lightning(rank: int, module: L.LightningModule, ddp: dict, **options: Any) -> dict:
    parts = [batch(step, micro, rank) for step in range(STEPS) for micro in range(ACCUMULATE)]
    rows = TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))
    options = options if module.automatic_optimization is False else {**AUTOMATIC, **options}
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=L.pytorch.strategies.DDPStrategy(**ddp), logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **{"max_epochs": 1, **options},
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=len(parts[0][0])))
    if type(module) is Module:
        trainer.save_checkpoint(Path(sys.argv[1]) / "lightning.ckpt")
    return dict(module.net.named_parameters())


class Trainer(InOrder, RegularizedTrainer):
    pass


def attack_bert(model: torch.nn.Module) -> DropAttack:
    return DropAttack(model, [f"{WORDS}.weight", f"{QUERY}.weight"], epsilon=0.5, steps=2, seed=0)


def with_trainer(folder: str) -> dict:
    model = bert(dropout=0.0)
    model.accepts_loss_kwargs = False  # its loss is a mean
    options = arguments(
        folder, max_steps=1, per_device_train_batch_size=3, gradient_accumulation_steps=2, optim="sgd",
        max_grad_norm=0.0, learning_rate=0.1, lr_scheduler_type="constant", ddp_backend="gloo",
    )  # fmt: skip
    Trainer(model=model, args=options, train_dataset=Rows(), regularizer=attack_bert).train()
    return dict(model.named_parameters())


def main(folder: str) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    views = {"gradient_as_bucket_view": True, "find_unused_parameters": True}
    found = {"trainer": with_trainer(folder), "lightning": with_lightning(rank, Module(), {})}
    found["lightning, views"] = with_lightning(rank, Module(), views)
    found["lightning, manual"] = with_lightning(rank, Manual(), {})
    for name, module in (("plain", Plain()), ("identity", WithIdentity())):
        averaging = StochasticWeightAveraging(0.1, swa_epoch_start=2)
        found[name] = with_lightning(rank, module, {}, callbacks=[averaging], max_epochs=3)
    with pytest.raises(ValueError, match="static_graph"):
        with_lightning(rank, Module(), {"static_graph": True})
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()  # neither process may close its connections while the other still reads
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
