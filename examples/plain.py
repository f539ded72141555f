# ruff: noqa: B023 - the function is called in the same iteration
"""Plain PyTorch: one line of the loop changes.

python examples/plain.py
"""

import torch
from _digits import Net, accuracy, batches, run
from torch.nn import functional as F

from dropattack import DropAttack


def main(steps: int = 300) -> float:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    # Attack the pixels and a weight matrix. relative: ε is a fraction of the target's norm.
    reg = DropAttack(model, targets=["<input>", "hidden.weight"], epsilon=0.2, p=0.5, relative=True)
    for x, y in batches(steps):
        reg.backward(lambda: F.cross_entropy(model(x), y))  # instead of F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return accuracy(model)


if __name__ == "__main__":
    run(main)
