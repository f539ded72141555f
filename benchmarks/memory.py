"""Peak memory of each method, in a separate process: `python -m benchmarks.memory` reads and writes JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.methods import AUTHORS, Steps, set_up
from benchmarks.workloads import WORKLOADS, Setup
from dropattack.training.memory import PeakMemory

ROOT = Path(__file__).resolve().parents[1]


def peak_memory(
    setup: Setup, methods: Sequence[str], threads: int, *, system_allocator: bool = False
) -> dict[str, float | str]:
    """Return the peak MB (2**20 bytes) of two steps by method, or the reason why it could not be measured.

    GPU: memory allocated by torch. CPU: resident memory beyond that of the process before it made the model. Both
    include weights, optimizer state, gradients and graphs, but not Python, torch and the batches.
    """
    job = {"workload": setup.workload.name, "vocabulary": setup.vocabulary, "batch": setup.batch,
           "device": str(setup.device), "precision": setup.precision, "compile": setup.compile,
           "methods": list(methods), "threads": threads, "system_allocator": system_allocator}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory"], input=json.dumps(job), capture_output=True, text=True, cwd=ROOT
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = (done.stderr.strip().splitlines() or ["it gave no answer"])[-1]
    return dict.fromkeys(methods, last) | {entry["method"]: entry["peak_mb"] for entry in found}


def _main() -> None:
    """Fork once per method, before touching the GPU or starting a thread pool."""
    job = json.load(sys.stdin)
    device = torch.device(job["device"])
    set_up(1, device, system_allocator=job["system_allocator"])
    # The batches are drawn before the fork and are on the CPU; on a GPU they are part of the peak.
    workload = WORKLOADS[job["workload"]]
    setup = Setup(workload, job["vocabulary"], job["batch"], device, job["precision"], job["compile"])
    setup.split  # noqa: B018  drawn once, here
    if device.type == "cpu":
        import_compiler(setup)
    for method in job["methods"]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                torch.set_num_threads(job["threads"])
                print(json.dumps({"method": method, "peak_mb": _measure(setup, method)}), flush=True)
                status = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr, flush=True)
            os._exit(status)
        os.waitpid(child, 0)


def import_compiler(setup: Setup) -> None:
    """Make an optimizer: torch imports the compiler with the first one."""
    setup.optimizer(torch.nn.Linear(1, 1), fused=True)


def _measure(setup: Setup, method: str) -> float:
    steps = Steps(setup)
    side = setup.batches(bucket=method not in AUTHORS)  # discarded, so that drawing does not count
    del side
    import_compiler(setup)  # not counted
    peak = PeakMemory(setup.device)
    step, _ = steps.make(method)
    for n in range(2):
        step(n)
    if setup.device.type == "cuda":
        torch.cuda.synchronize(setup.device)
    return peak.mb()


if __name__ == "__main__":
    _main()
