"""Modules as syntax trees: which ones a run uses, and that docstrings do not count as code."""

import re
from pathlib import Path

import pytest

from dropattack import source
from dropattack.errors import UserError
from dropattack.runs import build, record
from dropattack.runs.config import compose
from dropattack.runs.experiment import CONF, resolve

BEFORE = '''"""Prose."""
import math  # why


def area(r: float) -> float:
    """More prose."""
    if r < 0:
        raise ValueError(f"{r} is negative")
    return math.pi * r**2
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Replace our package by another; `write(name, text)` adds a module to it."""
    monkeypatch.setattr(source, "ROOT", tmp_path)

    def write(name: str, text: str) -> str:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for cached in (source._tree, source._plain, source._imports):
            cached.cache_clear()
        return f"dropattack.{name}"

    yield write
    for cached in (source._tree, source._plain, source._imports):
        cached.cache_clear()


PROSE = [
    BEFORE.replace("Prose.", "Other words."),
    BEFORE.replace('    """More prose."""\n', ""),
    BEFORE.replace("  # why", ""),
    BEFORE.replace("is negative", "has to be at least 0"),
    BEFORE.replace("math.pi * r**2", "(\n        math.pi * r ** 2\n    )"),
]
CODE = [
    BEFORE.replace("r**2", "r**3"),
    BEFORE.replace("r < 0", "r <= 0"),
    BEFORE.replace("ValueError", "TypeError"),
    BEFORE + "\n\nPI = 3\n",
]


def test_docstrings_do_not_change_the_digest_but_code_does(package):
    name = package("one", BEFORE)
    before = source.digest([name])
    for text in PROSE:
        assert text != BEFORE
        package("one", text)
        assert source.digest([name]) == before, text
    for text in CODE:
        package("one", text)
        assert source.digest([name]) != before, text


def test_imports_are_followed_but_not_reexports(package):
    package("__init__", "")
    package("deep", "X = 1\n")
    package("types_alone", "T = int\n")
    package("late", "from dropattack.deep import X\n")
    package("room.__init__", "from dropattack.room.one import One\nfrom dropattack.room.other import Other\n")
    package("room.one", "class One:\n    def __init__(self, a, *, b=1): ...\n")
    package("room.other", "class Other: ...\n")
    name = package("top", "from typing import TYPE_CHECKING\nfrom dropattack.room import One\n"
                   "if TYPE_CHECKING:\n    from dropattack.types_alone import T\n"
                   "def f():\n    from dropattack import late\n")  # fmt: skip
    assert source.modules_of([name]) == [f"dropattack.{m}" for m in ("deep", "late", "room.one", "top")]
    assert source.modules_of(["dropattack.room.Other"]) == ["dropattack.room.other"]
    assert source.options("dropattack.room.One") == ["a", "b"]


def test_options_are_those_of_the_signature():
    """Compared with the real constructors of all choices in conf/ that can be imported."""
    import inspect
    from importlib import import_module

    from dropattack.runs.yaml_io import read_yaml

    seen = 0
    for group in ("dataset", "model", "reg", "tracker"):
        for path in sorted((CONF / group).glob("*.yaml")):
            name = read_yaml(path).get("_target_")
            if name is None:  # it takes another choice's
                continue
            module, _, last = name.rpartition(".")
            parameters = inspect.signature(getattr(import_module(module), last)).parameters.values()
            named = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
            own = source.options(name)
            assert own is None or named <= set(own), name
            assert own is None or len(named) == len(own) or any(p.kind is p.VAR_KEYWORD for p in parameters), name
            seen += own is not None
    assert seen >= 15


def test_the_digest_covers_only_the_code_of_the_run(monkeypatch):
    def code(*overrides: str) -> dict[str, str]:
        return record.code(resolve(compose(CONF, ["dataset=digits", "model=cnn", "tracker=none", *overrides])))

    fgm, sam = code("reg=fgm"), code("reg=sam")
    assert fgm["code"] == sam["code"]
    assert fgm["method"] != sam["method"]
    touched = source._plain.__wrapped__

    def plain(path: Path) -> str:
        return "changed" if path.name == "sam.py" else touched(path)

    monkeypatch.setattr(source, "_plain", plain)
    assert code("reg=fgm") == fgm
    assert code("reg=sam") == {**sam, "method": code("reg=sam")["method"]}
    assert code("reg=sam")["method"] != sam["method"]


def test_modules_excluded_from_the_digest_exist():
    assert all(source.path_of(module) is not None for module in source.NEUTRAL)


@pytest.mark.parametrize(
    ("group", "changes", "said"),
    [
        ("reg", {"_target_": "dropattack.regularizers.FGMM"}, "no such object in dropattack.regularizers or a plug-in"),
        ("reg", {"_target_": "os.system"}, "reg._target_=os.system"),
        ("dataset", {"path": "x"}, "dataset=digits has no option path; options: root, split, cache, validation_fract"),
        ("model", {"spec": 1}, "model.spec cannot be set in a config"),
        ("tracker", {"_target_": "dropattack.tracking.wandb"}, "there is no such object"),
    ],
)
def test_a_wrong_target_or_option_is_refused_without_an_import(group, changes, said, monkeypatch):
    values = resolve(compose(CONF, ["dataset=digits", "model=cnn", "tracker=none"]))
    monkeypatch.setattr(build, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(UserError, match=said) as caught:
        build.check_targets({**values, group: {**values[group], **changes}})
    assert "subset" not in re.split(r"\W+", str(caught.value))
