"""Two gloo processes on this machine's loopback against one process."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.integrations.distributed import CASES, STEPS, Case, Net, add_gradient, batch, gradients, main
from tests.processes import in_processes

each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def start(module: str, folder: Path) -> list[dict]:
    """Start two processes with torchrun; return what each saved."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    command = [*TORCHRUN, "-m", f"tests.integrations.{module}", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, env=environment)
    if "SIGABRT" in ended.stderr:  # gloo's threads have aborted a process once in a few hundred starts
        warnings.warn(f"started again after torch.distributed aborted:\n{ended.stderr}", stacklevel=2)
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, env=environment)
    if ended.returncode:
        pytest.fail(ended.stderr, pytrace=False)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """{case: {gradients, weights, synchronised}} of each process."""
    return in_processes(2, tmp_path_factory.mktemp("ddp"), main)


def assert_close(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def alone(case: Case) -> list[dict]:
    """One process: each step's mean over two micro-batches that are attacked one by one, as each rank does it."""
    model = case.build()
    regs = [case.method(model) for _ in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = []
    for step in range(STEPS):
        for rank, reg in enumerate(regs):
            add_gradient(case, model, reg, step, rank)
        for p in model.parameters():
            p.grad = None if p.grad is None else p.grad / 2
        found.append(gradients(model))
        optimizer.step()
        optimizer.zero_grad()
    return found


def joined(case: Case) -> dict:
    """One process, the first step, the whole batch at once."""
    model: Net = case.build()
    ids, labels = (torch.cat(halves) for halves in zip(batch(0, 0, 0), batch(0, 0, 1), strict=True))
    case.method(model).backward(lambda: torch.nn.functional.cross_entropy(model(ids), labels))
    return gradients(model)


@each_case
def test_the_gradient_is_the_mean_over_the_processes(ranks, case: Case):
    for step, wanted in enumerate(alone(case)):
        for found in ranks:
            assert_close(found[case.name]["gradients"][step], wanted)


@each_case
def test_weights_end_equal_and_a_step_is_synchronised_once(ranks, case: Case):
    one, two = (found[case.name] for found in ranks)
    assert all(torch.equal(one["weights"][n], two["weights"][n]) for n in one["weights"])
    assert one["synchronised"] == two["synchronised"] == STEPS


@pytest.mark.parametrize("case", [c for c in CASES if c.like_joined], ids=lambda c: c.name)
def test_attacks_of_examples_are_those_of_the_joined_batch(ranks, case: Case):
    assert_close(ranks[0][case.name]["gradients"][0], joined(case))


def test_attacks_of_weights_follow_each_process_and_not_the_joined_batch(ranks):
    for case in CASES:
        if case.name in ("fgm of weights", "pgd", "sam", "dropattack"):
            found, other = ranks[0][case.name]["gradients"][0], joined(case)
            assert any((found[n] - other[n]).abs().max() > 1e-3 for n in found), case.name


@pytest.mark.slow  # without processes: test_hf.py, test_lightning.py; gradients of two processes: the tests above
def test_the_trainer_and_lightning(tmp_path):
    from tests.integrations import distributed_trainers as trainers
    from tests.integrations.tiny_bert import Rows, bert

    one, two = start("distributed_trainers", tmp_path)
    for name in one:
        assert all(torch.equal(one[name][n], two[name][n]) for n in one[name]), name

    case = Case("", trainers.drop_attack, accumulate=trainers.ACCUMULATE)
    net = case.build()
    optimizer, regs = torch.optim.SGD(net.parameters(), lr=0.5), [case.method(net) for _ in range(2)]
    for step in range(trainers.STEPS):
        for rank, reg in enumerate(regs):
            add_gradient(case, net, reg, step, rank)
        for p in net.parameters():
            p.grad /= 2
        torch.nn.utils.clip_grad_norm_(net.parameters(), trainers.CLIP)
        optimizer.step()
        optimizer.zero_grad()
    for name in ("lightning", "lightning, views", "lightning, manual"):
        assert_close(one[name], dict(net.named_parameters()))
    assert all(torch.equal(one["identity"][n], one["plain"][n]) for n in one["plain"]), "SWA, accumulation, clipping"
    saved = torch.load(tmp_path / "lightning.ckpt", weights_only=True)
    assert len(saved["regularizer"]) == 2, "each process's own random state"

    # The Trainer deals batches out in turn.
    model, rows = bert(dropout=0.0), Rows()
    for rank in range(2):
        reg = trainers.attack_bert(model)
        for micro in range(2):
            part = slice(3 * (2 * micro + rank), 3 * (2 * micro + rank + 1))
            reg.backward(
                lambda part=part: model(input_ids=rows.ids[part], labels=rows.labels[part]),
                backward=lambda loss: (loss / 4).backward(),
            )
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for name, wanted in model.named_parameters():
        torch.testing.assert_close(one["trainer"][name], wanted, rtol=1e-5, atol=1e-5)
