"""Runs killed with SIGKILL at any moment end like uninterrupted runs (`make kill-test`)."""

import json
import multiprocessing
import sys

import tests.survival.__main__ as survival


def test_killed_runs_end_like_uninterrupted_ones(tmp_path, monkeypatch, capsys):
    """With the command's own processes, but forked: importing everything again would take most of the time."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(survival, "get_context", lambda kind: fork)
    monkeypatch.setattr(sys, "argv", [
        "survival", "--kills", "3", "--only", "cnn-dropattack", "--jobs", "1", "--output", str(tmp_path / "runs"),
        "--json", str(tmp_path / "kills.json"), "dataset.train_rows=320", "trainer.epochs=4",
    ])  # fmt: skip
    assert survival.main() == 0, capsys.readouterr()
    text = (tmp_path / "kills.json").read_text()
    found = json.loads(text)
    assert found["kills"] == found["equal"] == 3
    assert {row["within"] for row in found["rows"]} >= {"checkpoint", "result"}
    assert str(tmp_path) not in text
    assert (tmp_path / "kills.md").read_text().count("| yes |") == 3
