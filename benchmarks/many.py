"""N small runs concurrently on one device, against the same runs in sequence: `python -m benchmarks.many --runs 8`.

A small model leaves most of a GPU idle, and a sweep has many of them (with `dropattack table --launcher ray --gpus
0.125`, eight share one GPU). Each run is a process with its own model, as in a sweep; setup is not timed. `--mps`
starts NVIDIA's Multi-Process Service, so that kernels of different processes run concurrently.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods import REGULARIZERS, Steps, set_up
from benchmarks.run import describe
from benchmarks.workloads import WORKLOADS, Setup
from dropattack import provenance
from dropattack.files import write_atomically
from dropattack.gpu.mps import mps
from dropattack.runs.cli import guarded

WARM_UP = 3  # steps: optimizer state, cuDNN plans, allocator blocks


def main(argv: Sequence[str] | None = None) -> int:
    asked = _arguments(argv)
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    job = {"workload": asked.workload, "batch": asked.batch, "method": asked.method, "steps": asked.steps,
           "device": str(device), "vocabulary": asked.vocabulary}  # fmt: skip
    with mps() if asked.mps else nullcontext():
        cells = [{**job, "mps": asked.mps, **found} for found in measure(job, runs=asked.runs, rounds=asked.rounds)]
    for cell in cells:
        print(sentence(cell))
    if asked.output:
        machine = describe(device, keeps_memory=device.type == "cpu")
        result = {"schema": 2, "machine": machine, "commit": provenance.commit(), "cells": cells}
        write_atomically(asked.output, (json.dumps(result, indent=1) + "\n").encode())
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[8], help="concurrent runs (default: 8)")
    parser.add_argument("--workload", choices=WORKLOADS, default="mnist-lenet", help="(default: %(default)s)")
    parser.add_argument("--method", choices=REGULARIZERS, default="dropattack")
    parser.add_argument("--steps", type=int, default=200, help="steps per run and timing (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="timings of each kind, alternating (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, help="batch size (default: the model's recipe)")
    parser.add_argument("--vocabulary", type=int, default=10_000, help="words, for text (default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument("--mps", action="store_true", help="run under NVIDIA's Multi-Process Service")
    parser.add_argument("--output", type=Path, help="also write JSON")
    asked = parser.parse_args(argv)
    if min(*asked.runs, asked.steps, asked.rounds) < 1:
        parser.error("--runs, --steps and --rounds must be at least 1")
    if WORKLOADS[asked.workload].lengths is None:
        asked.vocabulary = None
    return asked


def measure(job: dict[str, Any], *, runs: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Return median wall seconds `one_by_one` and `at_once`, and the median ratio `gain`, for each number of runs."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    workers, pipes = [], []
    for _ in range(max(runs)):
        here, there = context.Pipe()
        workers.append(context.Process(target=_work, args=(there, job), daemon=True))
        workers[-1].start()
        there.close()
        pipes.append(here)
    try:
        for pipe in pipes:
            pipe.recv()  # setup is done
        found = [{"runs": count, **_measure(pipes[:count], rounds)} for count in runs]
        for pipe in pipes:
            pipe.send(False)
    except EOFError:
        raise SystemExit("a run died: is there enough memory for all of them?") from None
    finally:
        for worker in workers:
            worker.join(10)
            if worker.is_alive():
                worker.terminate()
    return found


def _measure(pipes: Sequence[Connection], rounds: int) -> dict[str, Any]:
    one_by_one, at_once = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send(True)
            pipe.recv()
        one_by_one.append(time.perf_counter() - start)
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()
        at_once.append(time.perf_counter() - start)
    gains = [one / all_ for one, all_ in zip(one_by_one, at_once, strict=True)]
    return {"one_by_one": statistics.median(one_by_one), "at_once": statistics.median(at_once),
            "gain": statistics.median(gains), "gains": gains}  # fmt: skip


def _work(pipe: Connection, job: dict[str, Any]) -> None:
    device = torch.device(job["device"])
    set_up(1, device)
    setup = Setup(WORKLOADS[job["workload"]], job["vocabulary"], job["batch"], device)
    step, _ = Steps(setup).make(job["method"])

    def run(steps: int) -> None:
        for n in range(steps):
            step(n)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send(True)

    run(WARM_UP)
    while pipe.recv():
        run(job["steps"])


def sentence(found: dict[str, Any]) -> str:
    where = f"{found['device']}{' with MPS' * found['mps']}"
    return (
        f"{found['runs']} runs of {found['steps']} steps ({found['workload']}, {found['method']}) on {where}: "
        f"{found['one_by_one']:.2f} s one after the other, {found['at_once']:.2f} s at once; "
        f"{found['gain']:.2f} times as fast (medians)"
    )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
