"""Runs leave and print no secrets, home folders or user names; names from the outside never become paths."""

from __future__ import annotations

import getpass
import json
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dropattack.analysis import formats, summary
from dropattack.analysis.records import read_records
from dropattack.data.cache import cached
from dropattack.errors import UserError
from dropattack.runs import cli, experiment, record
from dropattack.runs.config import compose
from dropattack.tracking.base import NullTracker
from dropattack.training import loop
from tests.hostile.case import QUIET, composed

SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2, "HF_TOKEN": "hf_QmFzZTY0LWlzaC10b2tlbg",
           "DATABASE_PASSWORD": "correct-horse-battery", "SOMETHING_ELSE": "value-of-nobodys-business"}  # fmt: skip
RUN = (*QUIET, "dataset=digits", "model=cnn", "reg=fgm", "trainer.max_steps=2", "trainer.progress=plain")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a home folder that contains the project, and an environment full of secrets."""
    home = tmp_path / "home-of-somebody"
    (home / "project").mkdir(parents=True)
    monkeypatch.chdir(home / "project")
    monkeypatch.setenv("HOME", str(home))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return home


def private(home: Path) -> list[str]:
    names = [platform.node(), getpass.getuser()]
    return [*SECRETS.values(), home.name, str(Path.cwd()), *(name for name in names if len(name) > 4)]


def go(*overrides: str) -> int:
    arguments = [*RUN, *overrides]
    return cli.main(lambda: print(experiment.run(compose(experiment.CONF, arguments))), arguments)


def written(folder: Path) -> str:
    """Return everything below a folder, with the names of the files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path.relative_to(folder)}\n{path.read_bytes().decode('latin-1')}" for path in files)


@pytest.mark.parametrize("absolute", [False, True])
def test_run_stores_and_prints_nothing_private(home, monkeypatch, capsys, absolute):
    told: list[Any] = []
    monkeypatch.setattr(NullTracker, "start", lambda self, *args, **options: told.append((args, options)))
    monkeypatch.setattr(NullTracker, "log", lambda self, *args: told.append(args))
    monkeypatch.setattr(NullTracker, "finish", lambda self, *args, **options: told.append((args, options)))
    out = home / "out" if absolute else Path("out")
    assert go(f"paths.output={out}", f"paths.data={home / 'data'}" if absolute else "paths.data=data") == 0
    said = capsys.readouterr()
    path = Path(said.out.splitlines()[-1])
    assert path.is_file()
    found = read_records(path)
    _, table, _ = summary._comparison(found)
    kept = written(out) + repr(told) + said.err + said.out.replace(str(path), "") + formats.markdown(table)
    assert '"<data>"' in kept
    for secret in private(home):
        assert secret not in kept


def test_record_of_a_failure_stores_nothing_private(home, monkeypatch, capsys):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"GET https://host/?key={SECRETS['WANDB_API_KEY']}: no {home}/cache, {sys.prefix}/lib\nmore")

    monkeypatch.setattr(loop, "train", broken)
    assert go(f"paths.output={home / 'out'}", f"paths.data={home / 'data'}") == 1
    (path,) = (home / "out" / "records").iterdir()
    assert record.read(path)["error"] == (
        "RuntimeError: GET https://host/?key=<WANDB_API_KEY>: no ~/cache, <python>/lib\nmore"
    )
    for secret in private(home):
        assert secret not in path.read_text()
    said = capsys.readouterr()
    assert "Traceback" in said.err  # our own bugs are shown in full
    for secret in SECRETS.values():
        assert secret not in said.err + said.out


def test_wandb_gets_nothing_private(home, monkeypatch, capsys):
    told: list[Any] = []
    run = SimpleNamespace(id="r", log=lambda *a, **k: told.append(a), finish=lambda **k: None, summary={})
    wandb = SimpleNamespace(
        Settings=lambda **options: options, init=lambda **options: told.append(options) or run, teardown=lambda: None
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert go("tracker=wandb", "tracker.group=../../evil", f"paths.data={home / 'data'}") == 0
    asked = told[0]
    assert asked["mode"] == "online"  # there is a key, which only wandb reads
    switches = asked.pop("settings")
    assert all(switches[name] for name in ("x_disable_meta", "x_disable_machine_info", "disable_git"))
    assert Path(asked.pop("dir")) == Path("out").resolve()
    for secret in private(home):
        assert secret not in repr(told)
    assert sorted(path.name for path in home.iterdir()) == ["project"]
    assert sorted(path.name for path in Path().iterdir()) == ["out"]


NAMES = [
    "../../evil",
    "/evil",
    "..",
    ".",
    "",
    "-rf",
    "a/b",
    "a\\b",
    "a\nb",
    "a\0b",
    "x" * 61,
    "x" * 5000,
    "é",
    "a b",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("key", ["dataset.name", "model.name", "reg.name", "tracker.name", "settings.name"])
def test_names_do_not_become_paths(key, name):
    config = composed(experiment.CONF, RUN).copy()
    group, _, leaf = key.partition(".")
    config[group][leaf] = name
    with pytest.raises(UserError, match=rf"{key}=.* is invalid: it must be a name"):
        experiment.resolve(config)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_names_do_not_leave_the_cache(tmp_path, name):
    folder = tmp_path / "cache"
    for _ in range(2):
        arrays, values = cached(folder, name, {"k": 1}, lambda: ({"a": np.arange(3)}, {"v": 1}))
        assert arrays["a"].tolist() == [0, 1, 2]
        assert values == {"v": 1}
    assert len(list(folder.iterdir())) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_longest_names_make_valid_file_names(tmp_path):
    config = composed(experiment.CONF, RUN).copy()
    for group in ("dataset", "model", "reg"):
        config[group]["name"] = 60 * "x"
    values = experiment.resolve(config) | {"seed": 2**32 - 1, "paths": {"output": str(tmp_path), "data": "data"}}
    path = record.write(record.record_path(values), {**record.blank(values), "error": "none"})
    assert json.loads(path.read_text())["status"] == "failed"


def test_only_folders_come_from_the_environment(home):
    assert compose(experiment.CONF, ["paths.output=${oc.env:HOME}/out"]).paths.output == f"{home}/out"
    for key in ("dataset.split", "tracker.entity", "model.name"):
        with pytest.raises(UserError, match="reads the environment") as error:
            compose(experiment.CONF, [f"{key}=${{oc.env:HF_TOKEN}}"])
        assert SECRETS["HF_TOKEN"] not in str(error.value)
