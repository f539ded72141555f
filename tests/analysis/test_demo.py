"""`make demo` without training: its runs, its handling of failures, its output."""

from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig

from dropattack import provenance
from dropattack.commands import demo as command
from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.sweeps import cell
from dropattack.sweeps.launch import Engine


@cache
def composed(conf: Path, overrides: tuple[str, ...]) -> DictConfig:
    return compose(conf, overrides)


@pytest.fixture(scope="module")
def runs():
    return command.runs()


@pytest.fixture
def demo(runs, tmp_path, monkeypatch):
    module = command
    here = {name: [*given, "paths.output=."] for name, given in runs.items()}
    monkeypatch.chdir(tmp_path)  # every test has the same overrides, which are composed once
    for caller in (cell, experiment):
        monkeypatch.setattr(caller, "compose", lambda conf, overrides: composed(conf, tuple(overrides)))
    monkeypatch.setattr(module, "runs", lambda: here)
    monkeypatch.setattr(module, "OUTPUT", tmp_path)
    monkeypatch.setattr(module, "ENGINE", Engine("basic"))
    monkeypatch.setattr(provenance, "commit", lambda: None)
    module.worked = []
    module.broken = set()

    def work(unresolved):
        config = experiment.resolve(unresolved)
        name = f"{config['dataset']['name']} {config['reg']['name']} {config['seed']}"
        module.worked.append(name)
        if name in module.broken:
            raise RuntimeError("no luck\nat all")
        accuracy = 0.9 + 0.01 * config["seed"]
        result = {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.1}
        run = record.blank(config) | {
            "status": "finished", "data": {"fingerprint": "f"}, "test": result, "seconds": 1.0,
            "validation": {**result, "epoch": 1}, "passes_per_step": 1.0,
            "seconds_per_step": 0.1, "cpu_seconds_per_step": 0.1,
        }  # fmt: skip
        return record.write(record.record_path(config), run)

    monkeypatch.setattr(experiment, "run", work)
    return module


def test_runs_every_method_on_both_data_sets_with_every_seed(demo):
    names = list(demo.runs())
    methods = {"none", "dropout", "fgm", "pgd", "freelb", "dropattack"}
    assert len(names) == 2 * len(methods) * len(demo.SEEDS)
    assert {name.split()[3] for name in names} == methods


def test_a_failing_run_does_not_stop_the_others_and_is_retried(demo, capsys):
    demo.broken = {"digits pgd 1"}
    assert demo.main([]) == 1
    assert len(demo.worked) == 36
    said = capsys.readouterr().out
    assert "failed: digits" in said
    assert "no luck" in said
    assert "at all" not in said
    demo.broken = set()
    assert demo.main([]) == 0
    assert demo.worked[36:] == ["digits pgd 1"]
    assert (demo.OUTPUT / "demo.png").stat().st_size > 10_000
    # Methods are compared with `none`, so only the method and its dropout may differ.
    text = (demo.OUTPUT / "table.md").read_text()
    assert "no none with" not in text
    assert text.count("| not known |") == 10

    demo.worked.clear()  # a finished demo only shows its results
    assert demo.main([]) == 0
    assert demo.worked == []
    assert (demo.OUTPUT / "table.md").read_text() == text
