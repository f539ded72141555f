"""The plan: which stages to run, most important first, and how many cells to run at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropattack.gpu.stages import Stage, python

WORKLOADS = ("imdb-lstm", "agnews-bigru", "mnist-lenet", "cifar10-vgg")
METHODS = ("fgm", "pgd", "freelb", "dropattack", "dropattack-joint", "rdrop", "sam")
COMPILED = ("fgm", "dropattack", "sam")
RUNS = (1, 8, 16)
RECORDS = "records.jsonl"
TABLES = ("paper",)
START = "import torch, transformers, accelerate, sklearn; torch.cuda.is_available() and torch.zeros(1).cuda()"
EVER = 1e9  # the budget alone limits the stage


def stages(folder: Path, *, device: str, scale: str, tables: Sequence[str], jobs: int | None) -> list[Stage]:
    """Return the stages on `device`; `scale=smoke` makes each as short as possible, for a rehearsal.

    Args:
        folder: output folder; each stage writes below its own name.
        device: `cuda` or `cpu`.
        scale: scale of the tables' cells.
        tables: names from conf/table/, whose cells run last.
        jobs: cells at a time; None uses the best number found by the stage `many`.
    """
    small = scale == "smoke"
    runs = [1, 2] if small else [n for n in RUNS if n <= max(2, os.cpu_count() or 1)]

    def cost(name: str, limit: float, *options: str, workloads: Sequence[str] = WORKLOADS) -> Stage:
        rounds = ["--quick", "--rounds", "1"] if small else ["--rounds", "4", "--least-seconds", "0.05"]
        only = [workloads[-1]] if small else workloads
        where = ["--vocabularies", "10000" if small else "80000", "--no-memory", "--device", device]
        output = ["--output", str(folder / name / "cost.json")]
        return Stage(name, limit, python("-m", "benchmarks.run", "--only", *only, *rounds, *where, *options, *output))

    def many(name: str, *options: str) -> Stage:
        size = ["--steps", "2", "--batch", "2"] if small else ["--steps", "40"]
        output = ["--output", str(folder / name / "many.json"), "--device", device]
        counts = ["--runs", *map(str, runs), "--rounds", "1"]
        return Stage(name, 60, python("-m", "benchmarks.many", *counts, *size, *options, *output))

    text = ["--only", "imdb-lstm", "--rounds", "1", "--batch", "2", "--vocabulary", "500"] if small else []
    rnn_input = ["--device", device, *text, "--output", str(folder / "rnn-input" / "rnn-input.json")]
    cells = ["--to", str(folder / "cells"), "--scale", scale, "--device", device, "--tables", *tables]
    mode = "reduce-overhead" if device == "cuda" else "default"  # CUDA graphs
    planned = [
        Stage("start", 90, python("-c", START)),
        Stage("tests", 120, python("scripts/gpu.py", "tests", *(["--collect-only"] if device == "cpu" else []))),
        cost("cost-fp32", 75, "--methods", *METHODS, "authors-plain", "authors"),
        many("many-mps", "--mps"),
        many("many"),
        Stage("rnn-input", 30, python("-m", "benchmarks.rnn_input", *rnn_input)),
        cost("cost-bf16", 60, "--precision", "bf16", "--methods", *METHODS),
        Stage("cells", EVER, python("scripts/gpu.py", "cells", *cells, *(["--jobs", str(jobs)] if jobs else []))),
        cost("cost-graphs", 60, "--compile", mode, "--methods", *COMPILED, workloads=("mnist-lenet",)),
    ]
    return [stage for stage in planned if device == "cuda" or stage.name != "many-mps"]


def concurrency(folder: Path) -> tuple[int, bool]:
    """Return (the number of concurrent runs with the most throughput, whether with MPS); (2, False) if not measured."""
    found: list[tuple[float, int, bool]] = []
    for path in (folder / "many" / "many.json", folder / "many-mps" / "many.json"):
        if path.exists():
            cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
            found += [(cell["runs"] * cell["steps"] / cell["at_once"], cell["runs"], cell["mps"]) for cell in cells]
    if not found:
        return 2, False
    _, runs, mps = max(found)
    return runs, mps
