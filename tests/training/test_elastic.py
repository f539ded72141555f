"""A run that n processes stopped continues with m: the same batches in the same order, and the same gradients."""

import pytest
import torch
from test_loop import METHODS
from test_resume import KillerLoader
from toys import toy_loaders, toy_train

from dropattack.errors import Interrupted
from dropattack.training import elastic
from dropattack.training.checkpoint import Checkpoints

CPU = torch.device("cpu")


def saved_by(processes: int, tmp_path, **options):
    """Return the checkpoint of a toy run after 14 of its 30 steps, as if `processes` had saved it."""
    train_loader, validation = toy_loaders()
    with pytest.raises(Interrupted):
        toy_train(loaders=(KillerLoader(train_loader, 14), validation), checkpoints=Checkpoints(tmp_path), **options)
    snapshot = Checkpoints(tmp_path).load()
    (own,) = snapshot.state["processes"]
    none = {**own, "sums": torch.zeros_like(own["sums"])}
    snapshot.state["processes"] = [own, *[none] * (processes - 1)]
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
    assert torch.equal(share(0)["sums"], saved[0]["sums"])


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
