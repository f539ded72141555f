"""Bad command lines are answered immediately in one sentence, and leave no files behind."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from dropattack.errors import AlreadyRunningError, DivergedError, Interrupted, UserError
from dropattack.runs import cli
from dropattack.runs.config import choices

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu"]

BAD = [
    ("modle=lstm", ["modle", "did you mean model"]),
    ("model=lstmm", ["model 'lstmm'", "did you mean lstm", "bigru"]),
    ("reg=dropatack", ["dropattack"]),
    ("dataset=null", ["dataset 'null'"]),
    ("experiment=notebook_imbd", ["notebook_imdb"]),
    ("reg=dropattack reg.epsilonn=1", ["'reg.epsilonn'", "did you mean reg.epsilon"]),
    ("reg.epsilon=1", ["'reg.epsilon' in reg=none", "reg=dropattack", "reg=fgm"]),
    ("trainer.epoch=3", ["did you mean trainer.epochs"]),
    ("trainer.lr=1e-3", ["did you mean trainer.learning_rate?"]),
    ("lr=1e-3", ["did you mean trainer.learning_rate?"]),
    ("bs=32", ["did you mean trainer.batch_size?"]),
    ("epochs=3", ["did you mean trainer.epochs?"]),
    ("reg=fgm eps=1", ["did you mean reg.epsilon?"]),
    ("trainer.gradient_clip=1", ["did you mean trainer.clip_norm?"]),
    ("+dataset.path=x", ["dataset=imdb has no option path", "options: root, split", "drop_leaks"]),
    ("reg=fgm reg._target_=dropattack.regularizers.FGMM", ["reg._target_", "no such object"]),
    ("model=bert model._target_=torch.nn.Linear", ["model._target_=torch.nn.Linear"]),
    ("sed=3", ["did you mean seed"]),
    ("trainer", ["cannot read the override 'trainer'", "key=value"]),
    ("trainer.epochs=[1", ["cannot read the override"]),
    ("seed=abc", ["seed=abc", "number"]),
    ("seed=-1", ["seed=-1", "whole number"]),
    ("seed=1.5", ["seed=1.5", "whole number"]),
    ("trainer.epochs=-1", ["trainer.epochs=-1", "at least 1"]),
    ("trainer.epochs=null", ["trainer.epochs=null"]),
    ("trainer.batch_size=0", ["trainer.batch_size=0"]),
    ("trainer.learning_rate=0", ["more than 0"]),
    ("trainer.learning_rate=fast", ["trainer.learning_rate=fast", "number"]),
    ("trainer.precision=fp8", ["fp32 or bf16 or fp16"]),
    ("trainer.precision=fp16 trainer.device=cpu", ["needs a GPU"]),
    ("trainer.compile=perhaps", ["true or false"]),
    ("trainer.checkpoint=3", ["trainer.checkpoint=3", "mapping"]),
    ("reg=dropattack reg.p=2", ["reg.p=2", "at most 1"]),
    ("reg=dropattack reg.epsilon=-1", ["reg.epsilon=-1"]),
    ("reg=fgm reg.epsilon=null", ["reg.epsilon=null"]),
    ("reg=pgd reg.steps=0", ["reg.steps=0", "at least 1"]),
    ("reg=dropattack reg.mode=papr", ["paper or notebook"]),
    ("reg=dropattack reg.targets=input", ["a list"]),
    ("dataset.fraction=0", ["dataset.fraction=0"]),
    ("dataset.fraction=1.5", ["at most 1"]),
    ("dataset=imdb model=cnn", ["model=cnn takes image data", "lstm"]),
    ("seed=1,2", ["--multirun"]),
    ("scale=tiny", ["full, midi, mini, smoke"]),
    ("--epochs=3", ["no option --epochs"]),
]


@pytest.mark.parametrize(("line", "parts"), BAD)
def test_bad_input(line, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.perf_counter()
    assert cli.main(lambda: pytest.fail("a run was started"), line.split()) == 2
    assert time.perf_counter() - started < 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["reg=none,nonee", "trainer.epochs=1,0", "reg=fgm,none reg.epsilon=1"])
def test_bad_sweeps_start_nothing(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(lambda: pytest.fail("a sweep was started"), ["--multirun", *line.split()]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_choice(capsys):
    assert cli.main(lambda: None, ["--help"]) == 0
    text = capsys.readouterr().out
    for group in ("dataset", "model", "reg", "scale", "tracker", "experiment"):
        for name in choices(ROOT / "conf", group):
            assert name in text
    assert "lstm*" in text
    assert "hydra" not in text.lower()
    assert max(len(line) for line in text.splitlines()) <= 120


def test_help_of_a_sweep_says_what_a_sweep_does(capsys):
    assert cli.main(lambda: None, ["--help"], program="dropattack sweep") == 0
    text = capsys.readouterr().out
    assert text.startswith("Train a model for every combination")
    assert "dropattack sweep dataset=digits" in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("there is no data"), 2, "error: there is no data"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM; the same command resumes the run"),
        (RuntimeError("boom\nmore"), 1, "RuntimeError: boom"),
        (DivergedError("no finite gradient"), 1, "no finite gradient"),
        (AlreadyRunningError("another process runs this"), 1, "another process runs this"),
    ],
)
def test_exit_codes(error, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run():
        raise error

    assert cli.main(run, QUICK) == code
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert ("Traceback" in err) == (type(error) is RuntimeError)


def start(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def result(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def loaded(out: str, folder: Path) -> dict:
    """Return the record named in the last line of stdout."""
    last = out.splitlines()[-1]
    assert last.endswith(".json")
    return json.loads((folder / last).read_text())


def test_fast_answers_do_not_import_torch():
    """--help, a bad override and a finished run take well under a second on an idle machine."""
    probe = (
        "import json, sys\nfrom dropattack.runs import cli\n"
        "for arguments, code in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['run.py', *arguments]; assert cli.main(lambda: None) == code, arguments\n"
        "    assert not {'torch', 'wandb', 'numpy', 'accelerate'} & set(sys.modules), arguments"
    )
    lines = [(["--help"], 0), (["reg=nothing"], 2), (QUICK, 0)]
    command = [sys.executable, "-c", probe, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


EARLY = [
    ([*QUICK, "trainer.device=auto", "trainer.precision=fp16"], "needs a GPU"),
    ([*QUICK, "trainer.device=cuda"], "no CUDA device"),
    ([*QUICK, "dataset.split=offical"], "split=offical is unknown; choose one of official"),
    (["dataset=pheme", "model=bigru", "tracker=none"], "Dataset pheme was not found"),
    (["dataset=imdb", "model=lstm", "tracker=none"], "Dataset imdb was not found"),
    (
        [*QUICK, "tracker=wandb", "tracker.mode=auto"],
        "WANDB_MODE=offlin in the environment is not a mode of W&B (did you",
    ),
    (
        ["dataset=imdb", "model=lstm", "tracker=none", "reg=fgm", "reg.targets=[nothing]"],
        "'nothing' matches no parameter",
    ),
]


ASK_EARLY = """
import contextlib, io, json, sys
import hydra
from dropattack.runs import cli
def run(config): cli.execute(config)
main = hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="config")(run)
said = []
for arguments in json.loads(sys.argv[1]):
    sys.argv, cli._failure, err = ["run.py", *arguments], None, io.StringIO()
    with contextlib.redirect_stderr(err):
        code = cli.main(main)
    said.append((code, err.getvalue(), sorted({"torch", "datasets", "accelerate"} & set(sys.modules))))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def early(tmp_path_factory) -> tuple[list, Path]:
    """Return what one process says to each command line of EARLY, and the folder of their outputs."""
    folder = tmp_path_factory.mktemp("early")
    environment = {**os.environ, "WANDB_MODE": "offlin", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
                   "HF_HOME": str(folder), "DROPATTACK_DATA": str(folder)}  # fmt: skip
    lines = [[*arguments, f"paths.output={folder / 'out'}"] for arguments, _ in EARLY]
    command = [sys.executable, "-c", ASK_EARLY, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=True)
    return json.loads(done.stdout), folder


