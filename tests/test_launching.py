"""The environment of a run: Hydra's own options and torchrun's variables, and what a sweep says of them."""

from pathlib import Path

import pytest

from dropattack.errors import AlreadyRunningError, UserError
from dropattack.runs import cli, experiment, identity, launching
from dropattack.runs.config import compose
from dropattack.sweeps.launch import Engine
from dropattack.sweeps.table import load_table, run_cells

QUICK = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.progress=none"]
SWEEP = ["--multirun", *QUICK, "seed=0,1"]

REFUSED = [
    (["hydra.job.chdir=true"], ["hydra.job.chdir", "paths.output"]),
    (["hydra/launcher=submitit_nowhere"], ["no hydra/launcher 'submitit_nowhere'", "basic, joblib", "installed"]),
    (["hydra/launcher=joblb"], ["did you mean joblib"]),
    (["hydra/sweeper=optuna"], ["no hydra/sweeper 'optuna'"]),
    (["hydra/launcher=joblib", "hydra.launcher.njobs=2"], ["no option 'hydra.launcher.njobs'"]),
    (["hydra.sweep.dirr=x"], ["no option 'hydra.sweep.dirr'"]),
    (["hydra.job.chdir=perhaps"], ["hydra.job.chdir=perhaps"]),
    (["hydra.mode=MULTIRUN"], ["hydra.mode", "--multirun"]),
    (["+hydra.sweeper.params={seed: 3}"], ["hydra.sweeper.params"]),
    (["hydra.sweep.dir=/proc/x"], ["hydra.sweep.dir=/proc/x cannot be written"]),
]


@pytest.mark.parametrize(("options", "parts"), REFUSED, ids=lambda value: str(value[-1]))
def test_unsupported_hydra_options_start_no_sweep(options, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(lambda: pytest.fail("a sweep was started"), [*SWEEP, *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for part in parts:
        assert part in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["hydra.job.chdir=true", "hydra.run.dir=/proc/x", "hydra.mode=MULTIRUN"])
def test_unsupported_hydra_options_are_refused_in_single_runs(option, capsys):
    assert cli.main(lambda: pytest.fail("a run was started"), [*QUICK, option]) == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("option", ["hydra.sweep.dir={}/a/b", "hydra.sweep.subdir=x", "hydra.job.chdir=false"])
def test_harmless_hydra_options_are_accepted(option, tmp_path):
    launching.check_hydra(experiment.CONF, [*QUICK, option.format(tmp_path)], sweep=True)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 but not RANK"),
        ({"RANK": "1"}, "RANK=1 but not"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 but not"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "not MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "first"}, "whole numbers"),
    ],
)
def test_leftover_variables_are_named(environment, said):
    with pytest.raises(UserError, match=said):
        launching.check_environment(environment)


TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_torchrun_and_single_processes_are_accepted():
    for environment in ({}, TORCHRUN, {"WORLD_SIZE": "1", "RANK": "0"}, {"MASTER_ADDR": "here"}):
        launching.check_environment(environment)
    with pytest.raises(UserError, match="every process of this sweep"):
        launching.check_environment(TORCHRUN, shared=True)


def test_a_cell_waits_for_the_process_holding_its_run(monkeypatch, capsys):
    answers = [AlreadyRunningError("another process runs it"), AlreadyRunningError("it still does"), Path("r.json")]

    def run(config):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.setattr(cli, "RETRY_SECONDS", 0.0)
    assert cli._run_cell(None) == Path("r.json")
    assert capsys.readouterr().err == "waiting: another process runs it\n"


def test_a_sweep_that_ends_early_says_why(monkeypatch, capsys, tmp_path):
    def broken() -> None:
        raise OSError("the launcher lost its workers")

    assert cli.main(broken, [*SWEEP, f"paths.output={tmp_path}"]) == 1
    assert "the sweep ended early: OSError: the launcher lost its workers" in capsys.readouterr().err


def test_a_table_reports_a_missing_launcher(monkeypatch, tmp_path):
    monkeypatch.setattr("dropattack.sweeps.table.SLURM", ("submitit_nowhere",))
    table = load_table(experiment.CONF, "vision", seeds=1)
    with pytest.raises(UserError, match="no hydra/launcher 'submitit_nowhere'"):
        run_cells(table, tmp_path / "kept", Engine("submitit_nowhere"), scale="smoke", output=tmp_path / "out")


def test_missing_tuned_settings_are_reported(capsys, tmp_path):
    values = experiment.resolve(compose(experiment.CONF, [*QUICK, "settings=tuned"]))
    cli.say_untuned([values, values])
    assert capsys.readouterr().err.count("nothing was tuned for smoke-digits-cnn-none") == 1
    cli.say_untuned([{**values, "settings": {"name": "paper"}}])
    file = tmp_path / "settings" / "tuned" / "smoke-digits-cnn-none.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    cli.say_untuned([values], [tmp_path])  # a folder of --config-dir has them
    assert capsys.readouterr().err == ""


def test_newer_options_do_not_rename_older_runs():
    def run(*overrides: str) -> tuple[str, dict]:
        values = experiment.resolve(compose(experiment.CONF, [*QUICK, *overrides]))
        without = {**values, "dataset": {k: v for k, v in values["dataset"].items() if k != "drop_leaks"}}
        return identity.run_id(values), without

    name, without = run("dataset.drop_leaks=false")
    assert identity.run_id(without) == name
    assert run("dataset.drop_leaks=true")[0] != name
