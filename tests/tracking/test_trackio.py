"""A real run tracked by the real trackio, read back from its file."""

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec

import pytest
from PIL import Image

from dropattack.runs.experiment import CONF

if find_spec("trackio") is None:  # importing it takes a second, and only other processes use it
    pytest.skip("trackio is not installed", allow_module_level=True)

RUN = ["dataset=digits", "model=cnn", "reg=fgm", "scale=smoke", "trainer.epochs=2", "tracker=trackio"]


def test_a_run_is_in_the_local_dashboard_and_stdout_ends_with_the_record(tmp_path):
    run = subprocess.run(
        [sys.executable, "run.py", *RUN, f"paths.output={tmp_path}"], cwd=CONF.parent, capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (record,) = (tmp_path / "records").glob("*.json")
    assert run.stdout.splitlines() == [str(record)]
    with sqlite3.connect(tmp_path / "trackio" / "dropattack.db") as file:
        logged = [(name, json.loads(row)) for name, row in file.execute("SELECT run_name, metrics FROM metrics")]
        configs = [json.loads(row) for (row,) in file.execute("SELECT config FROM configs")]
    assert {name for name, _ in logged} == {record.stem}
    rows = [row for _, row in logged]
    assert [row["validation/accuracy"] for row in rows if "validation/accuracy" in row] == [
        epoch["validation"]["accuracy"] for epoch in json.loads(record.read_text())["history"]
    ]
    assert rows[-1]["summary/test/accuracy"] == json.loads(record.read_text())["test"]["accuracy"]
    assert configs[0]["tags"][:4] == ["digits", "cnn", "fgm", "smoke"]
    commit = json.loads(record.read_text())["commit"]
    assert configs[0]["tags"][4:] == ([commit["hash"][:10]] if commit else [])
    assert not {path.name for path in tmp_path.iterdir()} - {"records", "checkpoints", "cache", "trackio"}


PUBLISH = """
import sys
from pathlib import Path
from dropattack.tracking.trackio import TrackioTracker
tracker = TrackioTracker(project="test", folder=sys.argv[1])
tracker.start({}, name="table-t", group="g", tags=[], job="table")
tracker.publish([*Path(sys.argv[1]).glob("made/*")], name="table-t-mini", kind="table")
tracker.finish({})
"""


def test_a_table_is_published(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "table.md").write_text("| a |")
    Image.new("RGB", (4, 3)).save(made / "figure.png")
    done = subprocess.run([sys.executable, "-c", PUBLISH, str(tmp_path)], cwd=CONF.parent, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    with sqlite3.connect(tmp_path / "trackio" / "test.db") as file:
        assert file.execute("SELECT name, type FROM artifacts ORDER BY name").fetchall() == [
            ("table-t-mini-figure.png", "table"), ("table-t-mini-table.md", "table")]  # fmt: skip
