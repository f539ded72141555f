"""Shared by the examples: scikit-learn's handwritten digits, a small net, its accuracy, and the command line."""

import argparse
import inspect
import os
from collections.abc import Callable, Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TEST_ROWS = 400


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(x)))


def digits() -> tuple[Tensor, Tensor]:
    """Return shuffled pixels [1797, 64] in [0, 1] and labels [1797]."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(bunch.data / 16, dtype=torch.float32)[order], torch.tensor(bunch.target)[order]


def batches(steps: int, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `steps` random batches of the training set."""
    x, y = (t[TEST_ROWS:] for t in digits())
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(x), (size,), generator=generator)
        yield x[rows], y[rows]


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Return the test accuracy; the model may be on any device."""
    x, y = (t[:TEST_ROWS].to(next(model.parameters()).device) for t in digits())
    return (model.eval()(x).argmax(-1) == y).float().mean().item()


def run(main: Callable[..., float]) -> None:
    """Call `main` with a command-line option for each argument, and print the accuracy it returns."""
    parser = argparse.ArgumentParser(description=(inspect.getmodule(main).__doc__ or "").splitlines()[0])
    for name, argument in inspect.signature(main).parameters.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), type=argument.annotation, default=argument.default, help="%(default)s"
        )
    options = vars(parser.parse_args())
    found = main(**options)
    if os.environ.get("RANK", "0") == "0":  # set by torchrun
        print(f"test accuracy: {found:.1%} after {options['steps']} steps")
