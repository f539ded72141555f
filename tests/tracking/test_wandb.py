"""W&B may be absent, unreachable or broken: the run continues and writes nothing outside the output folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dropattack.tracking.base import NullTracker
from dropattack.tracking.wandb import WandbTracker, has_key

ROOT = Path(__file__).resolve().parents[2]
FOLLOW = """
import sys
from dropattack.tracking import wandb
wandb.INIT_SECONDS = 1
tracker = wandb.WandbTracker(project="test", folder=sys.argv[1])
tracker.start({"seed": 1, "dataset": {"root": "<data>"}}, name="n", group="g", tags=["t"])
tracker.log({"validation/accuracy": 0.5}, step=1)
tracker.finish({"test/accuracy": 0.5})
print(tracker.run_id)
"""


PUBLISH = """
import sys
from pathlib import Path
from dropattack.tracking.wandb import WandbTracker
tracker = WandbTracker(project="test", folder=sys.argv[1], group="table-t")
tracker.start({}, name="a cell", group="g", tags=[])
tracker.finish({})
tracker.start({}, name="table-t", group="g", tags=[], job="table")
tracker.publish([*Path(sys.argv[1]).parent.glob("made/*")], name="table-t-mini", kind="table")
tracker.finish({})
"""


def follow(tmp_path: Path, script: str = FOLLOW, **environment: str) -> tuple[float, subprocess.CompletedProcess]:
    """Track a run in a separate process, with no key, an empty home folder and a dead server."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC", "XDG"))}
    environment = {**kept, "HOME": str(home), "WANDB_BASE_URL": "http://127.0.0.1:9", **environment}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "outputs")], cwd=ROOT, env=environment, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    return time.monotonic() - started, done


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("key", "said"), [({}, "there is no API key"), ({"WANDB_API_KEY": "0" * 40}, "offline, because")]
)
def test_no_key_and_no_server_end_offline_and_store_no_details_of_the_machine(tmp_path, key, said):
    seconds, done = follow(tmp_path, **key)
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert seconds < 60  # 1 s for the server, and the imports on a busy machine
    assert list((tmp_path / "outputs" / "wandb").glob("offline-run-*"))
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["wandb"]
    assert files(tmp_path / "home") == []
    assert len(done.stdout.strip()) == 8
    # Uploaded by `wandb sync`; the debug logs stay here. A server that does not answer leaves the attempt's file too.
    content = b"".join(path.read_bytes() for path in (tmp_path / "outputs").rglob("*.wandb"))
    assert b"<data>" in content
    for private in (str(tmp_path / "home"), str(ROOT), sys.executable):
        assert private.encode() not in content


INHERITED = {"WANDB_RUN_ID": "theirs", "WANDB_RESUME": "must", "WANDB_NAME": "theirs", "WANDB_RUN_GROUP": "theirs",
             "WANDB_SWEEP_ID": "theirs", "WANDB_DIR": "/proc/theirs", "WANDB_TAGS": "theirs"}  # fmt: skip


def test_variables_of_another_run_are_ignored(tmp_path):
    _, done = follow(tmp_path, WANDB_MODE="offline", **INHERITED)
    assert done.returncode == 0, done.stderr
    assert "stopped" not in done.stderr
    for name in INHERITED:
        assert name in done.stderr
    (folder,) = (tmp_path / "outputs" / "wandb").glob("offline-run-*")
    assert b"theirs" not in b"".join(path.read_bytes() for path in folder.rglob("*.wandb"))
    assert done.stdout.strip() != "theirs"


@pytest.mark.parametrize(
    ("environment", "runs"),
    [({"WANDB_MODE": "dryrun"}, 1), ({"WANDB_MODE": ""}, 1), ({"WANDB_MODE": "offline", "WANDB_DISABLED": "true"}, 0)],
)
def test_other_names_of_modes(tmp_path, environment, runs):
    _, done = follow(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert "stopped" not in done.stderr
    assert len(list((tmp_path / "outputs").glob("wandb/offline-run-*"))) == runs


def test_an_unknown_mode_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(ValueError, match="WANDB_MODE=offlin"):
        WandbTracker(project="test", folder=str(tmp_path)).start({}, name="a", group="g", tags=[])


def test_a_table_and_its_pictures_are_published_beside_its_cells(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "table.md").write_text("| a |")
    Image.new("RGB", (4, 3)).save(made / "figure.png")
    _, done = follow(tmp_path, PUBLISH, WANDB_MODE="offline")
    assert (done.returncode, done.stderr) == (0, "")
    sent = {path: path.read_bytes() for path in (tmp_path / "outputs").rglob("*.wandb")}
    assert len(sent) == 2
    assert all(b"table-t" in content for content in sent.values())  # the group
    assert sum(b"cell" in content and b"table-t-mini" not in content for content in sent.values()) == 1
    (table,) = (path for path, content in sent.items() if b"table-t-mini" in content)
    assert list(table.parent.rglob("figure*.png"))  # the picture, as the run's media


def test_disabled_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = WandbTracker(project="test", folder=str(tmp_path / "outputs"))
    tracker.start({}, name="n", group="g", tags=[])
    tracker.log({"a": 1.0}, step=1)
    tracker.finish({})
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_keys_are_found(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443")
    assert not has_key()
    netrc.write_text("machine other.org login user password x\n")
    assert not has_key()
    netrc.write_text("machine wandb.example.org login user password x\n")
    assert has_key()
    netrc.write_text("broken")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()


def test_the_null_tracker_does_nothing():
    tracker = NullTracker()
    tracker.start({}, name="n", group="g", tags=[])
    tracker.log({}, step=1)
    tracker.finish({})
    assert tracker.run_id is None
