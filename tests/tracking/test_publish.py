"""Published files go to the tracker of the config, in a separate run of the group."""

import pytest

from dropattack.runs import build
from dropattack.sweeps.publish import publish


class Recorder:
    def __init__(self, options):
        self.options, self.calls, self.run_id = options, [], None

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.fixture
def recorders(monkeypatch):
    made = []

    def instantiate(kind, options):
        made.append(Recorder(options))
        return made[-1]

    monkeypatch.setattr(build, "instantiate", instantiate)
    return made


def test_files_go_to_the_group_in_one_run(recorders, tmp_path):
    picture = tmp_path / "a.png"
    about = {"dataset": "mnist", "split": "test"}
    overrides = ["tracker=trackio", f"paths.output={tmp_path}"]
    publish([picture], name="landscape-mnist", kind="landscape", group="table-vision", about=about, overrides=overrides)
    (recorder,) = recorders
    assert (recorder.options["group"], recorder.options["folder"]) == ("table-vision", str(tmp_path))
    names = [name for name, *_ in recorder.calls]
    assert names == ["start", "publish", "finish"]
    _, (config,), started = recorder.calls[0]
    assert config == about
    assert started == {"name": "landscape-mnist", "group": "table-vision", "tags": ["mnist"], "job": "landscape"}
    assert recorder.calls[1][1:] == (([picture],), {"name": "landscape-mnist", "kind": "landscape"})


def test_nothing_is_published_without_a_tracker(recorders):
    publish([], name="n", kind="table", group="g", about={}, overrides=["tracker=none"])
    assert recorders == []
