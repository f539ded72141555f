"""Packed against padded RNN input, forward and backward, on one device: `python -m benchmarks.rnn_input`.

A packed batch skips the padding; a padded one allows cuDNN's persistent kernels, which also require 16-bit types. Both
give the same result (`RNNClassifier`). Ratios are medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.methods import set_up
from benchmarks.run import describe
from benchmarks.timing import Clock
from benchmarks.workloads import WORKLOADS, Setup
from dropattack import provenance
from dropattack.files import write_atomically

TEXT = tuple(name for name in ("imdb-lstm", "pheme-bigru", "agnews-bigru") if name in WORKLOADS)
HEAD = ("workload", "precision", "packed, ms", "padded, ms", "padded / packed")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rnn_input", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TEXT, default=list(TEXT))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, help="batch size (default: the model's recipe)")
    parser.add_argument("--vocabulary", type=int, default=80_000)
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument("--output", type=Path, help="also write JSON")
    asked = parser.parse_args(argv)
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    machine = describe(device, keeps_memory=set_up(1, device))
    cells = []
    for name in asked.only:
        for precision in ("fp32", "bf16"):
            setup = Setup(WORKLOADS[name], asked.vocabulary, asked.batch, device, precision)
            cells.append({"workload": name, "precision": precision, **measure(setup, asked.rounds)})
            if asked.output:
                found = {"schema": 1, "machine": machine, "commit": provenance.commit(), "cells": cells}
                write_atomically(asked.output, (json.dumps(found, indent=1) + "\n").encode())
    print(table(cells))
    return 0


def measure(setup: Setup, rounds: int) -> dict[str, Any]:
    """Return the seconds of forward and backward, `packed` and `padded`, and the median of their ratios."""
    model, clock = setup.model(), Clock(setup.device)
    batches = setup.batches(bucket=True)
    samples: dict[bool, list[float]] = {True: [], False: []}

    def step(packed: bool, n: int) -> None:
        model.packed = packed
        batch = batches[n % len(batches)]
        with torch.autocast(setup.device.type, torch.bfloat16, setup.precision == "bf16"):
            loss = F.cross_entropy(model(**batch.inputs), batch.labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    for n in range(rounds + 1):
        for packed in (True, False):
            seconds = clock(lambda packed=packed, n=n: [step(packed, n + i) for i in range(len(batches))])
            if n:  # the first round warms up
                samples[packed].append(seconds / len(batches))
    ratios = [b / a for a, b in zip(samples[True], samples[False], strict=True)]
    return {"packed": statistics.median(samples[True]), "padded": statistics.median(samples[False]),
            "ratio": statistics.median(ratios), "rounds": rounds}  # fmt: skip


def table(cells: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += [
        f"| {c['workload']} | {c['precision']} | {1e3 * c['packed']:.2f} | {1e3 * c['padded']:.2f} | {c['ratio']:.2f} |"
        for c in cells
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
