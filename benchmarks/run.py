"""Measure time and memory of plain training, each regularizer and the authors' step: `python -m benchmarks.run`.

Writes JSON after each workload, skips what an interrupted run already measured with the same settings (unless
`--rerun`), and prints one Markdown table, also saved next to the JSON. The full benchmark takes hours on one core,
`--rounds 3` an hour or two, `--quick` a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import ROOT, peak_memory
from benchmarks.methods import METHODS, Steps, set_up
from benchmarks.timing import Clock, time_methods, timings
from benchmarks.workloads import WORKLOADS, Setup
from dropattack import provenance
from dropattack.errors import UserError
from dropattack.files import write_atomically
from dropattack.progress import counting
from dropattack.report.cost import markdown
from dropattack.training.memory import return_freed_memory

ROUNDS, QUICK_ROUNDS = 9, 3
QUICK_BATCH, QUICK_VOCABULARY = 16, 10_000
KEPT_MEMORY = "keeps freed memory"  # `keep_freed_memory`, as in training
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
LEAST_SECONDS, QUICK_SECONDS = 0.2, 0.02  # minimum per timing; short steps are repeated


def main(argv: Sequence[str] | None = None) -> int:
    asked = arguments(argv)
    device = torch.device(asked.device)
    kept = set_up(asked.threads, device, system_allocator=asked.system_allocator)
    machine = describe(device, keeps_memory=kept)
    kind = [machine["name"], *["bf16"] * (asked.precision == "bf16"), *([asked.compile] if asked.compile else ())]
    path = asked.output or ROOT / "results" / "bench" / f"{'-'.join([*kind, *['quick'] * asked.quick])}.json"
    result = _read(path, {"machine": machine, **{k: getattr(asked, k) for k in ("quick", "precision", "compile")}})
    setups = [s for s in _setups(asked, device) if asked.rerun or not _measured(result, s, asked)]
    commit = provenance.commit()  # of the code loaded now, not of the files hours later
    with counting("timings", len(setups) * (timings(asked.methods, asked.rounds) + (not asked.no_memory))) as count:
        for setup in setups:
            cell = {**_settings(setup, asked), "commit": commit}
            where = f"{setup.workload.name} {setup.vocabulary or ''}"
            done = partial(_done, count, where)
            try:
                for measured in _measure(setup, asked, done):
                    _store(result, {**cell, **measured})
                    _write(path, result)
            except UserError as error:  # missing weights
                _store(result, {**cell, "skipped": str(error)})
                _write(path, result)
    page = markdown(result)
    write_atomically(path.with_suffix(".md"), page.encode())
    print(page)
    print(f"{path}")
    return 0


def _done(count: Callable[[str], None], where: str, method: str) -> None:
    count(f"{where} {method}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="one vocabulary, small batches, few rounds: a check that it runs"
    )
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="WORKLOAD",
                        help=f"some of {', '.join(WORKLOADS)}")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD",
                        help=f"some of {', '.join(METHODS)}; plain is always timed")  # fmt: skip
    parser.add_argument("--vocabularies", nargs="+", type=int, metavar="WORDS", help="vocabulary sizes of the RNNs")
    parser.add_argument("--rounds", type=int, help=f"timings per method (default: {ROUNDS}; quick: {QUICK_ROUNDS})")
    parser.add_argument("--batch", type=int, help=f"batch size (default: the model's recipe; quick: {QUICK_BATCH})")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on a CPU (default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="precision of our steps (default: %(default)s)"
    )
    parser.add_argument("--compile", choices=COMPILE_MODES,
                        help="compile our models; reduce-overhead uses CUDA graphs")  # fmt: skip
    parser.add_argument("--system-allocator", action="store_true",
                        help="let the C library return freed memory, its default")  # fmt: skip
    parser.add_argument(
        "--least-seconds", type=float, help=f"minimum per timing (default: {LEAST_SECONDS}; quick: {QUICK_SECONDS})"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--rerun", action="store_true", help="repeat existing measurements")
    parser.add_argument("--output", type=Path, help="output JSON (default: results/bench/<device>.json)")
    asked = parser.parse_args(argv)
    asked.rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    asked.least_seconds = asked.least_seconds or (QUICK_SECONDS if asked.quick else LEAST_SECONDS)
    asked.batch = asked.batch or (QUICK_BATCH if asked.quick else None)
    asked.device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    asked.methods = [m for m in METHODS if m == "plain" or not asked.methods or m in asked.methods]
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    return asked


def _setups(asked: argparse.Namespace, device: torch.device) -> Iterator[Setup]:
    for name in asked.only:
        workload = WORKLOADS[name]
        sizes: Sequence[int | None] = workload.vocabularies
        if len(sizes) > 1:
            sizes = asked.vocabularies or ([QUICK_VOCABULARY] if asked.quick else sizes)
        for vocabulary in sizes:
            yield Setup(workload, vocabulary, asked.batch, device, asked.precision, asked.compile)


def _settings(setup: Setup, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were requested for a cell."""
    return {"workload": setup.workload.name, "vocabulary": setup.vocabulary, "batch": setup.batch_size,
            "rounds": asked.rounds, "memory": not asked.no_memory}  # fmt: skip


