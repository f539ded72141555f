"""Small made-up results/ folders in the real formats: records, probes, landscapes, a benchmark, a kill test."""

import json
import math
import random
from pathlib import Path
from typing import Any

from dropattack.probes.store import STORE, put
from dropattack.runs import record, store

SETTINGS: dict[str, dict[str, Any]] = {
    "fgm": {"targets": ["input"], "epsilon": 1.0},
    "dropattack": {"targets": ["input", "hidden"], "epsilon": 5.0, "p": 0.5, "steps": 1},
}
PASSES = {"fgm": 2.0, "dropattack": 3.0}
GAINS = {"none": 0.0, "dropout": 0.004, "fgm": -0.01, "dropattack": 0.02}
SEEDS = range(4)


def fill(results: Path) -> Path:
    """Write everything that the report can show; return `results`."""
    for method in GAINS:
        for seed in SEEDS:
            for dataset, model in (("mnist", "cnn"), ("cifar10", "vgg")):
                path = run(results / "mini" / "vision", method, seed=seed, dataset=dataset, model=model)
                probes(results / "mini" / STORE, path)
    for seed in SEEDS:
        for fraction in (0.1, 0.25, 0.5, 1.0):
            for method in ("none", "dropattack"):
                run(results / "mini" / "half_data", method, seed=seed, fraction=fraction, base=0.7 + 0.2 * fraction)
        run(results / "mini" / "ablation", "none", seed=seed)
        for epsilon in (0.1, 1.0):
            for p in (0.3, 0.5):
                run(results / "mini" / "ablation", "dropattack", seed=seed, epsilon=epsilon, p=p)
    run(results / "mini" / "vision", "pgd", status="failed")
    for method, width in (("none", 3.0), ("dropattack", 1.0)):
        landscape(results / "mini" / STORE, method, width)
    (results / "bench").mkdir()
    (results / "bench" / "cpu.json").write_text(json.dumps(BENCH))
    (results / "survival").mkdir()
    (results / "survival" / "kills.md").write_text(
        "# Killed\n\n50 kills: 50 equal.\n\n| cell | equal |\n|---|---|\n| a | yes |\n"
    )
    return results


def run(
    folder: Path, method: str = "none", *, seed: int = 0, dataset: str = "mnist", model: str = "cnn", base: float = 0.8,
    fraction: float | None = 1.0, status: str = "finished", cpu: str = "a processor", commit: str = "0123456789abcdef",
    epochs: int = 4, accuracy: float | None = None, **reg: Any,
) -> Path:  # fmt: skip
    """Add a run to the table in `folder`; return its record, below `folder/outputs`."""
    dice = random.Random(f"{method} {seed} {dataset} {fraction} {sorted(reg.items())}")
    drawn = base + GAINS.get(method, 0.0) + 0.01 * reg.get("p", 0) + 0.002 * seed + 0.002 * dice.random()
    accuracy = drawn if accuracy is None else accuracy
    config = {
        "dataset": {"name": dataset, "fraction": fraction},
        "model": {"name": model, "dropout": 0.5 if method == "dropout" else 0.0},
        "reg": {"name": method, **SETTINGS.get(method, {}), **reg},
        "scale": {"name": "mini"}, "trainer": {"epochs": epochs, "learning_rate": 1e-3}, "tracker": {"name": "none"},
        "seed": seed, "paths": {"output": str(folder / "outputs"), "data": "data"},
    }  # fmt: skip
    history = [
        {"epoch": e, "validation": {"accuracy": accuracy - 0.3 * 0.5**e, "macro_f1": 0.5, "loss": 0.2 + 0.5**e}}
        for e in range(1, epochs + 1)
    ]
    seconds = 0.01 * PASSES.get(method, 1.0)
    made = record.blank(config) | {
        "status": status, "error": None if status == "finished" else "the loss was not finite",
        "data": {"fingerprint": f"{dataset} {fraction}", "train": 100},
        "validation": {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.4, "epoch": 2},
        "test": {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.5}, "history": history,
        "passes_per_step": PASSES.get(method, 1.0), "seconds_per_step": seconds, "cpu_seconds_per_step": seconds,
        "seconds": 12.0, "commit": {"hash": commit, "dirty": False}, "versions": {"torch": "2.15.0"},
        "hardware": {"cpu": cpu, "cores": 2},
    }  # fmt: skip
    path = record.write(record.record_path(config), made)
    store.keep(folder, map(record.read, path.parent.glob("*.json")))
    return path


def probes(path: Path, of: Path) -> None:
    """Add the probes of a record to the store `path`."""
    about = json.loads(of.read_text())
    method, seed = about["config"]["reg"]["name"], about["config"]["seed"]
    calm = (1.0 + 0.05 * seed) * (0.5 if method == "dropattack" else 1.0)
    content = {
        "schema": 1, "run": of.stem, "kind": "probes", "run_id": about["run_id"], "options": {},
        "probes": {
            "calibration": {"accuracy": 0.8, "ece": 0.02 * calm, "brier": 0.1 * calm, "nll": 0.3},
            "gradients": {"input": {"mean": calm}, "weights": {"mean": 2 * calm}},
            "flatness": {"sharpness": {"mean": 0.1 * calm}},
            "robustness": {
                "clean": 0.8, "fgsm": {"0.05": 0.7 - 0.1 * calm, "0.1": 0.6 - 0.2 * calm},
                "contrast": {"0.5": 0.7 - 0.01 * calm, "0.2": 0.5},
            },
        },
    }  # fmt: skip
    put(path, content)


def landscape(path: Path, method: str, width: float, *, grid: int = 9, done: bool = True, rows: int = 100) -> None:
    axis = [round(-1 + 2 * i / (grid - 1), 6) for i in range(grid)]
    loss: list[list[Any]] = [[0.05 + width * (a * a + 0.5 * b * b + 0.1 * a * b) for a in axis] for b in axis]
    loss[0][0] = "inf"
    accuracy = [[math.exp(-(a * a) - b * b) for a in axis] for b in axis]
    description = {"run_id": "0", "dataset": "mnist", "model": "cnn", "method": method, "seed": 0, "split": "test",
                   "rows": rows, "normalise": "filter", "direction_seed": 0}  # fmt: skip
    content = {"schema": 1, "run": f"mnist-cnn-{method}-s0-0", "kind": "plane", "description": description,
               "axes": [axis, axis], "done": done, "seconds": 1.0, "loss": loss, "accuracy": accuracy}  # fmt: skip
    put(path, content)


BENCH: dict[str, Any] = {
    "quick": False,
    "machine": {"gpu": None, "cpu": "a processor", "threads": 1, "clock": "cpu time", "allocator": {},
                "versions": {"torch": "2.15.0"}},
    "cells": [{"workload": "imdb-lstm", "vocabulary": 10000, "rounds": 5, "methods": {
        "plain": {"passes": 1, "seconds": 0.5},
        "fgm": {"passes": 2, "seconds": 1.0, "to_plain": 2.01, "ratios": [2.01]},
    }}],
}  # fmt: skip
