"""Which folder imports which: every arrow between two folders is listed here, and none leads in a circle."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"errors", "files", "progress", "provenance", "source", "statistics"}  # modules at the package's root
# What each folder may import. The library imports nothing else of the project; what trains knows nothing of configs.
MAY_IMPORT: dict[str, set[str]] = {
    **{module: set() for module in GROUND},
    "regularizers": set(),
    "integrations": {"regularizers"},
    "tracking": set(),
    "data": {"errors", "files"},
    "models": {"data", "errors"},
    "training": {"errors", "files", "progress", "regularizers"},
    "probes": {"data", "training", *GROUND},
    "runs": {"data", "models", "probes", "regularizers", "tracking", "training", *GROUND},
    "sweeps": {"runs", "tracking", *GROUND},
    "gpu": {"data", "runs", "sweeps", *GROUND},
    "analysis": {"probes", "runs", *GROUND},
    "report": {"analysis", "probes", "runs", *GROUND},
}
ABOVE = {"benchmarks", "scripts", "tests"}  # they may import all of the package, and nothing of it imports them
KNOW_HYDRA = {"runs", "sweeps"}


def imported(source: str) -> Iterator[str]:
    """Every module that the source imports, at its top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(parts: tuple[str, ...]) -> str:
    """The folder below dropattack/, or the module at its root, that a path or a dotted name belongs to."""
    return parts[1] if parts[0] == "dropattack" and len(parts) > 1 else parts[0]


def modules() -> dict[tuple[str, ...], str]:
    """(package, folder, …, module) → source, of the package."""
    paths = sorted((ROOT / "dropattack").rglob("*.py"))
    return {path.relative_to(ROOT).with_suffix("").parts: path.read_text() for path in paths}


def strangers(where: str, source: str) -> set[str]:
    """What a module of the folder `where` imports of the project and may not."""
    rooms = {room(tuple(name.split("."))) for name in imported(source) if name.split(".")[0] in {"dropattack", *ABOVE}}
    return rooms - MAY_IMPORT[where] - {where}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_what_lies_below_it_alone(folder):
    own = {parts: source for parts, source in modules().items() if room(parts) == folder}
    assert own
    assert {parts: found for parts, source in own.items() if (found := strangers(folder, source))} == {}


def test_every_folder_has_its_place():
    assert {room(parts) for parts in modules()} - {"__init__"} == set(MAY_IMPORT)


def test_no_folder_is_in_a_circle():
    TopologicalSorter(MAY_IMPORT).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**MAY_IMPORT, "probes": {"runs"}}).prepare()


def test_no_module_is_in_a_circle():
    known = set(modules())
    graph = {}
    for parts, source in modules().items():
        names = [tuple(name.split(".")) for name in imported(source)]
        graph[parts] = {near for name in names for near in (name, name[:-1]) if near in known} - {parts}
    TopologicalSorter(graph).prepare()


def test_hydra_stays_where_configs_are_composed():
    for parts, source in modules().items():
        if room(parts) not in KNOW_HYDRA:
            assert not {name.split(".")[0] for name in imported(source)} & {"hydra", "omegaconf"}, "/".join(parts)


def test_the_library_imports_torch_and_the_standard_library_alone():
    for parts, source in modules().items():
        if room(parts) == "regularizers":
            assert {n.split(".")[0] for n in imported(source)} <= {"dropattack", "torch", *sys.stdlib_module_names}


def test_a_stranger_is_found_at_the_top_and_within_a_function():
    assert strangers("data", "from dropattack.runs import record") == {"runs"}
    assert strangers("data", "def f():\n    from dropattack import sweeps") == {"sweeps"}
    assert strangers("regularizers", "import dropattack.errors") == {"errors"}
    assert strangers("report", "from benchmarks import timing") == {"benchmarks"}
    assert strangers("data", "from dropattack.errors import UserError\nimport dropattack.data.types") == set()
