"""On a full disk the last checkpoint remains, one sentence reports it, and the command resumes given space."""

import errno
import json
import resource
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from dropattack.errors import Interrupted, UserError
from dropattack.runs import cli, experiment, record
from dropattack.runs.config import compose
from dropattack.tracking.base import NullTracker
from dropattack.training import checkpoint
from dropattack.training.loop import Trainer

RUN = ["dataset=digits", "model=cnn", "scale=smoke", "reg=dropattack", "tracker=none", "trainer.device=cpu",
       "trainer.epochs=4", "trainer.progress=none", "trainer.checkpoint.share=1"]  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return compose(experiment.CONF, [*RUN, f"paths.output={tmp_path / 'out'}"])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict:
    return result(experiment.run(compose(experiment.CONF, [*RUN, f"paths.output={tmp_path_factory.mktemp('whole')}"])))


def result(path: Path) -> dict:
    found = record.read(path)
    history = [{key: value for key, value in entry.items() if key != "seconds"} for entry in found["history"]]
    (weights,) = (path.parents[1] / "checkpoints").glob("*/best.safetensors")
    kept = ("run_id", "status", "validation", "test", "steps")
    return {**{key: found[key] for key in kept}, "history": history, "weights": weights.read_bytes()}


@contextmanager
def full_disk(room: int = 0):
    """Make the system refuse files of more than `room` bytes (a full disk refuses with another error number)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_disk_while_saving(monkeypatch, after: int = 0, stop: int | None = None) -> None:
    """Leave space only for the first `after` checkpoints; after `stop` of them a signal stops the run."""
    save, count = Trainer._save, 0

    def limited(trainer: Trainer) -> None:
        nonlocal count
        count += 1
        with full_disk() if count > after else nullcontext():
            save(trainer)
        if count == stop:
            trainer.signals.number = 15

    monkeypatch.setattr(Trainer, "_save", limited)


def fill(folder: Path) -> None:
    with suppress(OSError), open(folder / "ballast", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def checkpoints(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("out/checkpoints/*/*") if path.name != "lock")


def test_a_run_without_space_for_checkpoints_finishes(config, monkeypatch, capsys, unbroken):
    fill_disk_while_saving(monkeypatch)
    assert result(experiment.run(config)) == unbroken
    said = capsys.readouterr().err
    assert said.count("no checkpoint: cannot write") == 4
    assert said.count("(the training goes on)") == 4


def test_the_last_good_checkpoint_remains(config, tmp_path, monkeypatch, capsys, unbroken):
    with monkeypatch.context() as patch:
        fill_disk_while_saving(patch, after=1, stop=3)
        with pytest.raises(Interrupted):
            experiment.run(config)
    assert checkpoints(tmp_path) == ["step-00000004-1"]
    capsys.readouterr()
    assert result(experiment.run(config)) == unbroken
    assert "going on from step 4" in capsys.readouterr().err


def test_no_room_for_the_weights_leaves_no_record(config, tmp_path, monkeypatch, capsys, unbroken):
    with monkeypatch.context() as patch:
        keep = checkpoint.Checkpoints.keep

        def limited(*args):
            with full_disk():
                return keep(*args)

        patch.setattr(checkpoint.Checkpoints, "keep", limited)
        with pytest.raises(UserError, match="cannot write"):
            experiment.run(config)
    assert not list(tmp_path.glob("out/records/*"))
    assert checkpoints(tmp_path) == ["reader.json", "step-00000016-1"]
    capsys.readouterr()
    assert result(experiment.run(config)) == unbroken
    assert "going on from step 16" in capsys.readouterr().err
    assert checkpoints(tmp_path) == ["best.json", "best.safetensors", "predictions.npz", "reader.json"]


def test_no_room_for_the_record(config, tmp_path, monkeypatch, capsys, unbroken):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_atomically", full)  # the checkpoints have it by another name
        with pytest.raises(UserError, match="no space left; free some"):
            experiment.run(config)
    assert "step-00000016-1" in checkpoints(tmp_path)
    capsys.readouterr()
    assert result(experiment.run(config)) == unbroken
    assert "going on from step 16" in capsys.readouterr().err


def test_a_tracker_without_room_stops_alone(config, monkeypatch, capsys, unbroken):
    calls = []

    def full(self, metrics, step):
        calls.append(step)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(NullTracker, "log", full)
    assert result(experiment.run(config)) == unbroken
    assert len(calls) == 2
    assert capsys.readouterr().err.count("tracking stopped: OSError: [Errno 28] No space left on device") == 1


def test_a_disk_that_is_full(small_disk, unbroken, capsys):
    """One sentence, exit code 2 and no partial file; then there is space."""
    fill(small_disk)
    config = compose(experiment.CONF, [*RUN, "trainer.checkpoint.every_epochs=0", f"paths.output={small_disk}/out"])
    assert cli.guarded(lambda: print(experiment.run(config)) or 0) == 2
    out, err = capsys.readouterr()
    (said,) = err.splitlines()
    assert out == ""
    assert said.startswith("error: cannot write ")
    assert "no space left; free some" in said
    assert sorted(path.name for path in small_disk.rglob("*") if path.is_file()) == ["ballast", "lock"]
    (small_disk / "ballast").unlink()
    assert result(experiment.run(config)) == unbroken
    assert json.loads(next(small_disk.glob("out/checkpoints/*/best.json")).read_text())["run_id"] == unbroken["run_id"]
