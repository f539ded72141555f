"""Lightning: a mixin, and a method that makes the regularizer. The training step stays as it is.

python examples/lightning_module.py
python examples/lightning_module.py --precision bf16-mixed --devices 2     # 16-mixed on a GPU
"""

import lightning as L
import torch
from _digits import TEST_ROWS, Net, accuracy, digits, run
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dropattack import DropAttack
from dropattack.integrations.lightning import RegularizerMixin


class Digits(RegularizerMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def configure_regularizer(self) -> DropAttack:
        # "net", not "<input>": Lightning calls training_step, so the module itself is not called with the images.
        return DropAttack(self, targets=["net.hidden", "net.hidden.weight"], epsilon=0.2, relative=True)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(steps: int = 300, precision: str = "32-true", devices: int = 1) -> float:
    L.seed_everything(0, verbose=False)
    train = TensorDataset(*(t[TEST_ROWS:] for t in digits()))
    module = Digits()
    trainer = L.Trainer(
        max_steps=steps, precision=precision, devices=devices, accelerator="auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(train, batch_size=64, shuffle=True))
    return accuracy(module.net)


if __name__ == "__main__":
    run(main)