def _measure(setup: Setup, asked: argparse.Namespace, done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the times, then the same with memory added, because measuring memory takes a while."""
    steps = Steps(setup)
    methods, repeats = time_methods(
        steps, asked.methods, rounds=asked.rounds, least_seconds=asked.least_seconds, done=done
    )
    if setup.workload.lengths is None and not setup.compile:  # the counter does not see fused RNNs and compiled code
        for method, entry in methods.items():
            entry["flops"] = steps.flops(method)
    yield {"steps_a_timing": repeats, "methods": methods, "memory": False}
    del steps  # the other process needs the memory
    return_freed_memory()
    if setup.device.type == "cuda":
        torch.cuda.empty_cache()
    if not asked.no_memory:
        peaks = peak_memory(setup, asked.methods, asked.threads, system_allocator=asked.system_allocator)
        for method, peak in peaks.items():
            methods[method]["peak_mb"] = peak
        done("memory")
        yield {"steps_a_timing": repeats, "methods": methods, "memory": True}


def _measured(result: dict[str, Any], setup: Setup, asked: argparse.Namespace) -> bool:
    cell = next((c for c in result["cells"] if _key(c) == (setup.workload.name, setup.vocabulary)), None)
    if cell is None or "methods" not in cell:
        return False
    return _settings(setup, asked).items() <= cell.items() and set(asked.methods) <= set(cell["methods"])


def _store(result: dict[str, Any], cell: dict[str, Any]) -> None:
    """Insert the cell, replacing its last measurement, in the order of `WORKLOADS`."""
    cells = [c for c in result["cells"] if _key(c) != _key(cell)] + [_rounded(cell)]
    result["cells"] = sorted(cells, key=lambda c: (list(WORKLOADS).index(c["workload"]), c["vocabulary"] or 0))


def _write(path: Path, result: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())


def _key(cell: dict[str, Any]) -> tuple[str, int | None]:
    return cell["workload"], cell["vocabulary"]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _read(path: Path, conditions: dict[str, Any]) -> dict[str, Any]:
    """Read earlier measurements; discard those made under other conditions, such as another machine or version."""
    fresh = {"schema": 1, **conditions, "cells": []}
    if not path.exists():
        return fresh
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if _known({**found, "cells": []}) == _known(fresh) else fresh


def _known(conditions: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None in the description of the machine: earlier files lack keys that came later."""
    return {**conditions, "machine": {k: v for k, v in conditions.get("machine", {}).items() if v is not None}}


def describe(device: torch.device, *, keeps_memory: bool = False) -> dict[str, Any]:
    """Describe where it is measured: kind of machine, versions, and allocator settings."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    name = re.sub(r"[^a-z0-9]+", "-", (gpu or "cpu").lower()).strip("-")
    told = {
        k: v for k, v in sorted(os.environ.items()) if k.startswith(("MALLOC_", "PYTORCH_CUDA_ALLOC", "LD_PRELOAD"))
    }
    if keeps_memory:
        told["malloc"] = KEPT_MEMORY
    return {**provenance.hardware(), "name": name, "gpu": gpu, "threads": torch.get_num_threads(),
            "clock": Clock(device).kind, "allocator": told, "versions": provenance.versions()}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
