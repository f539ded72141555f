"""Concurrent runs: they run and are timed; the gain can only be measured on a GPU."""

import json
import multiprocessing
import sys

import pytest
import torch

from benchmarks import many


@pytest.mark.skipif(sys.platform == "win32", reason="processes that are slow to start")
def test_smoke(tmp_path, capsys, monkeypatch):
    if not torch.cuda.is_available():  # forks have imported everything, but cannot use a GPU
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(many.multiprocessing, "get_context", lambda kind: fork)
    output = tmp_path / "many.json"
    options = ["--runs", "2", "--steps", "1", "--rounds", "1", "--batch", "2", "--device", "cpu"]
    assert many.main([*options, "--output", str(output)]) == 0
    (found,) = json.loads(output.read_text())["cells"]
    assert found["one_by_one"] > 0
    assert found["gain"] == pytest.approx(found["one_by_one"] / found["at_once"])
    assert "2 runs of 1 steps (mnist-lenet, dropattack) on cpu" in capsys.readouterr().out


def test_rejects_numbers_below_one(capsys):
    with pytest.raises(SystemExit):
        many.main(["--runs", "0"])
    assert "at least 1" in capsys.readouterr().err
