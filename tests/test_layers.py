"""The dependencies between folders: all are listed here, and there are no cycles."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {
    "batch",
    "errors",
    "files",
    "jsonl",
    "plugins",
    "progress",
    "provenance",
    "source",
    "statistics",
}  # modules at the package's root
# The allowed imports of each folder. The library imports nothing else of the project; training code knows no configs.
MAY_IMPORT: dict[str, set[str]] = {
    **{module: set() for module in GROUND},
    "jsonl": {"errors", "files"},
    "plugins": {"errors", "source"},
    "regularizers": set(),
    "integrations": {"regularizers"},
    "tracking": set(),
    "data": {"batch", "errors", "files"},
    "models": {"data", "errors"},
    "training": {"batch", "errors", "files", "progress", "regularizers"},
    "probes": {"data", "training", *GROUND},
    "runs": {"data", "models", "probes", "regularizers", "tracking", "training", *GROUND},
    "sweeps": {"runs", "tracking", *GROUND},
    "gpu": {"data", "runs", "sweeps", *GROUND},
    "analysis": {"probes", "runs", *GROUND},
    "report": {"analysis", "probes", "runs", *GROUND},
}
MAY_IMPORT["commands"] = {*MAY_IMPORT, "__version__"} - {"gpu", "integrations"}
MAY_IMPORT["__main__"] = {"commands"}
ABOVE = {"benchmarks", "scripts", "tests"}  # they may import all of the package, and nothing of it imports them
KNOW_HYDRA = {"commands", "runs", "sweeps"}


def imported(source: str) -> Iterator[str]:
    """Yield every module that the source imports, at the top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(parts: tuple[str, ...]) -> str:
    """Return the folder below dropattack/, or the module at its root, of a path or a dotted name."""
    return parts[1] if parts[0] == "dropattack" and len(parts) > 1 else parts[0]


def modules() -> dict[tuple[str, ...], str]:
    """Map (package, folder, …, module) to source, for the whole package."""
    paths = sorted((ROOT / "dropattack").rglob("*.py"))
    return {path.relative_to(ROOT).with_suffix("").parts: path.read_text() for path in paths}


def strangers(where: str, source: str) -> set[str]:
    """Return the forbidden imports from the project in a module of the folder `where`."""
    rooms = {room(tuple(name.split("."))) for name in imported(source) if name.split(".")[0] in {"dropattack", *ABOVE}}
    return rooms - MAY_IMPORT[where] - {where}


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folders_only_import_lower_folders(folder):
    own = {parts: source for parts, source in modules().items() if room(parts) == folder}
    assert own
    assert {parts: found for parts, source in own.items() if (found := strangers(folder, source))} == {}


def test_every_folder_is_listed():
    assert {room(parts) for parts in modules()} - {"__init__"} == set(MAY_IMPORT)


def test_folders_have_no_cycles():
    TopologicalSorter(MAY_IMPORT).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**MAY_IMPORT, "probes": {"runs"}}).prepare()


def test_modules_have_no_cycles():
    known = set(modules())
    graph = {}
    for parts, source in modules().items():
        names = [tuple(name.split(".")) for name in imported(source)]
        graph[parts] = {near for name in names for near in (name, name[:-1]) if near in known} - {parts}
    TopologicalSorter(graph).prepare()


def test_only_commands_runs_and_sweeps_import_hydra():
    for parts, source in modules().items():
        if room(parts) not in KNOW_HYDRA:
            assert not {name.split(".")[0] for name in imported(source)} & {"hydra", "omegaconf"}, "/".join(parts)


def test_the_library_imports_torch_and_the_standard_library_alone():
    for parts, source in modules().items():
        if room(parts) == "regularizers":
            assert {n.split(".")[0] for n in imported(source)} <= {"dropattack", "torch", *sys.stdlib_module_names}


def test_imports_are_found_at_the_top_and_within_functions():
    assert strangers("data", "from dropattack.runs import record") == {"runs"}
    assert strangers("data", "def f():\n    from dropattack import sweeps") == {"sweeps"}
    assert strangers("regularizers", "import dropattack.errors") == {"errors"}
    assert strangers("report", "from benchmarks import timing") == {"benchmarks"}
    assert strangers("data", "from dropattack.errors import UserError\nimport dropattack.data.types") == set()
