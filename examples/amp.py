# ruff: noqa: B023 - the functions are called in the same iteration
"""Mixed precision: put autocast around the forward, and pass the scaler as `backward`.

python examples/amp.py                     # bfloat16: no scaler needed
python examples/amp.py --precision fp16    # float16 with a GradScaler, on a GPU or a CPU

The regularizer never unscales, so the scaler's usual rules hold: per step, unscale once, then clip, then step. If the
scaled gradient overflows, the attack is skipped (and counted in `reg.skipped`), and the scaler skips the step.
"""

import torch
from _digits import Net, accuracy, batches, run
from torch.nn import functional as F

from dropattack import DropAttack


def main(steps: int = 300, precision: str = "bf16") -> float:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = Net().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    reg = DropAttack(model, targets=["<input>", "hidden.weight"], epsilon=0.2, relative=True)
    for x, y in batches(steps):
        x, y = x.to(device), y.to(device)

        def forward() -> torch.Tensor:
            with torch.autocast(device, dtype=dtype):
                return F.cross_entropy(model(x), y)

        reg.backward(forward, backward=lambda loss: scaler.scale(loss).backward())
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return accuracy(model)


if __name__ == "__main__":
    run(main)
