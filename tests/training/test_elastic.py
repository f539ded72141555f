"""A run that n processes stopped continues with m: the same batches in the same order, and the same gradients."""

from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from test_loop import METHODS
from test_resume import KillerLoader
from torch import nn
from toys import toy_loaders, toy_train

from dropattack.data.loader import Loader
from dropattack.data.types import TensorSplit
from dropattack.errors import Interrupted
from dropattack.regularizers import FGM, FreeLB, Identity
from dropattack.training import elastic, loop, optim
from dropattack.training.checkpoint import Checkpoints
from tests.processes import in_processes

CPU = torch.device("cpu")


def saved_by(processes: int, tmp_path, **options):
    """Return the checkpoint of a toy run after 14 of its 30 steps, as if `processes` had saved it."""
    train_loader, validation = toy_loaders()
    with pytest.raises(Interrupted):
        toy_train(loaders=(KillerLoader(train_loader, 14), validation), checkpoints=Checkpoints(tmp_path), **options)
    snapshot = Checkpoints(tmp_path).load()
    (own,) = snapshot.state["processes"]
    snapshot.state["processes"] = processes * [{**own, "sums": own["sums"] / processes}]  # exact: a power of two
    return snapshot


def test_the_epoch_keeps_its_sums_and_the_record_its_processes(tmp_path, capsys):
    _, result = toy_train(reg=METHODS["fgm"], resume=saved_by(4, tmp_path, reg=METHODS["fgm"]))
    assert result.topology == [[0, 4], [14, 1]]
    assert "going on from step 14 with 1 process instead of 4: the batches" in capsys.readouterr().err
    assert [entry["step"] for entry in result.history] == [10, 20, 30]
    _, whole = toy_train(reg=METHODS["fgm"])
    assert whole.topology == []
    # Only the dropout masks after step 14 differ: the sums of the four batches before are all there.
    assert result.history[0]["train"] == whole.history[0]["train"]
    assert result.history[1]["train"] == pytest.approx(whole.history[1]["train"], abs=0.1)


def test_each_process_draws_other_numbers_and_the_same_again(tmp_path):
    snapshot = saved_by(2, tmp_path, reg=METHODS["dropattack"])
    saved = snapshot.state["processes"]

    def share(rank: int, step: int = 14) -> dict:
        return elastic.share(saved, rank=rank, world=4, step=step, seed=1, device=CPU)

    for get in (lambda own: own["generators"]["torch"], lambda own: own["reg"]["generators"]["cpu"]):
        states = [get(share(rank)) for rank in range(4)] + [get(share(0, step=15)), get(saved[0])]
        assert all(not torch.equal(a, b) for i, a in enumerate(states) for b in states[:i])
        assert torch.equal(states[0], get(share(0)))
    assert share(1)["reg"]["calls"] == 14
    assert share(1)["sums"].tolist() == [0.0] * 4
    assert torch.equal(share(0)["sums"], 2 * saved[0]["sums"])


def test_another_division_of_the_epoch_is_refused(tmp_path):
    """With two processes, a last batch of one row joins the one before, which changes the order of the others."""
    snapshot = saved_by(2, tmp_path)
    snapshot.state["batches"] -= 1
    said = "2 processes saved the checkpoint, in epochs of 9 batches, but with 1 process an epoch has 10"
    with pytest.raises(ValueError, match=said):
        toy_train(resume=snapshot)
    del snapshot.state["batches"]  # of an older version
    with pytest.raises(ValueError, match="unknown number of batches"):
        toy_train(resume=snapshot)


def test_a_checkpoint_of_an_older_version_resumes(tmp_path):
    whole, _ = toy_train()
    snapshot = saved_by(1, tmp_path)
    for own in snapshot.state["processes"]:
        del own["sums"]
    del snapshot.state["batches"], snapshot.state["progress"]["topology"]
    model, _ = toy_train(seed=77, resume=snapshot)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))


class Net(nn.Module):
    """A network in which no example depends on another, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(16, 12).double(), nn.Linear(12, 3).double()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(pixels.double().flatten(1)).tanh())


INDEPENDENT = {  # of the number of processes
    "none": Identity,
    "fgm": lambda model: FGM(model, "hidden", epsilon=0.3, seed=0),
    "freelb": lambda model: FreeLB(model, "hidden", alpha=0.1, epsilon=0.3, steps=2, init=0.0, seed=0),
}
STOP = 7  # in the second of four epochs of five batches; the last has 6 of 16 rows


def part_of_a_run(folder: Path, came_from: int, part: str) -> dict[str, list]:
    """Train each method to step STOP (`first`), from there (`rest`), or both; return the gradients of each step."""
    found = {}
    for name, method in {**INDEPENDENT, "weights": METHODS["fgm"]}.items():
        state = PartialState(cpu=True)
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(256, (70, 1, 4, 4), dtype=torch.uint8, generator=generator)
        split = TensorSplit(pixels, torch.randint(3, (70,), generator=generator))
        world = {"rank": state.process_index, "world": state.num_processes}
        loaders = Loader(split, batch_size=16, augment="shift", **world), Loader(split, batch_size=70, shuffle=False)
        gradients, checkpoints = [], Checkpoints(folder / f"{name}-{came_from}")
        guarded_step, save, model = optim.guarded_step, loop.Trainer._save, Net()

        def step(optimizer, guarded_step=guarded_step, model=model, gradients=gradients, **options):
            gradients.append([p.grad.clone() for p in model.parameters()])
            return guarded_step(optimizer, **options)

        def stop(trainer, save=save):
            if part == "first" and trainer.state.step == STOP:
                save(trainer)
                raise Interrupted(15)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "LOOK_EVERY", 1)
            patch.setattr(optim, "guarded_step", step)
            patch.setattr(loop.Trainer, "_save", stop)
            options = {"loaders": loaders, "epochs": 4, "optimizer": "sgd", "learning_rate": 0.1, "accumulation": 1}
            options |= {"checkpoints": checkpoints, "every_minutes": 1e-9}
            if part == "first":
                with pytest.raises(Interrupted):
                    toy_train(model, method, **options)
            else:
                _, result = toy_train(model, method, resume=checkpoints.load() if part == "rest" else None, **options)
                assert result.topology == ([[0, came_from], [STOP, state.num_processes]] if part == "rest" else [])
        found[name] = gradients
    return found


@pytest.mark.slow
def test_gradients_do_not_depend_on_the_number_of_processes(tmp_path):
    """Between 1, 2 and 4 processes, as nanotron's checkpoints change their topology; data, order and objective stay."""
    before = {n: in_processes(n, tmp_path / f"stop-{n}", part_of_a_run, tmp_path, n, "first") for n in (1, 2, 4)}
    (whole,) = in_processes(1, tmp_path / "whole", part_of_a_run, tmp_path, 0, "whole")
    del whole["weights"]  # whose attack follows each process's part of a batch
    assert {name: len(steps) for name, steps in whole.items()} == dict.fromkeys(INDEPENDENT, 20)
    for came_from in (1, 2, 4):
        for n in {1, 2, 4} - {came_from}:
            after = in_processes(n, tmp_path / f"{came_from}-{n}", part_of_a_run, tmp_path, came_from, "rest")
            for name, wanted in whole.items():
                for one, two in zip(before[came_from][:n], after[:came_from], strict=False):
                    torch.testing.assert_close(one[name] + two[name], wanted, rtol=0, atol=1e-6)
            assert len(after[0]["weights"]) == 20 - STOP
