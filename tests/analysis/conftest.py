"""Records in the real schema, written by the project's own `record.write`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dropattack import provenance
from dropattack.runs import record, store

SETTINGS: dict[str, dict[str, Any]] = {
    "fgm": {"targets": ["input"], "epsilon": 1.0},
    "dropattack": {"targets": ["input", "hidden"], "epsilon": 5.0, "p": 0.5, "steps": 1},
}
PASSES = {"fgm": 2.0, "dropattack": 3.0}


@pytest.fixture
def write_run(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Write a record, as in `write_run("fgm", seed=0, accuracy=0.9, epsilon=2.0, status="failed")`; return its path."""
    monkeypatch.setattr(provenance, "commit", lambda: {"hash": "0123456789abcdef", "dirty": False})  # git is slow

    def write(
        method: str = "none",
        *,
        seed: int = 0,
        accuracy: float = 0.8,
        dataset: str = "digits",
        model: str = "cnn",
        folder: Path = tmp_path,
        status: str = "finished",
        fraction: float = 1.0,
        subset_seed: int | None = None,
        step_seconds: float = 0.01,
        changes: Mapping[str, Any] | None = None,
        epochs: int = 3,
        scale: str = "mini",
        trainer: Mapping[str, Any] | None = None,
        **reg: Any,
    ) -> Path:
        config = {
            "dataset": {"name": dataset, "fraction": fraction, "subset_seed": subset_seed},
            "model": {"name": model, "dropout": 0.5 if method == "dropout" else 0.0},
            "reg": {"name": method, **SETTINGS.get(method, {}), **reg},
            "scale": {"name": scale},
            "trainer": {"epochs": epochs, "learning_rate": 1e-3, **(trainer or {})},
            "tracker": {"name": "none"},
            "seed": seed,
            "paths": {"output": str(folder), "data": "data"},
        }
        run = record.blank(config) | {
            "status": status,
            "error": None if status == "finished" else "the loss was not finite",
            "data": {"fingerprint": dataset, "train": 100},
            "validation": {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.4, "epoch": 2},
            "test": {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.5},
            "passes_per_step": PASSES.get(method, 1.0),
            "seconds_per_step": step_seconds * PASSES.get(method, 1.0),
            "cpu_seconds_per_step": step_seconds * PASSES.get(method, 1.0),
            "seconds": 12.0,
            "peak_memory_mb": 100.0 + 20.0 * PASSES.get(method, 1.0),
            "versions": {"torch": "2.15.0"},
            "hardware": {"cpu": "a processor", "cores": 2, "device": "cuda", "jobs": 1},
            **(changes or {}),
        }
        return record.write(record.record_path(config), run)

    return write


@pytest.fixture
def as_table(tmp_path) -> Callable[[], Path]:
    """Make a table's folder from everything `write_run` wrote, and return it."""

    def make() -> Path:
        folder = tmp_path / "mini" / "t"
        store.keep(folder, map(record.read, (tmp_path / "records").glob("*.json")))
        return folder

    return make


@pytest.fixture
def runs(write_run, tmp_path) -> Path:
    """Write runs of two data sets, four methods and three seeds; the methods gain 0, 1, 2 and 3 points, plus noise."""
    for dataset, model in (("digits", "cnn"), ("pydoc", "lstm")):
        for gain, method in enumerate(("none", "dropout", "fgm", "dropattack")):
            for seed in range(3):
                noise = 0.003 * ((seed * 7 + gain * 5) % 3)
                write_run(method, seed=seed, accuracy=0.8 + 0.01 * gain + noise, dataset=dataset, model=model)
    return tmp_path / "records"
