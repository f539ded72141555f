"""A run of two processes of which one is killed, or which a scheduler stops, ends soon and resumes exactly."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate import PartialState

from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.training.loop import Trainer
from tests.processes import in_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # torchrun starts two processes, four times

ROOT = Path(__file__).resolve().parents[2]
RUN = ["dataset=digits", "model=cnn", "scale=smoke", "reg=dropattack", "tracker=none", "trainer.device=cpu",
       "dataset.train_rows=160", "dataset.validation_rows=40", "trainer.epochs=12", "trainer.progress=none",
       "trainer.checkpoint.share=1"]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"]  # fmt: skip
SOON = 60.0  # seconds: torchrun looks after its processes every 0.1 s, and gives them 30 s to end


def outcome(out: Path) -> dict:
    (path,) = out.glob("records/*.json")
    (weights,) = out.glob("checkpoints/*/best.safetensors")
    found = record.read(path)
    history = [{key: value for key, value in entry.items() if key != "seconds"} for entry in found["history"]]
    kept = {key: found[key] for key in ("run_id", "status", "validation", "test", "steps", "skipped")}
    return {**kept, "history": history, "weights": hashlib.sha256(weights.read_bytes()).hexdigest()}


def run(out: Path, die_at: int | None = None) -> str:
    """Run in this process; return the error it ended with. The second process kills itself at epoch `die_at`."""
    end_epoch = Trainer._end_epoch

    def dying(trainer: Trainer) -> None:
        if trainer.state.epoch == die_at and trainer.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        end_epoch(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", dying)
        try:
            experiment.run(compose(experiment.CONF, [*RUN, f"paths.output={out}"]))
        except RuntimeError as error:
            (out / "error").write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
    PartialState().wait_for_everyone()
    return ""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    in_processes(2, folder / "results", run, folder / "out")
    return outcome(folder / "out")


def test_a_process_whose_peer_was_killed_ends_with_an_error(tmp_path, unbroken):
    """No launcher is there to end it: the collective call itself has to fail."""
    begin, out = time.monotonic(), tmp_path / "out"
    with pytest.raises(FileNotFoundError):  # neither returned anything
        in_processes(2, tmp_path / "killed", run, out, 5, limit=SOON)
    assert time.monotonic() - begin < SOON
    assert "Connection" in (out / "error").read_text()
    (failed,) = out.glob("records/*.json")
    assert record.read(failed)["status"] == "failed"
    in_processes(2, tmp_path / "resumed", run, out)
    assert outcome(out) == unbroken


def start(out: Path) -> subprocess.Popen:
    log = open(out / "log", "a")  # noqa: SIM115  of the processes
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*TORCHRUN, "run.py", *RUN, f"paths.output={out}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def wait_for_a_new_checkpoint(out: Path, process: subprocess.Popen, before: set[Path]) -> None:
    end = time.monotonic() + 240
    while set(out.glob("checkpoints/*/step-*")) <= before:
        assert process.poll() is None, (out / "log").read_text()[-2000:]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_killed_and_preempted_under_torchrun(tmp_path, unbroken):
    """SIGKILL of one rank, then SIGTERM and SIGUSR1 to torchrun, as Slurm sends them before the time limit."""
    out = tmp_path / "out"
    out.mkdir()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1):
        process = start(out)
        wait_for_a_new_checkpoint(out, process, set(out.glob("checkpoints/*/step-*")))
        if number == signal.SIGKILL:
            ranks = psutil.Process(process.pid).children()
            assert len(ranks) == 2
            ranks[1].kill()
        else:
            process.send_signal(number)
        begin = time.monotonic()
        assert process.wait(timeout=SOON) != 0, number
        assert time.monotonic() - begin < SOON
        assert not any(rank.is_running() for rank in psutil.Process().children(recursive=True))
        if number != signal.SIGKILL:
            assert f"stopped by {number.name}; the same command resumes the run" in (out / "log").read_text()
    process = start(out)
    assert process.wait(timeout=240) == 0, (out / "log").read_text()[-2000:]
    assert (out / "log").read_text().count("going on from step") == 3
    assert outcome(out) == unbroken
