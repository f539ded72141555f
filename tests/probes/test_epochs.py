"""Gradient norms during training: recorded in the history if requested, without affecting the run."""

import pytest

from dropattack.errors import UserError
from dropattack.runs import record
from tests.probes.conftest import train


def test_norms_are_recorded_and_change_nothing_else(runs, tmp_path):
    path = train(tmp_path, "reg=none", "trainer.probe_gradients=2")
    plain, probed = record.read(runs[0]), record.read(path)
    assert probed["run_id"] == plain["run_id"]
    assert probed["test"] == plain["test"]
    for entry, other in zip(probed["history"], plain["history"], strict=True):
        assert set(entry["gradients"]) == {"input", "hidden", "weights"}
        assert all(value > 0 for value in entry["gradients"].values())
        assert entry["validation"] == other["validation"]
    assert "gradients" not in plain["history"][0]
    assert probed["history"][0]["gradients"] != probed["history"][-1]["gradients"]


def test_rejects_invalid_number_of_batches(tmp_path):
    with pytest.raises(UserError, match="probe_gradients=-1 is invalid"):
        train(tmp_path, "trainer.probe_gradients=-1")
