"""The overhead of an epoch: what is counted where."""

import json
import time

import pytest

from benchmarks import epoch


def test_smoke(tmp_path, capsys):
    output = tmp_path / "epoch.json"
    assert epoch.main(["--only", "digits/cnn/smoke", "--steps", "3", "--output", str(output)]) == 0
    (cell,) = json.loads(output.read_text())["cells"]
    assert cell["steps"] == 3 < cell["steps_an_epoch"]
    assert 0 < cell["order"] < cell["outside"] < 1
    assert sum(cell[part] for part in ("outside", "backward", "optimizer")) == pytest.approx(1)
    assert "| digits | cnn | smoke | 16 | 3 of 4 |" in capsys.readouterr().out


def test_missing_data_is_reported_and_left_out(monkeypatch, capsys):
    def missing(*_, **__):
        raise epoch.UserError("no data here")

    monkeypatch.setattr(epoch, "measure", missing)
    assert epoch.main(["--only", "mnist/cnn/mini"]) == 0
    assert "| mnist | cnn | mini | no data here" in capsys.readouterr().out


def test_meter_counts_nested_calls():
    meter = epoch.Meter()
    busy = meter.timed("busy", _burn)
    busy(0.02)
    busy(0.02)
    assert 0.04 <= meter.seconds["busy"] < 0.4


def test_broken_promise_is_marked():
    cell = {"dataset": "a", "model": "b", "scale": "mini", "batch": 8, "steps": 2, "steps_an_epoch": 2,
            "seconds_a_step": 0.1, "order": 0.0}  # fmt: skip
    page = epoch.table([{**cell, "outside": 0.02}, {**cell, "outside": 0.04}]).splitlines()
    assert "above" not in page[2]
    assert "above" in page[3]


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
