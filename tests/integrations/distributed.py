"""What each of two gloo processes computes; test_ddp.py starts them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB, Identity, RDrop, Regularizer
from dropattack.regularizers import Output

STEPS, ROWS = 3, 6
WEIGHTS = ("embed.weight", "hidden.weight")


class Net(nn.Module):
    """Words are averaged; nothing mixes the examples of a batch, unless there is a BatchNorm."""

    def __init__(self, dropout: float = 0.0, batchnorm: bool = False, unused: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6, padding_idx=0)
        self.hidden = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8) if batchnorm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)
        if unused:
            self.unused = nn.Linear(2, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.drop(torch.tanh(self.norm(self.hidden(self.embed(ids).mean(1))))))


@dataclass(frozen=True)
class Case:
    """A row: a method, a net, DDP's options, micro-batches a step."""

    name: str
    method: Callable[[nn.Module], Regularizer]
    net: dict[str, Any] = field(default_factory=dict)
    ddp: dict[str, Any] = field(default_factory=dict)
    accumulate: int = 1
    set_to_none: bool = True
    like_joined: bool = False  # whether two half batches are attacked as the whole one is

    def build(self) -> Net:
        torch.manual_seed(0)
        return Net(**self.net).double()


def drop_attack(model: nn.Module) -> DropAttack:
    return DropAttack(model, WEIGHTS, epsilon=0.5, p=0.5, steps=2, seed=3)


def freelb(model: nn.Module) -> FreeLB:
    return FreeLB(model, "embed", alpha=0.3, steps=3, epsilon=0.5, init=0.0)  # δ_0 = 0: no draw that depends on rows


CASES = (
    Case("plain", lambda m: Identity(m), like_joined=True),
    Case("freelb", freelb, like_joined=True),
    Case("fgm of activations", lambda m: FGM(m, ["embed", "hidden"], epsilon=0.5), like_joined=True),
    Case("fgm of weights", lambda m: FGM(m, WEIGHTS, epsilon=0.5)),
    Case("pgd", lambda m: PGD(m, WEIGHTS, epsilon=0.5, alpha=0.3, steps=3)),
    Case("sam", lambda m: SAM(m, rho=0.3)),
    Case("dropattack", drop_attack),
    Case("dropattack, accumulating", drop_attack, accumulate=2),
    Case("dropattack, bucket view", drop_attack, ddp={"gradient_as_bucket_view": True}, accumulate=2),
    Case("dropattack, kept views", drop_attack, ddp={"gradient_as_bucket_view": True}, set_to_none=False),
    Case("dropattack, unused", drop_attack, net={"unused": True}, ddp={"find_unused_parameters": True}),
    Case("dropattack, static graph", drop_attack, ddp={"static_graph": True}, accumulate=2),
    Case("pgd, static graph", lambda m: PGD(m, WEIGHTS, steps=2), ddp={"static_graph": True}),
    Case("freelb, unused", freelb, net={"unused": True}, ddp={"find_unused_parameters": True}, like_joined=True),
    Case("fgm, batchnorm", lambda m: FGM(m, WEIGHTS, epsilon=0.5), net={"batchnorm": True}),
    Case("rdrop", lambda m: RDrop(m, alpha=2.0), net={"dropout": 0.3}),
    Case("rdrop, batchnorm", lambda m: RDrop(m, alpha=2.0), net={"dropout": 0.3, "batchnorm": True}),
)


def batch(step: int, micro: int, rank: int) -> tuple[Tensor, Tensor]:
    """Token ids [ROWS, 5], padded with 0, and labels."""
    generator = torch.Generator().manual_seed(100 * step + 10 * micro + rank)
    ids = torch.randint(1, 20, (ROWS, 5), generator=generator)
    ids[::2, 3:] = 0
    return ids, torch.randint(0, 3, (ROWS,), generator=generator)


def add_gradient(
    case: Case, model: nn.Module, reg: Regularizer, step: int, rank: int, no_sync: Callable = nullcontext
) -> None:
    """One step's micro-batches of this rank."""
    for micro in range(case.accumulate):
        ids, labels = batch(step, micro, rank)
        torch.manual_seed(1000 * step + 10 * micro + rank)  # dropout's

        def forward(ids: Tensor = ids, labels: Tensor = labels) -> Output:
            logits = model(ids)
            return Output(F.cross_entropy(logits, labels), logits)

        with nullcontext() if micro == case.accumulate - 1 else no_sync():
            reg.backward(forward, backward=lambda loss: (loss / case.accumulate).backward(), no_sync=no_sync)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def run(case: Case, rank: int) -> dict[str, Any]:
    net, synchronised = case.build(), []
    model = DistributedDataParallel(net, **case.ddp)

    def counting(state: None, bucket: dist.GradBucket):
        synchronised.append(bucket.index())
        return allreduce_hook(state, bucket)

    model.register_comm_hook(None, counting)
    reg = case.method(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = []
    if case.ddp.get("static_graph"):  # torch's first backward with a static graph must not be inside no_sync
        model(batch(0, 0, rank)[0]).sum().backward()
        model.zero_grad()
        synchronised.clear()
    for step in range(STEPS):
        add_gradient(case, model, reg, step, rank, model.no_sync)
        found.append(gradients(net))
        optimizer.step()
        optimizer.zero_grad(set_to_none=case.set_to_none)
    return {"gradients": found, "weights": dict(net.named_parameters()), "synchronised": synchronised.count(0)}


def main() -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    return {case.name: run(case, dist.get_rank()) for case in CASES}
