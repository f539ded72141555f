# ruff: noqa: B023 - the functions are called in the same iteration
"""Gradient accumulation: `reg.backward` adds to `.grad`, as `loss.backward()` does.

python examples/accumulation.py

Each micro-batch is attacked along its own gradient, whatever `.grad` already holds. Divide by the number of
micro-batches in `backward`, where it scales every pass and every objective equally.
"""

import torch
from _digits import Net, accuracy, batches, run
from torch.nn import functional as F

from dropattack import DropAttack


def main(steps: int = 300, accumulate: int = 4) -> float:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    reg = DropAttack(model, targets=["<input>", "hidden.weight"], epsilon=0.2, relative=True)
    for x, y in batches(steps):
        for x_micro, y_micro in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
            reg.backward(
                lambda: F.cross_entropy(model(x_micro), y_micro),
                backward=lambda loss: (loss / accumulate).backward(),
            )
        optimizer.step()
        optimizer.zero_grad()
    return accuracy(model)


if __name__ == "__main__":
    run(main)
