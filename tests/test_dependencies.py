"""Every package that is imported is declared in pyproject.toml, in the extra of those who need it."""

import re
import sys
from functools import cache
from importlib import metadata

import pytest

from tests.conftest import ROOT
from tests.test_layers import imported
from tests.test_project import project_files

OWN = {"benchmarks", "docs", "dropattack", "examples", "scripts", "tests"}
SKIPPED_WITHOUT = {"timm"}  # its tests are skipped where it is not installed


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Return the packages of pyproject.toml's lists of these names."""
    lists = re.findall(rf"^(?:{'|'.join(extras)}) = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert len(lists) == len(extras)
    return {normal(name) for name in re.findall(r'"([\w.-]+)(?:\[\w+\])?[><=]', " ".join(lists))}


@cache
def owners() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def undeclared(sources: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """Map each module that none of `packages` provides to the files that import it; `sources` maps path to text."""
    found: dict[str, set[str]] = {}
    for path, source in sources.items():
        for module in {name.partition(".")[0] for name in imported(source)}:
            # In an editable installation or without one, a package that is not installed has its module's name.
            providers = {normal(name) for name in owners().get(module, [module])}
            near = {
                other.rpartition("/")[2] for other in sources if other.rpartition("/")[0] == path.rpartition("/")[0]
            }
            own = module in OWN or f"{module}.py" in near or module in sys.stdlib_module_names
            if not own and not providers & packages:
                found.setdefault(module, set()).add(path)
    return found


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    files = [path.relative_to(ROOT).as_posix() for path in project_files() if path.suffix == ".py"]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in files}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("dropattack/regularizers/", "dropattack/__init__.py"), ("dependencies",)),
        (("dropattack/integrations/lightning.py",), ("dependencies", "dev")),  # Lightning's types
        (("dropattack/", "run.py", "scripts/"), ("dependencies", "experiments", "ray", "slurm")),
        (("benchmarks/", "examples/", "tests/"), ("dependencies", "experiments", "dev", "ray")),
        (("docs/",), ("dependencies", "docs")),
    ],
)
def test_every_import_is_declared(sources, folders, extras):
    chosen = {path: text for path, text in sources.items() if path.startswith(folders)}
    assert chosen
    chosen.pop("dropattack/integrations/lightning.py" if "dev" not in extras else "", None)
    assert undeclared(chosen, declared(*extras) | SKIPPED_WITHOUT) == {}


def test_an_undeclared_import_is_found():
    source = {"a/b.py": "import numpy.linalg\ndef f():\n    from yaml import load\nimport sys, b, tests.conftest"}
    assert undeclared(source, {"numpy"}) == {"yaml": {"a/b.py"}}
    assert undeclared(source, {"numpy", "pyyaml"}) == {}
