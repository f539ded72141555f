"""Plug-ins: a method, a model and a data set from one module of the user's, and no other file."""

import itertools
import sys
from importlib import metadata

import pytest

from dropattack import plugins, source
from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.runs import cli, experiment, identity, launching, record
from dropattack.runs.config import choices, compose
from dropattack.runs.experiment import CONF

DOCUMENT = (CONF.parent / "docs" / "howto" / "own-data.md").read_text()
_, METHOD, TEXTS = (
    part.partition("```")[0].replace("mymethod", "NAME")
    for part in DOCUMENT.split("# not run: a test runs it as a plug-in\n")
)
REST = """
import numpy as np
from torch import nn

from dropattack.data.splits import finish
from dropattack.data.types import ImageSplit
from dropattack.plugins import dataset, model


@dataset("NAMEdata", kind="image")
def load(*, root, cache=None, noise: float = 20.0, **subset):
    rng = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % 2
        pixels = rng.normal(60 + 120 * labels[:, None, None, None], noise, (count, 1, 6, 6))
        return ImageSplit(pixels.clip(0, 255).astype(np.uint8), labels)

    parts = {"train": split(100), "test": split(40)}
    return finish(name="NAMEdata", classes=("dark", "light"), notes={}, lenient=True, **parts, **subset)


@model("NAMEmodel", kind="image", attack_points={"input": "<input>", "hidden": "hidden.weight"})
class Net(nn.Module):
    def __init__(self, *, spec, width: int = 8):
        super().__init__()
        self.hidden, self.head = nn.Linear(36, width), nn.Linear(width, spec.classes)

    def forward(self, pixels):
        return self.head(self.hidden(pixels.flatten(1)).relu())
"""
QUIET = ["scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.progress=none"]
NUMBERS = itertools.count()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a module in the current folder; forget all plug-ins at the end."""
    monkeypatch.chdir(tmp_path)
    before, known, path = dict(plugins.registered), dict(source.others), list(sys.path)

    def make(text: str) -> str:
        name = f"plugin{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text.replace("NAME", name))
        return name

    yield make
    sys.path[:] = path
    for kept, old in ((plugins.registered, before), (source.others, known)):
        kept.clear()
        kept.update(old)


def run(*overrides: str) -> dict:
    return record.read(experiment.run(compose(CONF, [*QUIET, *overrides])))


def test_a_method_of_one_s_own_takes_one_file(write, tmp_path):
    name = write(METHOD)
    common = ["dataset=digits", "model=cnn", "trainer.max_steps=2"]
    mine = run(*common, f"plugins=[{name}]", f"reg={name}", "reg.targets=[hidden]")
    fgm = run(*common, "reg=fgm", "reg.epsilon=0.5", "reg.targets=[hidden]")
    assert mine["test"] == fgm["test"]
    assert mine["history"][0]["train"] == fgm["history"][0]["train"]
    assert mine["passes_per_step"] == 2
    assert mine["config"]["plugins"] == {name: source.digest_of_other(name)}
    assert mine["config"]["reg"] == {
        "_target_": f"{name}.MyMethod", "name": name, "targets": ["hidden"], "epsilon": 0.5,
    }  # fmt: skip
    assert "plugins" not in fgm["config"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [f"{name}.py", "outputs"]
    assert sys.path[-1] == str(tmp_path), "no file of this folder takes the place of a library"


def test_data_and_a_model_of_one_s_own(write):
    name = write(REST)
    written = run(f"plugins=[{name}]", f"dataset={name}data", f"model={name}model", "reg=dropattack",
                  "dataset.noise=5", "dataset.train_rows=60", "model.width=4", "trainer.epochs=8")  # fmt: skip
    assert written["data"]["sizes"] == {"train": 60, "validation": 10, "test": 32}
    assert written["parameters"] == 36 * 4 + 4 + 4 * 2 + 2
    assert written["test"]["accuracy"] > 0.9


def test_a_text_model_of_one_s_own_predicts(write, capsys):
    """The tokenizer of such a model names only some of its options."""
    name = write(TEXTS)
    trained = ["dataset=haiku", "model=bag", "trainer.epochs=10", "trainer.learning_rate=0.05"]
    path = experiment.run(compose(CONF, [*QUIET, f"plugins=[{name}]", *trained]))
    assert main(["predict", str(path), "a fine line", "a poor line"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["good", "bad"]


def test_the_code_of_a_plug_in_is_a_part_of_the_run(write, tmp_path):
    name = write(METHOD)
    overrides = ["dataset=digits", "model=cnn", f"plugins=[{name}]", f"reg={name}"]
    file = tmp_path / f"{name}.py"

    def known(text: str) -> tuple[str, str]:
        file.write_text(text)
        for cached in (source._tree, source._plain, source._imports):
            cached.cache_clear()
        values = experiment.resolve(compose(CONF, overrides))
        return identity.run_id(values), source.digest(source.modules_of([values["reg"]["_target_"]]))

    before = known(file.read_text())
    assert known(file.read_text().replace("L(θ) + L", "Other words")) == before
    changed = known(file.read_text().replace("passes = 2", "passes = 3"))
    assert changed[0] != before[0]
    assert changed[1] != before[1]


def test_what_a_plug_in_imports_from_its_folder_is_a_part_of_the_run(write, tmp_path):
    helper = write("import json\n\nSCALE = 1\n")
    middle = write(f"def scale():\n    from {helper} import SCALE\n\n    return SCALE\n")
    write("SCALE = 3\n")  # not imported
    alone = write(METHOD)
    name = write(f"import {middle}\n{METHOD}")

    def known(plugin: str, scale: int) -> str:
        (tmp_path / f"{helper}.py").write_text(f"import json\n\nSCALE = {scale}  # {plugin}\n")
        for cached in (source._tree, source._plain, source._imports):
            cached.cache_clear()
        values = experiment.resolve(
            compose(CONF, ["dataset=digits", "model=cnn", f"plugins=[{plugin}]", f"reg={plugin}"])
        )
        return identity.run_id(values)

    assert known(name, 1) == known(name, 1)
    assert known(name, 1) != known(name, 2)
    assert known(alone, 1) == known(alone, 2)


def test_plain_training_is_one_run_whatever_plug_in_is_named(write):
    name = write(METHOD)
    plain, named = (experiment.resolve(compose(CONF, ["dataset=digits", "model=cnn", *more]))
                    for more in ([], [f"plugins=[{name}]"]))  # fmt: skip
    assert identity.run_id(plain) == identity.run_id(named)


def test_old_weights_are_not_read_by_new_code(write, tmp_path):
    from dropattack.runs import trained
    from dropattack.runs.restore import restore

    name = write(REST)
    path = experiment.run(compose(CONF, [*QUIET, f"plugins=[{name}]", f"dataset={name}data", f"model={name}model"]))
    found = record.read(path)
    record.write(path, {**found, "config": {**found["config"], "plugins": {name: "0123456789ab"}}})
    changed = record.read(path)
    record.write(path, {**changed, "run_id": identity.run_id(changed["config"])})
    best = path.parents[1] / "checkpoints" / found["run_id"]
    best.rename(best.parent / record.read(path)["run_id"])
    text = best.parent / record.read(path)["run_id"] / "best.json"
    text.write_text(text.read_text().replace(found["run_id"], record.read(path)["run_id"]))
    for load in restore, trained.load:
        with pytest.raises(UserError, match=f"the plug-in {name} has changed since the training"):
            load(path, data=tmp_path)


def test_the_folder_of_config_dir(write, tmp_path):
    name = write(METHOD)
    (tmp_path / "mine" / "reg").mkdir(parents=True)
    (tmp_path / "mine" / "reg" / "gentle.yaml").write_text(
        f"_target_: {name}.MyMethod\nname: gentle\ntargets: [input]\nepsilon: 0.01\n"
    )
    arguments = ["--config-dir", "mine", "dataset=digits", "model=cnn", "reg=gentle"]
    prepared = launching.prepared(CONF, arguments)
    assert prepared == [*arguments[2:], f"hydra.searchpath=['file://{tmp_path}/mine']"]
    with pytest.raises(UserError, match=r"there is no such object in dropattack\.regularizers or a plug-in"):
        experiment.resolve(compose(CONF, prepared))
    values = experiment.resolve(compose(CONF, [*prepared, f"plugins=[{name}]"]))
    assert (values["reg"]["name"], values["reg"]["epsilon"]) == ("gentle", 0.01)
    with pytest.raises(UserError, match="there is no reg 'gentle'"):
        compose(CONF, arguments[2:])


@pytest.mark.parametrize(
    "arguments", [["--config-dir", "nowhere"], ["--config-dir=nowhere"], ["-cd"], ["--config-dir="]]
)
def test_a_missing_folder_of_config_dir(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(lambda: pytest.fail("a run was started"), ["dataset=digits", *arguments]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_installed_packages_name_plug_ins_in_their_entry_points(write, monkeypatch, tmp_path):
    name = write(METHOD)
    point = metadata.EntryPoint(name="theirs", value=name, group=plugins.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load_installed.cache_clear()
    try:
        values = experiment.resolve(compose(CONF, ["dataset=digits", "model=cnn", f"reg={name}"]))
        assert list(values["plugins"]) == [name]
        assert name in choices(CONF, "reg")
        without = experiment.resolve(compose(CONF, ["dataset=digits", "model=cnn"]))
        assert without["plugins"] == {}, "only what a run uses is a part of it"
    finally:
        plugins.load_installed.cache_clear()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@method('a b')\nclass A: ...\n", "letters, digits and _ only"),
        ("@method('a')\nclass A:\n    def __init__(self, model, depth): ...\n", "its option depth has no default"),
        ("@method('a')\nclass A: ...\n\n\n@method('a')\nclass B: ...\n", r"\.A already; choose another name"),
    ],
)
def test_what_cannot_be_registered(text, said, write):
    name = write(f"from dropattack.plugins import method\n\n\n{text}")
    with pytest.raises(UserError, match=said):
        compose(CONF, [f"plugins=[{name}]"])


def test_restoring_a_run_loads_its_plug_in(write, tmp_path):
    from dropattack.runs import trained
    from dropattack.runs.restore import restore

    name = write(REST)
    path = experiment.run(compose(CONF, [*QUIET, f"plugins=[{name}]", f"dataset={name}data", f"model={name}model"]))
    for load in restore, trained.load:
        plugins.registered.clear()
        source.others.clear()
        assert type(load(path, data=tmp_path).model).__name__ == "Net"
