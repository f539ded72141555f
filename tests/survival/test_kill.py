"""Runs killed with SIGKILL at any moment end like uninterrupted runs, here of a composed method (`make kill-test`)."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_runs_end_like_uninterrupted_ones(tmp_path):
    command = [sys.executable, "-m", "tests.survival", "--kills", "3", "--jobs", "1", "--only", "cnn-dropattack+rdrop"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "runs"), "--json", str(tmp_path / "kills.json")], cwd=ROOT,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "kills.json").read_text()
    found = json.loads(text)
    assert found["kills"] == found["equal"] == 3
    assert {row["within"] for row in found["rows"]} >= {"checkpoint", "result"}
    assert str(tmp_path) not in text
    assert (tmp_path / "kills.md").read_text().count("| yes |") == 3
