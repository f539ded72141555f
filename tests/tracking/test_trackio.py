"""A real run tracked by the real trackio, read back from its file."""

import json
import multiprocessing
import sqlite3
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from dropattack.commands.main import main
from dropattack.tracking.trackio import TrackioTracker

if find_spec("trackio") is None:  # importing it takes a second, and only another process uses it
    pytest.skip("trackio is not installed", allow_module_level=True)
if sys.platform == "win32":
    pytest.skip("forks", allow_module_level=True)

RUN = ["dataset=digits", "model=cnn", "reg=fgm", "scale=smoke", "trainer.device=cpu", "trainer.epochs=2",
       "tracker=trackio"]  # fmt: skip


def track(folder: Path) -> None:
    """Train, and publish a table."""
    assert main(["run", *RUN, f"paths.output={folder}"]) == 0
    tracker = TrackioTracker(project="test", folder=str(folder))
    tracker.start({}, name="table-t", group="g", tags=[], job="table")
    tracker.publish([*(folder / "made").iterdir()], name="table-t-mini", kind="table")
    tracker.finish({})


def test_a_run_and_a_table_are_in_the_local_dashboard_and_stdout_is_the_record(tmp_path, capfd):
    made = tmp_path / "made"
    made.mkdir()
    (made / "table.md").write_text("| a |")
    Image.new("RGB", (4, 3)).save(made / "figure.png")
    child = multiprocessing.get_context("fork").Process(target=track, args=(tmp_path,))
    child.start()
    child.join(120)
    out, err = capfd.readouterr()
    assert child.exitcode == 0, err
    (record,) = (tmp_path / "records").glob("*.json")
    assert out.splitlines() == [str(record)]
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
    assert not {path.name for path in tmp_path.iterdir()} - {"records", "checkpoints", "cache", "trackio", "made"}
    with sqlite3.connect(tmp_path / "trackio" / "test.db") as file:
        assert file.execute("SELECT name, type FROM artifacts ORDER BY name").fetchall() == [
            ("table-t-mini-figure.png", "table"), ("table-t-mini-table.md", "table")]  # fmt: skip
