# ruff: noqa: B023 - the functions are called in the same iteration
"""Hugging Face Accelerate: `accelerator.backward`, `accelerator.no_sync`, `accelerator.accumulate`.

python examples/accelerate_loop.py
python examples/accelerate_loop.py --precision bf16 --accumulate 4
torchrun --standalone --nproc_per_node=2 examples/accelerate_loop.py
"""

import torch
from _digits import Net, accuracy, batches, run
from accelerate import Accelerator
from torch.nn import functional as F

from dropattack import DropAttack


def main(steps: int = 300, precision: str = "no", accumulate: int = 1) -> float:
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=accumulate)
    model = Net()
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=2e-3))
    reg = DropAttack(model, targets=["<input>", "hidden.weight"], epsilon=0.2, relative=True)
    for x, y in batches(steps * accumulate):
        x, y = (t.chunk(accelerator.num_processes)[accelerator.process_index] for t in (x, y))
        x, y = x.to(accelerator.device), y.to(accelerator.device)
        with accelerator.accumulate(model):
            reg.backward(
                lambda: F.cross_entropy(model(x), y),
                backward=accelerator.backward,
                no_sync=lambda: accelerator.no_sync(model),
            )
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    found = accuracy(accelerator.unwrap_model(model))
    accelerator.end_training()
    return found


if __name__ == "__main__":
    run(main)
