"""Stages: limits, cut-offs, and resuming after the budget is spent."""

import json
import sys
import time

import pytest

from dropattack.gpu import stages
from dropattack.gpu.stages import Stage, run_stages

COUNT = """
import sys, time
from pathlib import Path
file = Path(sys.argv[1])
for n in range(int(sys.argv[2])):
    with file.open("a") as f: f.write("x")
    time.sleep(float(sys.argv[3]))
"""


def count(file, times, pause, name="count", limit=60.0):
    return Stage(name, limit, (sys.executable, "-c", COUNT, str(file), str(times), str(pause)))


@pytest.fixture(autouse=True)
def grace(monkeypatch):
    monkeypatch.setattr(stages, "GRACE", 1)


def test_a_stage_ends_at_its_limit_and_the_next_one_runs(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    planned = [count(first, 600, 0.1, "long", limit=2), count(second, 2, 0, "short")]
    long, short = run_stages(planned, budget=30, folder=tmp_path / "out", root=tmp_path)
    assert (long.state, short.state) == ("cut off", "done")
    assert second.read_text() == "xx"
    written = len(first.read_text())
    time.sleep(0.3)
    assert len(first.read_text()) == written, "its process is gone"


@pytest.mark.parametrize("then", ["child.wait()", "pass"], ids=["cut off", "done before its child"])
def test_processes_of_a_stage_end_with_it(tmp_path, then):
    """Also one that ignores SIGTERM, and one that the stage left behind when it ended."""
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{COUNT}"
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}, *sys.argv[1:]])\n"
        f"while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n{then}"
    )
    limit = 4 if then == "pass" else 2.5  # one that ends by itself does not wait for its limit
    stage = Stage("parent", limit, (sys.executable, "-c", parent, str(tmp_path / "file"), "600", "0.1"))
    (outcome,) = run_stages([stage], budget=30, folder=tmp_path / "out", root=tmp_path)
    assert outcome.state == ("done" if then == "pass" else "cut off")
    written = len((tmp_path / "file").read_text())
    time.sleep(0.3)
    assert len((tmp_path / "file").read_text()) == written > 0


def test_next_call_runs_stages_beyond_the_budget(tmp_path):
    short = count(tmp_path / "b", 1, 0, "b")
    planned = [short, count(tmp_path / "a", 600, 0.1, "a"), count(tmp_path / "c", 1, 0, "c")]
    outcomes = run_stages(planned, budget=2.5, folder=tmp_path / "out", root=tmp_path)
    assert [o.state for o in outcomes] == ["done", "cut off", "not started"]
    planned[1] = count(tmp_path / "a", 1, 0, "a")
    outcomes = run_stages(planned, budget=30, folder=tmp_path / "out", root=tmp_path)
    assert [o.state for o in outcomes] == ["done", "done", "done"]
    assert (tmp_path / "b").read_text() == "x", "what was done is not run again"


def test_failed_stage_does_not_stop_others_and_is_retried(tmp_path):
    bad = Stage("bad", 30, (sys.executable, "-c", "raise SystemExit(3)"))
    planned = [bad, count(tmp_path / "a", 1, 0, "a")]
    failed, other = run_stages(planned, budget=30, folder=tmp_path / "out", root=tmp_path)
    assert (failed.state, failed.code, other.state) == ("failed", 3, "done")
    assert json.loads((tmp_path / "out" / "stages.json").read_text())["stages"][0]["state"] == "failed"
    again, _ = run_stages(planned, budget=30, folder=tmp_path / "out", root=tmp_path)
    assert again.state == "failed"
    assert again.seconds >= failed.seconds


def test_archive_takes_small_files_first(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "small.json").write_text("{}")
    (folder / "large.log").write_bytes(bytes(range(256)) * 4000)
    (folder / "weights.safetensors").write_text("no")
    assert stages.bundle(folder, tmp_path / "a.tar.gz", most_bytes=10_000) == ["large.log"]
    assert stages.bundle(folder, tmp_path / "a.tar.gz") == []
