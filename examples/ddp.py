# ruff: noqa: B023 - the function is called in the same iteration
"""DistributedDataParallel: with `no_sync`, a step of several passes synchronises once.

torchrun --standalone --nproc_per_node=2 examples/ddp.py

What two processes compute, compared with one process:

* Perturbations of activations and inputs (FreeLB; FGM on a module or "<input>") are per example: two processes with
  half a batch each compute the gradient of the whole batch.
* Perturbations of weights (FGM, PGD, SAM, DropAttack on a parameter) follow the gradient of each process's micro-batch:
  the result is the mean over two separately attacked micro-batches, as with gradient accumulation, and not the attack
  of the joint batch. The more processes a batch is spread over, the more varied the attacks.

Each process draws its own masks, because a regularizer's seed depends on the process's rank. The weights stay equal on
all processes either way.

Not with static_graph=True: its very first backward must synchronise, and that of a regularizer is inside `no_sync`.
"""

import torch
import torch.distributed as dist
from _digits import Net, accuracy, batches, run
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from dropattack import DropAttack


def main(steps: int = 300) -> float:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = DistributedDataParallel(Net().to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    reg = DropAttack(model, targets=["<input>", "hidden.weight"], epsilon=0.2, relative=True)
    for x, y in batches(steps):
        x, y = x.chunk(world)[rank].to(device), y.chunk(world)[rank].to(device)
        reg.backward(lambda: F.cross_entropy(model(x), y), no_sync=model.no_sync)
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()
    return accuracy(model.module)


if __name__ == "__main__":
    run(main)
