"""Runs launched together on this machine."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dropattack.errors import AlreadyRunningError
from dropattack.runs import experiment, record
from dropattack.runs.config import cells
from dropattack.sweeps import launch as module
from dropattack.sweeps.cell import freeze_imports
from dropattack.sweeps.launch import Engine, launch
from tests.sweeps import dying

QUICK = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.threads=1"]
PARENT = """
import sys
from dropattack.runs.config import cells
from dropattack.sweeps.launch import Engine, launch
launch(cells(sys.argv[1:]), Engine("joblib", jobs=2))
"""


def path_of(overrides: list[str]) -> Path:
    return experiment.Run.asked(overrides).record_path


@pytest.mark.parametrize("engine", [
    Engine("basic"), pytest.param(Engine("joblib", jobs=2), marks=pytest.mark.slow),  # its processes: the test below
], ids=lambda engine: engine.launcher)  # fmt: skip
def test_a_failing_run_reports_why_and_stops_no_other(engine, tmp_path, capfd):
    runs = cells([*QUICK, "reg=fgm", "seed=0,1", "reg.targets=[input],[nothing]", f"paths.output={tmp_path}"])
    failed = launch(runs, engine)
    assert set(failed) == {" ".join(run) for run in runs if "reg.targets=[nothing]" in run}
    for run in runs:
        why = failed.get(" ".join(run))
        assert record.state(path_of(run)) == ("missing" if why else "finished")
        if why:
            assert "nothing" in why
            assert record.why(path_of(run)) == why
    said = capfd.readouterr().err
    assert "[4/4] " in said
    assert "Traceback" not in said


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_runs_resume_when_a_worker_process_dies(tmp_path, monkeypatch, capfd):
    runs = cells([*QUICK, "reg=none", "seed=0,1,2", f"paths.output={tmp_path}"])
    monkeypatch.setattr(module, "_one_run_of", dying.once)
    assert launch(runs, Engine("joblib", jobs=2)) == {}
    said = capfd.readouterr().err
    assert "a worker process died" in said
    assert "[3/3] " in said
    monkeypatch.setattr(module, "_one_run_of", dying.always)
    monkeypatch.setattr(module, "RETRIES", 0)
    why = "worker processes kept dying: is there enough memory?"
    assert launch(runs, Engine("joblib", jobs=2)) == {" ".join(run): why for run in runs}
    assert record.why(path_of(runs[0])) == why


def test_a_worker_spares_its_imports_from_garbage_collection(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setattr(module, "one_run", lambda overrides: "")
    monkeypatch.setattr(module, "_end_with", lambda parent: None)
    monkeypatch.setattr(module, "_take_gpu", lambda turn: None)
    freeze_imports.cache_clear()
    assert module._one_run_of([], "name", None, 0) == ("name", "")
    assert frozen == []  # not in the user's own process
    for _ in range(2):
        assert module._one_run_of([], "name", os.getppid(), 0) == ("name", "")
    assert frozen == [1]
    freeze_imports.cache_clear()


@pytest.mark.parametrize(("before", "count", "turns"), [
    (None, 3, {0: "0", 1: "1", 2: "2", 4: "1"}),
    ("2,5", 8, {0: "2", 1: "5", 2: "2"}),
    ("GPU-1a,GPU-2b", 2, {1: "GPU-2b"}),
    (None, 1, {0: None, 1: None}),
    (None, 0, {0: None}),
    ("7", 8, {0: "7", 3: "7"}),
    ("", 8, {1: ""}),
])  # fmt: skip
def test_workers_share_out_the_gpus(before, count, turns, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    for turn, seen in turns.items():
        monkeypatch.setattr(module, "_took_gpu", set())
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if before is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        for later in (turn, turn + 1):  # a worker keeps its GPU
            module._take_gpu(later)
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen


def test_a_worker_ends_without_a_report_of_leaks():
    pytest.importorskip("triton")
    program = "import triton; from dropattack.sweeps.cell import freeze_imports; freeze_imports()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="processes are watched by their parent's number")
def test_a_run_ends_when_its_launcher_is_killed(tmp_path):
    long = [*QUICK, "trainer.epochs=100000", "trainer.checkpoint.every_epochs=0"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *long, f"paths.output={tmp_path}"], cwd=experiment.CONF.parent
    )
    locks, deadline = set(), time.monotonic() + 90
    while not locks:
        assert time.monotonic() < deadline, "the run did not begin"
        locks = set(tmp_path.glob("checkpoints/*/lock"))
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    from dropattack.training.lock import locked

    (lock,), deadline = locks, time.monotonic() + 20
    while True:
        try:
            with locked(lock):  # nobody holds it any more
                return
        except AlreadyRunningError:
            assert time.monotonic() < deadline, "the run did not stop"
            time.sleep(0.1)
