"""Runs killed with SIGKILL at any moment end like uninterrupted runs, here of a composed method (`make kill-test`)."""

import json
import multiprocessing
import sys

import pytest

from tests.survival import __main__ as survival


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_runs_end_like_uninterrupted_ones(tmp_path, monkeypatch, capsys):
    """The command, with a forked worker: a new one would import torch again."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(survival, "get_context", lambda kind: fork)
    options = ["--kills", "3", "--jobs", "1", "--only", "cnn-dropattack+rdrop"]
    options += ["--output", str(tmp_path / "runs"), "--json", str(tmp_path / "kills.json")]
    monkeypatch.setattr(sys, "argv", ["tests.survival", *options])
    assert survival.main() == 0, capsys.readouterr()
    text = (tmp_path / "kills.json").read_text()
    found = json.loads(text)
    assert found["kills"] == found["equal"] == 3
    assert {row["within"] for row in found["rows"]} >= {"checkpoint", "result"}
    assert str(tmp_path) not in text
    assert (tmp_path / "kills.md").read_text().count("| yes |") == 3
