"""Weights that are cut into pieces: FSDP2 is exact, FSDP1 is refused, also where it came after the regularizer."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB
from dropattack.regularizers.naming import resolve

METHODS = (
    lambda m: FGM(m, ["0.weight", "2.weight"], epsilon=0.5),
    lambda m: SAM(m, rho=0.5, adaptive=True),
    lambda m: PGD(m, "2.weight"),
    lambda m: DropAttack(m, ["0.weight", "2.weight"], epsilon=0.5, p=1.0, steps=2),
    lambda m: FreeLB(m, "0", init=0.0),
)


def work(rank: int, folder: str, processes: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    torch.manual_seed(0)
    base = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    ids, labels = torch.randint(0, 20, (6, 5)), torch.tensor([0, 1, 2, 3, 0, 1])
    for make in METHODS:
        whole, model = copy.deepcopy(base), copy.deepcopy(base)
        make(whole).backward(lambda whole=whole: F.cross_entropy(whole(ids), labels))
        reg = make(model) if make is METHODS[0] else None  # before the model is cut, or after
        for part in (model[2], model):
            fully_shard(part, mesh=mesh)
        (reg or make(model)).backward(lambda model=model: F.cross_entropy(model(ids), labels))
        for p, q in zip(model.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(p.grad.full_tensor(), q.grad, rtol=0, atol=1e-12)
    for original in (True, False):
        model = copy.deepcopy(base)
        reg = SAM(model)
        wrapped = FullyShardedDataParallel(model, use_orig_params=original, device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match="is cut into pieces, one for each process"):
            SAM(wrapped)
        with pytest.raises(ValueError, match=r"the model has changed since SAM was made of it: .*cut into pieces"):
            reg.backward(lambda wrapped=wrapped: F.cross_entropy(wrapped(ids), labels))
    dist.barrier()
    dist.destroy_process_group()


needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed"
)


@needs_gloo
def test_weights_in_one_piece(tmp_path: Path):
    work(0, str(tmp_path), 1)


@needs_gloo
@pytest.mark.slow
def test_weights_in_two_pieces(tmp_path: Path):
    mp.spawn(work, args=(str(tmp_path), 2), nprocs=2)


def test_zero_3_is_refused():
    model = nn.Linear(2, 2)
    model.weight.ds_id = 0
    with pytest.raises(ValueError, match="'weight' is cut into pieces"):
        resolve(model, "bias")
