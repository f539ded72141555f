"""Other launchers: Slurm's submitit on this machine, and one run in two processes under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropattack.runs.experiment import CONF
from dropattack.runs.record import read

DIGITS = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.threads=1"]


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})  # fmt: skip


def records(folder: Path) -> list[dict]:
    return [read(path) for path in sorted((folder / "records").glob("*.json"))]


@pytest.mark.slow
def test_submitit_runs_a_sweep(tmp_path):
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]' for Slurm's launcher")
    done = run(sys.executable, "run.py", "--multirun", "hydra/launcher=submitit_local", *DIGITS, "seed=0,1",
               f"paths.output={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [r["status"] for r in records(tmp_path)] == ["finished", "finished"]


@pytest.mark.slow
def test_one_run_on_two_processes_writes_one_record(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = run(*torchrun, "run.py", *DIGITS, "reg=dropattack", "trainer.epochs=2", f"paths.output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path)
    assert record["status"] == "finished"
    assert record["hardware"]["processes"] == 2
    assert record["passes_per_step"] == 3
    assert done.stdout.count(".json") == 1  # one process speaks
