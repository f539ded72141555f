"""A small table on digits with the real commands: made, resumed, remade byte for byte; and its settings tuned."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dropattack.errors import UserError
from dropattack.runs import store
from dropattack.runs.experiment import CONF
from dropattack.sweeps import table as sweeps
from dropattack.sweeps.launch import Engine

ROOT = CONF.parent
TABLE = {
    "title": "T", "kind": "comparison", "seeds": 2,
    "common": ["dataset=digits", "model=cnn", "trainer.threads=1", "trainer.device=cpu"],
    "grids": [["reg=none,fgm"], ["reg=fgm", "reg.targets=[nothing]"]],
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Copy the package and its configs, and add a table."""
    copy = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "conf", copy / "conf")
    shutil.copytree(ROOT / "dropattack", copy / "dropattack", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", copy)
    (copy / "conf" / "table" / "tiny.yaml").write_text(yaml.safe_dump(TABLE))
    return copy


def run(project: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "dropattack", name, "tiny", "--scale", "smoke", "--jobs", "1", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=500)


def made(project: Path) -> dict[str, bytes]:
    folder = project / "results" / "smoke" / "tiny"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.timeout(600)
def test_a_table_is_made_resumed_and_remade_byte_for_byte(project):
    first = run(project, "table", "--launcher", "basic", "tracker=none")
    assert first.returncode == 1, first.stderr  # the cells that cannot run
    *_, said, one, other = first.stderr.strip().splitlines()  # last of all, each with its reason
    assert said == "2 cells of table tiny have no finished run:"
    for line in (one, other):
        assert re.search(r"missing: .*reg\.targets=\[nothing\] .*\(.*nothing.*features\.0\.weight", line)
    files = made(project)
    assert set(files) == {"runs.txt", "table.md", "table.csv", "table.tex", "figure.png", "figure.svg"}
    records = project / "results" / "smoke" / "records.jsonl"
    assert len(records.read_text().splitlines()) == len(files["runs.txt"].splitlines()) == 4
    assert "| fgm" in files["table.md"].decode()

    for name in set(files) - {"runs.txt"}:
        (project / "results" / "smoke" / "tiny" / name).unlink()
    assert run(project, "table", "--no-run").returncode == 0
    assert made(project) == files

    old = json.loads(records.read_text().splitlines()[0]) | {"run_id": "0123456789ab"}
    store.keep(project / "results" / "smoke" / "tiny", [*store.read(records).values(), old])
    assert len(records.read_text().splitlines()) == 5
    shutil.rmtree(project / "outputs")  # as in a fresh clone
    (project / "conf" / "table" / "tiny.yaml").write_text(yaml.safe_dump({**TABLE, "grids": TABLE["grids"][:1]}))
    again = run(project, "table", "tracker=none")
    assert again.returncode == 0, again.stderr
    assert "/4] " not in again.stderr  # nothing was run
    assert len(records.read_text().splitlines()) == 4
    assert re.search(r"no longer a run of table tiny: digits-cnn-\w+-s\d-0123456789ab", again.stderr)


def test_only_some_cells_are_run_and_reported(tmp_path, monkeypatch):
    table = sweeps.TableConfig("t", "T", "comparison", (("dataset=digits", "model=cnn", "reg=none,fgm"),), 2)
    launched = []
    monkeypatch.setattr(sweeps, "launch", lambda runs, engine: launched.extend(runs))

    def problems(*only: str) -> list[str]:
        asked = {"scale": "smoke", "output": tmp_path / "out", "extra": ["tracker=none"]}
        return sweeps.run_cells(table, tmp_path / "smoke" / "t", Engine(), only=only, **asked)

    said = problems("reg=fgm", "seed=1")
    assert len(said) == len(launched) == 1
    assert {"reg=fgm", "seed=1"} <= set(launched[0])
    assert said[0].startswith("missing: ")
    assert len(problems()) == 4
    with pytest.raises(UserError, match="table t has no cell with reg=sam"):
        problems("reg=sam")


@pytest.mark.slow  # test_tuning.py checks the trials and the choice in one process
@pytest.mark.timeout(600)
def test_tuning_uses_validation_and_equal_trials_per_method(project):
    (project / "conf" / "table" / "tiny.yaml").write_text(yaml.safe_dump({**TABLE, "grids": [["reg=none,fgm"]]}))
    plan = yaml.safe_load((project / "conf" / "tune" / "midi.yaml").read_text())
    plan["rungs"] = [{"settings": 3, "seeds": 1}, {"settings": 1, "seeds": 2}]
    (project / "conf" / "tune" / "smoke.yaml").write_text(yaml.safe_dump(plan))
    tuned = run(project, "tune")
    assert tuned.returncode == 0, tuned.stderr
    for method in ("none", "fgm"):
        found = json.loads((project / "results" / "tuning" / f"smoke-digits-cnn-{method}.json").read_text())
        assert [len(trial["seeds"]) for trial in found["trials"]] in ([2, 1, 1], [1, 2, 1], [1, 1, 2])
        assert found["chosen"] == next(trial["settings"] for trial in found["trials"] if len(trial["seeds"]) == 2)
        chosen = yaml.safe_load(
            (project / "conf" / "settings" / "tuned" / f"smoke-digits-cnn-{method}.yaml").read_text()
        )
        assert chosen["trainer"]["learning_rate"] == found["chosen"]["trainer.learning_rate"]
        assert "test" not in json.dumps(found)
    (record,) = run_one(project, "settings=tuned", "reg=fgm")
    assert record["config"]["trainer"]["learning_rate"] == found["chosen"]["trainer.learning_rate"]
    assert record["config"]["reg"]["epsilon"] == found["chosen"]["reg.epsilon"]


def run_one(project: Path, *overrides: str) -> list[dict]:
    folder = project / "one"
    command = [sys.executable, "run.py", "dataset=digits", "model=cnn", "scale=smoke", "tracker=none", *overrides]
    done = subprocess.run([*command, f"paths.output={folder}"], cwd=project, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(project)}, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in (folder / "records").glob("*.json")]
