"""The Trainer and Lightning in each of two gloo processes; test_ddp.py starts them and compares.

torchrun --standalone --nproc_per_node=2 -m tests.integrations.distributed_trainers FOLDER
"""

import os
import sys
from pathlib import Path

import lightning as L
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dropattack import DropAttack
from dropattack.integrations.hf import RegularizedTrainer
from dropattack.integrations.lightning import RegularizerMixin
from tests.integrations.distributed import Net, batch, drop_attack
from tests.integrations.tiny_bert import QUERY, WORDS, InOrder, Rows, arguments, bert

ACCUMULATE, STEPS = 2, 3


class Module(RegularizerMixin, L.LightningModule):
    accumulate, clip_norm = ACCUMULATE, 0.2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net().double()

    def configure_regularizer(self) -> DropAttack:
        return drop_attack(self.net)

    def training_step(self, part: list[torch.Tensor], batch_idx: int) -> None:
        ids, labels = part
        self.regularized_step(lambda: F.cross_entropy(self.net(ids), labels), batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def with_lightning(rank: int, **ddp) -> dict:
    parts = [batch(step, micro, rank) for step in range(STEPS) for micro in range(ACCUMULATE)]
    rows = TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))
    module = Module()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy=L.pytorch.strategies.DDPStrategy(**ddp), logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=len(parts[0][0])))
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
    found = {"trainer": with_trainer(folder), "lightning": with_lightning(rank)}
    found["lightning, views"] = with_lightning(rank, gradient_as_bucket_view=True, find_unused_parameters=True)
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
