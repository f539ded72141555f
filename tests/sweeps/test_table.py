"""A small table on digits with the real command: made, resumed, remade byte for byte; and its settings tuned."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.runs import record, store
from dropattack.runs.experiment import CONF
from dropattack.sweeps import table as sweeps
from dropattack.sweeps.launch import Engine

ROOT = CONF.parent
TABLE = {
    "title": "T", "kind": "comparison", "seeds": 2,
    "common": ["dataset=digits", "model=cnn", "trainer.threads=1", "trainer.device=cpu"],
    "grids": [["reg=none,fgm"], ["reg=fgm", "reg.targets=[nothing]"]],
}  # fmt: skip


def write_table(path: Path, **changes) -> None:
    path.write_text(yaml.safe_dump({**TABLE, **changes}))


def test_a_table_is_made_resumed_and_remade_byte_for_byte(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder, records = Path("results/smoke/tiny"), Path("results/smoke/records.jsonl")

    def run(*arguments: str) -> tuple[int, str]:
        options = ("--scale", "smoke", "--launcher", "basic", "--results", "results")
        return main(["table", "tiny.yaml", *options, *arguments]), capsys.readouterr().err

    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    write_table(Path("tiny.yaml"))
    code, err = run("tracker=none")
    assert code == 1, err  # the cells that cannot run
    *_, said, one, other = err.strip().splitlines()  # last of all, each with its reason
    assert said == "2 cells of table tiny have no finished run:"
    for line in (one, other):
        assert re.search(r"missing: .*reg\.targets=\[nothing\] .*\(.*nothing.*features\.0\.weight", line)
    files = made()
    assert set(files) == {"runs.txt", "table.md", "table.csv", "table.tex", "figure.png", "figure.svg"}
    assert len(records.read_text().splitlines()) == len(files["runs.txt"].splitlines()) == 4
    assert "| fgm" in files["table.md"].decode()

    for name in set(files) - {"runs.txt"}:
        (folder / name).unlink()
    assert run("--no-run")[0] == 0
    assert made() == files

    old = json.loads(records.read_text().splitlines()[0]) | {"run_id": "0123456789ab"}
    store.keep(folder, [*store.read(records).values(), old])
    assert len(records.read_text().splitlines()) == 5
    shutil.rmtree("outputs")  # as in a fresh clone
    write_table(Path("tiny.yaml"), grids=TABLE["grids"][:1])
    monkeypatch.setattr(sweeps, "launch", lambda *_: pytest.fail("a run was started"))
    code, err = run("tracker=none")
    assert code == 0, err
    assert len(records.read_text().splitlines()) == 4
    assert re.search(r"no longer a run of table tiny: digits-cnn-\w+-s\d-0123456789ab", err)


def test_no_run_follows_the_file_as_it_is_now(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/tables/results/smoke/tiny")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["table", "tiny.yaml", "--scale", "smoke", "--no-run", *arguments])
        return code, *capsys.readouterr()

    base = ["trainer.epochs=1"]
    write_table(Path("tiny.yaml"), grids=[["reg=none,fgm", *base]])
    assert main(["table", "tiny.yaml", "--scale", "smoke", "--launcher", "basic", "tracker=none"]) == 0
    capsys.readouterr()
    listed, whole = (folder / "runs.txt").read_bytes(), (folder / "table.md").read_bytes()
    for given in (["trainer.epochs=2"], ["--only", "reg=fgm"]):
        code, _, err = run(*given)
        assert (code, err.count("\n")) == (2, 1)
        assert f"error: --no-run makes the table from the runs that it has: leave out {' '.join(given)}" in err

    write_table(Path("tiny.yaml"), grids=[["reg=none,pgd", *base]])
    code, out, err = run()
    *left, lacking = err.splitlines()
    assert (code, "fgm" in out) == (0, False)
    assert [re.sub("-[0-9a-f]{12}$", "", line) for line in left] == [
        f"no longer a run of table tiny, so left out: digits-cnn-fgm-s{seed}" for seed in (0, 1)
    ]
    assert lacking == "no run of 2 cells of table tiny: run it without --no-run"

    write_table(Path("tiny.yaml"), grids=[["reg=none,fgm", "trainer.epochs=2"]])
    code, _, err = run()
    assert (code, err.count("\n")) == (2, 1)
    assert f"none of the 4 runs in {folder} is one of table tiny as its file is now: run the table without" in err

    write_table(Path("tiny.yaml"), grids=[["reg=none,fgm", *base]])
    code, _, err = run()
    assert (code, err) == (0, "")
    assert ((folder / "runs.txt").read_bytes(), (folder / "table.md").read_bytes()) == (listed, whole)


def test_only_some_cells_are_run_and_reported(tmp_path, monkeypatch):
    table = sweeps.TableConfig("t", "T", "comparison", (("dataset=digits", "model=cnn", "reg=none,fgm"),), 2)
    launched = []
    monkeypatch.setattr(sweeps, "launch", lambda runs, engine: launched.extend(runs) or {})

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


def test_a_table_is_repeated_on_request(tmp_path, monkeypatch):
    table = sweeps.TableConfig("t", "T", "comparison", (("dataset=digits", "model=cnn", "reg=none"),), 2)
    folder, started = tmp_path / "smoke" / "t", []

    def problems(*extra: str) -> list[str]:
        asked = {"scale": "smoke", "output": tmp_path / "out", "extra": ["tracker=none", *extra]}
        return sweeps.run_cells(table, folder, Engine("basic"), only=["seed=1"], **asked)

    assert problems() == []
    monkeypatch.setattr(sweeps, "launch", lambda runs, engine: started.extend(runs) or {" ".join(runs[0]): "no disk"})
    assert problems() == []
    assert started == []
    (said,) = problems("rerun=true")
    assert len(started) == 1
    assert said.startswith("not repeated: ")
    assert said.endswith("(no disk; its earlier result is kept)")


def test_slurm_gets_only_the_cells_that_are_asked_for():
    grids = [["dataset=digits,mnist", "reg=none,fgm", "seed=0,1"], ["dataset=pheme", "+note=x", "seed=0"]]
    assert list(sweeps.narrowed(grids, ())) == grids
    assert list(sweeps.narrowed(grids, ["reg=fgm", "dataset=mnist"])) == [["seed=0,1", "reg=fgm", "dataset=mnist"]]
    assert list(sweeps.narrowed(grids, ["seed=0"])) == [[*grids[0][:2], "seed=0"], grids[1]]


def test_a_table_keeps_its_own_measurement_of_a_run(tmp_path, monkeypatch):
    cell = ("dataset=digits", "model=cnn", "scale=smoke", "reg=none")
    table = sweeps.TableConfig("b", "T", "comparison", (cell,), 1)
    asked = {"scale": "smoke", "output": tmp_path / "out", "extra": ["tracker=none"]}
    monkeypatch.setattr(sweeps, "launch", lambda runs, engine: pytest.fail("it is finished"))
    run = sweeps.Run.asked([*cell, "seed=0", "tracker=none", f"paths.output={tmp_path / 'out'}"])
    tested = {"accuracy": 0.5, "macro_f1": 0.5, "loss": 1.0, "epoch": 1}
    for name, commit in (("a", "a" * 40), ("b", "b" * 40), ("c", "c" * 40)):
        made = {**record.blank(run.config), "status": "finished", "validation": tested, "test": tested}
        store.keep(tmp_path / "smoke" / name, [{**made, "commit": {"hash": commit, "dirty": False}}])
    assert sweeps.run_cells(table, tmp_path / "smoke" / "b", Engine(), **asked) == []
    (key,) = store.runs_of(tmp_path / "smoke" / "b")
    assert key.endswith("bbbbbbbbbb")


def test_an_untuned_method_is_not_compared_with_tuned_ones(tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(sweeps, "launch", lambda runs, engine: launched.extend(runs) or {})
    monkeypatch.setattr(sweeps.experiment, "CONF", tmp_path / "conf")
    monkeypatch.setattr(sweeps.cli, "say_untuned", lambda *given: None)
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "settings" / "tuned" / "mini-digits-cnn-sam.yaml").unlink()

    def run(*settings: str) -> None:
        cell = ("dataset=digits", "model=cnn", "reg=none,sam", *settings)
        table = sweeps.TableConfig("t", "T", "comparison", (cell,), 1)
        asked = {"scale": "mini", "output": tmp_path / "out", "extra": ["tracker=none"]}
        sweeps.run_cells(table, tmp_path / "mini" / "t", Engine(), **asked)

    with pytest.raises(
        UserError, match=r"tuned for mini-digits-cnn-sam.*`dropattack tune t --scale mini .*settings=paper"
    ):
        run("settings=tuned")
    assert launched == []
    run("settings=paper")
    assert len(launched) == 2


@pytest.fixture
def project(tmp_path) -> Path:
    """Copy the package and its configs, and add a table."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(ROOT / "dropattack", tmp_path / "dropattack", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    write_table(tmp_path / "conf" / "table" / "tiny.yaml", grids=[["reg=none,fgm"]])
    return tmp_path


@pytest.mark.slow  # test_tuning.py checks the trials and the choice in one process
@pytest.mark.timeout(600)
def test_tuning_uses_validation_and_equal_trials_per_method(project):
    plan = yaml.safe_load((project / "conf" / "tune" / "midi.yaml").read_text())
    plan["rungs"] = [{"settings": 3, "seeds": 1}, {"settings": 1, "seeds": 2}]
    (project / "conf" / "tune" / "smoke.yaml").write_text(yaml.safe_dump(plan))
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "dropattack", "tune", "tiny", "--scale", "smoke", "--jobs", "1"]
    tuned = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=500)
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