@pytest.mark.parametrize("number", range(len(EARLY)), ids=[arguments[-1] for arguments, _ in EARLY])
def test_impossible_runs_are_refused_before_importing_torch(number, early):
    said, folder = early
    code, err, imported = said[number]
    assert code == 2, err
    assert EARLY[number][1] in err
    assert err.count("\n") == 1
    assert imported == []
    assert not (folder / "out" / "records").exists()


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_of_a_script_starts_nothing(script, capsys, tmp_path, monkeypatch):
    path = ROOT / "scripts" / script
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with mock.patch.dict(os.environ), pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"usage: {script}")
    assert list(tmp_path.iterdir()) == []


SESSION = """
import contextlib, glob, io, json, os, runpy, sys
script, lines = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, os.path.dirname(script))  # as Python does for a script
said = []
for arguments in lines:
    sys.argv, out, err, code = [script, *arguments], io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    records = {path: os.stat(path).st_mtime_ns for path in sorted(glob.glob("outputs/records/*.json"))}
    said.append((code, out.getvalue(), err.getvalue(), records))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> tuple[Path, list]:
    """Run run.py five times in one process; return the folder, and each exit code, stdout, stderr and record's time."""
    folder = tmp_path_factory.mktemp("session")
    lines = [
        QUICK, QUICK,
        [QUICK[0], "--multirun", *QUICK[1:], "reg=none,fgm", "trainer.max_steps=3"],
        ["--multirun", *QUICK, "reg=fgm", "reg.targets=[nothing],[input]", "trainer.max_steps=3"],
        [*QUICK, "--multirun", "seed=7,7", "trainer.threads=1,null", "trainer.max_steps=1"],
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", SESSION, str(ROOT / "run.py"), json.dumps(lines)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_run_then_skip(session):
    """A run prints its record; repeated, it answers immediately; it writes only below paths.output."""
    folder, ((code, out, err, before), (again, same, said, after), *_) = session
    assert code == 0, err
    record = loaded(out, folder)
    assert record["status"] == "finished"
    assert record["passes_per_step"] == 1
    assert record["steps"] == record["history"][-1]["step"]
    kept = folder / "outputs" / "checkpoints" / record["run_id"]
    assert sorted(path.name for path in kept.iterdir()) == [
        "best.json",
        "best.safetensors",
        "lock",
        "predictions.npz",
        "reader.json",
    ]
    assert (again, same) == (0, out)
    assert "already done" in said
    assert before == after
    assert list(before) == [out.splitlines()[-1]]


def test_sweeps(session):
    """A sweep runs its cells, survives one that fails, says what failed, and skips what is done when given again.

    Flags may be between overrides. Cells that are the same run run once.
    """
    folder, (*_, (code, _, err, _), (again, _, said, _), (same, _, once, _)) = session
    assert code == 0, err
    assert "2 finished" in err
    assert again == 1
    assert "2 runs, 1 of them done already" in said
    assert "1 finished, 1 missing" in said
    assert same == 0, once
    assert "1 run (4 cells, some of which are the same run), 0 of them done already" in once
    assert once.strip().splitlines()[-1] == "1 finished"
    assert len(list(folder.glob("outputs/records/*.json"))) == 1 + 3
    assert [path.name for path in folder.iterdir()] == ["outputs"]


@pytest.mark.slow  # SIGKILL: tests/survival/test_kill.py; the others, within one process: tests/training/test_resume.py
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_continues(tmp_path, number):
    """A run that is killed anywhere and restarted has the record and weights of an uninterrupted run."""
    arguments = [*QUICK, "reg=dropattack", "model.dropout=0.2", "trainer.epochs=6", "dataset.train_rows=600",
                 "trainer.checkpoint.every_minutes=1e-3", "trainer.checkpoint.share=1"]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    code, out, err = result(whole, *arguments)
    assert code == 0, err
    process = start(cut, *arguments)
    deadline = time.monotonic() + 120
    while not list(cut.glob("outputs/checkpoints/*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=100)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert not list(cut.glob("outputs/records/*"))
    code, again, err = result(cut, *arguments)
    assert code == 0, err
    assert "going on from step" in err
    straight, resumed = loaded(out, whole), loaded(again, cut)
    for record in straight, resumed:
        for entry in record["history"]:
            entry.pop("seconds")
    for key in ("run_id", "test", "validation", "history", "steps", "skipped"):
        assert straight[key] == resumed[key]
    weights = f"outputs/checkpoints/{straight['run_id']}/best.safetensors"
    assert (whole / weights).read_bytes() == (cut / weights).read_bytes()


@pytest.mark.slow  # within one process: test_exit_codes, test_launching.py, tests/training/test_resume.py
def test_a_second_process_is_refused(tmp_path):
    arguments = [*QUICK, "trainer.epochs=100", "dataset.train_rows=1000"]
    first = start(tmp_path, *arguments)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("outputs/checkpoints/*/lock")) and time.monotonic() < deadline:
            time.sleep(0.05)
        code, _, err = result(tmp_path, *arguments)
        assert code == 1
        assert "another process is running this experiment" in err
        assert "Traceback" not in err
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow  # within one process: tests/training/test_experiment.py
def test_bad_input_that_only_the_model_detects(tmp_path):
    """An unknown target lists what there is, with exit code 2, and no record."""
    code, out, err = result(tmp_path, *QUICK, "reg=dropattack", "reg.targets=[nothing]")
    assert code == 2
    assert "nothing" in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_reason_that_several_runs_share_is_said_once(capsys):
    cli._say_unfinished({"seed=0": ("missing", "no column"), "seed=1": ("missing", "no column"), "x": ("error", "NaN")})
    assert capsys.readouterr().err == "  2 missing (no column):\n    seed=0\n    seed=1\n  error: x (NaN)\n"
