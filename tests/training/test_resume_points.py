"""A run that is killed at six points and resumed ends like an unbroken one, with one process and with two.

The six points are those of Composer's tests of its checkpoints (tests/trainer/test_checkpoint.py). These are equal bit
for bit: the weights, the optimizer, the random generators, the regularizer's state, the best weights, and the record
except for its times.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from omegaconf import DictConfig, OmegaConf
from test_resume import equal

from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.training import loop, seeding
from tests.processes import in_processes

BATCHES = 5
POINTS = {  # the state of the last checkpoint: epochs, batches of the next one, steps
    "right after the first step": (0, 1, 1),
    "inside an epoch": (1, 2, BATCHES + 2),
    "at an epoch's end": (2, 0, 2 * BATCHES),
    "during validation": (1, BATCHES, 2 * BATCHES),
    "at the last step": (2, BATCHES, 3 * BATCHES),
    "after the end": (3, 0, 3 * BATCHES),
}
RUN = ["dataset=digits", "model=cnn", "scale=smoke", "reg=dropattack", "model.dropout=0.3", "tracker=none",
       "dataset.train_rows=80", "dataset.validation_rows=40", "trainer.epochs=3", "trainer.device=cpu",
       "trainer.progress=none", "trainer.schedule=cosine", "trainer.checkpoint.share=1",
       "trainer.checkpoint.every_minutes=1e-9"]  # fmt: skip
TIMES = ("seconds", "seconds_per_step", "cpu_seconds_per_step", "peak_memory_mb")


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return compose(experiment.CONF, RUN)


def run(config: DictConfig, out: Path, killed: str | None = None) -> dict[str, Any]:
    """Run until the end, or to the point where it is killed; return everything that must be equal."""
    ends: list[dict[str, Any]] = []
    save, whole, evaluate = loop.Trainer._save, loop.Trainer.run, loop.evaluate
    state = None

    def saving(trainer: loop.Trainer) -> None:
        nonlocal state
        state = (trainer.state.epoch, trainer.state.batch, trainer.state.step)
        if state == POINTS.get(killed):
            save(trainer)
        if killed != "during validation" and state == POINTS.get(killed):
            raise Killed

    def validating(*args: Any, **options: Any) -> Any:
        if killed == "during validation" and state == POINTS[killed]:
            raise Killed
        return evaluate(*args, **options)

    def running(trainer: loop.Trainer) -> Any:
        result = whole(trainer)
        best = dict(sorted(result.best_weights.items()))
        ends.append({"reg": trainer.reg.state_dict(), "generators": seeding.generators(), "best": best,
                     **copy.deepcopy(trainer.stepper.state_dict())})  # fmt: skip
        return result

    config = copy.deepcopy(config)
    OmegaConf.update(config, "paths.output", str(out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOOK_EVERY", 1)  # so that two processes save after each step
        patch.setattr(loop, "evaluate", validating)
        patch.setattr(loop.Trainer, "_save", saving)
        patch.setattr(loop.Trainer, "run", running)
        if killed:
            with pytest.raises(Killed):
                experiment.run(config)
            return {}
        path = experiment.run(config)
        PartialState().wait_for_everyone()  # the first process writes the record
        written = record.read(path)
    kept = {key: value for key, value in written.items() if key not in TIMES}
    history = [{key: value for key, value in entry.items() if key != "seconds"} for entry in written["history"]]
    return {**ends[0], "record": {**kept, "history": history}}


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory) -> dict[str, Any]:
    return run(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("point", POINTS)
def test_one_process(config, unbroken, tmp_path, capsys, point):
    run(config, tmp_path, killed=point)
    resumed = run(config, tmp_path)
    assert f"going on from step {POINTS[point][2]}\n" in capsys.readouterr().err
    assert resumed.keys() == unbroken.keys()
    assert [key for key in unbroken if not equal(resumed[key], unbroken[key])] == []


def all_points(config: DictConfig, folder: Path) -> dict[str, Any]:
    found = {"whole": run(config, folder / "whole")}
    for point in POINTS:
        run(config, folder / point, killed=point)
        found[point] = run(config, folder / point)
    return found


@pytest.mark.slow
def test_two_processes(config, tmp_path):
    ranks = in_processes(2, tmp_path / "results", all_points, config, tmp_path / "runs")
    for found in ranks:
        whole = found.pop("whole")
        assert whole["record"]["hardware"]["processes"] == 2
        for point, resumed in found.items():
            assert [key for key in whole if not equal(resumed[key], whole[key])] == [], point
    assert not torch.equal(ranks[0]["inside an epoch"]["generators"]["torch"],
                           ranks[1]["inside an epoch"]["generators"]["torch"])  # fmt: skip
