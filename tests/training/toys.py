"""A network, data and a method small enough to train almost instantly."""

import torch
from torch import Tensor, nn

from dropattack.batch import Batch
from dropattack.regularizers import Identity
from dropattack.training.device import make_accelerator
from dropattack.training.loop import train

CLASSES = 3


class ToyLoader:
    """Batches in an order that is a pure function of (seed, epoch), like the real loader."""

    def __init__(self, pixels: Tensor, labels: Tensor, *, batch_size: int = 16, shuffle: bool = True, seed: int = 0):
        self.pixels, self.labels, self.batch_size, self.shuffle, self.seed = pixels, labels, batch_size, shuffle, seed
        self.reads = 0

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def batches(self, epoch: int = 0, start: int = 0):
        self.reads += 1
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        order = (
            torch.randperm(len(self.labels), generator=generator) if self.shuffle else torch.arange(len(self.labels))
        )
        for rows in order.split(self.batch_size)[start:]:
            yield Batch({"pixels": self.pixels[rows]}, self.labels[rows])


class ToyNet(nn.Module):
    """Two layers, batch normalisation and dropout: all kinds of state that a checkpoint must hold."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.hidden, self.norm = nn.Linear(8, 32), nn.BatchNorm1d(32)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(32, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.hidden(pixels)).relu()))


def toy_split(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return three clusters that are easy to separate."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(CLASSES, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return centres[labels] + torch.randn(rows, 8, generator=generator), labels


def toy_loaders(**options) -> tuple[ToyLoader, ToyLoader]:
    return ToyLoader(*toy_split(150, 1), **options), ToyLoader(*toy_split(60, 2), shuffle=False)


def toy_train(model=None, reg=None, *, loaders=None, seed: int = 0, precision: str = "fp32", **options):
    """Train the toy; return the model and the result."""
    torch.manual_seed(seed)
    model = ToyNet() if model is None else model
    reg = Identity(model) if reg is None else reg(model)
    torch.manual_seed(seed + 1)
    settings = {"classes": CLASSES, "epochs": 3, "learning_rate": 1e-2, **options}
    accelerator = make_accelerator(precision=precision, device="cpu")
    result = train(model, reg, *(loaders or toy_loaders()), accelerator=accelerator, **settings)
    return model, result
