# ruff: noqa: B023 - the function is called in the same iteration
"""torch.compile: compile the model, not the step.

python examples/compiled.py
python examples/compiled.py --backend aot_eager    # no C++ compiler needed

Weights are attacked in place, which works with a compiled model. Activations and the input are attacked by hooks, which
a compiled model ignores unless told otherwise; without the line below, such a target raises an error.
"""

import torch
from _digits import Net, accuracy, batches, run
from torch.nn import functional as F

from dropattack import DropAttack


def main(steps: int = 300, backend: str = "inductor") -> float:
    torch.manual_seed(0)
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    compiled = torch.compile(model, backend=backend)
    # Make the regularizer before the first compiled call. Target names are those of the original model, without
    # "_orig_mod.".
    reg = DropAttack(compiled, targets=["<input>", "hidden.weight"], epsilon=0.2, relative=True)
    for x, y in batches(steps):
        reg.backward(lambda: F.cross_entropy(compiled(x), y))
        optimizer.step()
        optimizer.zero_grad()
    return accuracy(model)


if __name__ == "__main__":
    run(main)
