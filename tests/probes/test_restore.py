"""A record restores the network that was tested; anything else is rejected."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dropattack.errors import UserError
from dropattack.runs import record
from dropattack.runs.restore import restore
from dropattack.training.evaluate import evaluate

DATA = Path("data")


def test_restored_model_reproduces_the_recorded_result(restored):
    test = evaluate(restored.model, restored.batches("test", size=50), classes=10)
    recorded = {name: value for name, value in restored.record["test"].items() if name != "correct"}
    assert test == pytest.approx(recorded, rel=1e-6)
    assert not restored.model.training
    assert restored.points == {"input": "<input>", "hidden": "hidden.weight"}


def test_rows_are_the_same_in_every_call_and_for_every_run(runs):
    first, second = (restore(path, data=DATA).batches("train", rows=40, size=16) for path in runs)
    assert [len(batch.labels) for batch in first] == [16, 16, 8]
    assert all(torch.equal(a.inputs["pixels"], b.inputs["pixels"]) for a, b in zip(first, second, strict=True))


def test_random_batches_are_disjoint(restored):
    batches = restored.random_batches("train", count=3, rows=50)
    rows = torch.cat([batch.inputs["pixels"] for batch in batches]).flatten(1)
    assert [len(batch.labels) for batch in batches] == [17, 17, 16]
    assert len(rows.unique(dim=0)) == 50
    with pytest.raises(UserError, match="cannot split 2 rows of train into 3 batches"):
        restored.random_batches("train", count=3, rows=2)
    with pytest.raises(UserError, match="no split 'dev'"):
        restored.batches("dev")


def test_errors_name_the_record_and_the_fault(runs, changed):
    output = runs[0].parents[1]
    content = record.read(runs[0])
    with pytest.raises(UserError, match="a run that diverged"):
        restore(changed(status="diverged", test=None), data=DATA)
    with pytest.raises(UserError, match="its config does not match its run_id"):
        restore(changed(config={**content["config"], "seed": 7}), data=DATA)
    with pytest.raises(UserError, match="its weights are not in"):
        restore(changed(), data=DATA)
    with pytest.raises(UserError, match="fingerprint differs"):
        restore(changed(data={**content["data"], "fingerprint": "0"}), data=DATA, output=output)
    with pytest.raises(UserError, match="there is no record"):
        restore(Path("nowhere.json"), data=DATA)


def test_rejects_weights_of_another_run_or_model(runs, changed, tmp_path):
    run_id = record.read(runs[0])["run_id"]
    folder = shutil.copytree(runs[0].parents[1] / "checkpoints" / run_id, tmp_path / "checkpoints" / run_id)
    path = changed()
    restore(path, data=DATA)
    save_file({"head.weight": torch.zeros(2, 2)}, folder / "best.safetensors")
    with pytest.raises(UserError, match="do not fit the model"):
        restore(path, data=DATA)
    (folder / "best.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="cannot be read"):
        restore(path, data=DATA)
    save_file({"head.weight": torch.zeros(2, 2)}, folder / "best.safetensors")
    (folder / "best.json").write_text(json.dumps({"run_id": "another"}))
    with pytest.raises(UserError, match="holds the weights of run another"):
        restore(path, data=DATA)
