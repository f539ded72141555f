"""Apply each fault of `faults/` to a copy of the project and check that its tests fail: `python -m tests.mutations`.

It prints a line for each fault: what came of it, the seconds, and what it breaks. `--table` writes which test catches
each fault. The exit status is 1 unless all faults are caught.
"""

import argparse
import gc
import importlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutations.fault import Fault
from tests.mutations.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("dropattack", "tests", "conf", "scripts", "benchmarks", "run.py", "pyproject.toml")
# Imported once, before the tests of each fault run in a fork: these imports take most of their time.
IMPORTED = (
    "torch", "accelerate", "transformers.models.bert.modeling_bert", "hydra", "omegaconf", "pandas", "hypothesis",
    "statsmodels.stats.multitest", "pytest",
)  # fmt: skip
SECONDS = 300
CAUGHT, NOT_CAUGHT = "caught", "NOT CAUGHT"
LOG, FAILED = "pytest.log", "failed.txt"  # pytest's output, and the test that failed
TABLE = ROOT / "results" / "survival" / "faults.md"


def problem(fault: Fault, root: Path = ROOT) -> str | None:
    """Why a fault cannot be applied to the code below `root`; None if it can."""
    path = root / "dropattack" / fault.path
    count = path.read_text(encoding="utf-8").count(fault.old) if path.exists() else 0
    return None if count == 1 else f"its text occurs {count} times in {fault.path}"


def copy_project(to: Path) -> None:
    """Copy what the faults are in and what tests may write to; link the rest (results, docs, data)."""
    for path in ROOT.iterdir():
        if path.name not in COPIED:
            (to / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, to / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(path, to / path.name)


def attempt(fault: Fault, project: Path) -> str:
    """Run a fault's tests with the fault in `project`; returns what came of it. Without it, `make test` runs them."""
    if found := problem(fault, project):
        return f"DOES NOT APPLY: {found}"
    path = project / "dropattack" / fault.path
    original = path.read_text(encoding="utf-8")
    write(path, original.replace(fault.old, fault.new))
    try:
        code = run_tests(project, fault.tests.split(), fault.chosen)
    finally:
        write(path, original)
    return {0: NOT_CAUGHT, 1: CAUGHT}.get(code, f"NO RESULT: pytest's exit code is {code}")


def write(path: Path, text: str) -> None:
    """Write a module and remove its bytecode, which Python would keep if the file changed twice within a second."""
    path.write_text(text, encoding="utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def run_tests(project: Path, tests: Sequence[str], chosen: str) -> int:
    """Pytest's exit code in a fork of this process; its output is in the `LOG` of `project`. 124 after `SECONDS`."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(project, tests, chosen))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return 124
    return process.exitcode


class _Failed:
    """A plug-in of pytest that writes the name of the first failed test to `FAILED`."""

    def __init__(self, project: Path) -> None:
        self._file = project / FAILED

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self._file.exists():
            self._file.write_text(report.nodeid, encoding="utf-8")


def _pytest(project: Path, tests: Sequence[str], chosen: str) -> None:
    import pytest

    os.chdir(project)
    os.environ["PYTHONPATH"] = str(project)
    sys.path[:] = [str(project), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "dropattack")]:
        del sys.modules[name]
    (project / FAILED).unlink(missing_ok=True)
    log = os.open(project / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", *(["-k", chosen] if chosen else [])]
    code = int(pytest.main([*options, *tests], plugins=[_Failed(project)]))
    import dropattack

    is_copy = Path(str(dropattack.__file__)).resolve().parent == (project / "dropattack").resolve()
    sys.stdout.flush()
    os._exit(code if is_copy else 125)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check that every deliberate fault makes its tests fail.")
    parser.add_argument("-k", default="", metavar="TEXT", help="try only faults with this in their path or description")
    parser.add_argument("--table", action="store_true", help=f"write the results into {TABLE.relative_to(ROOT)}")
    parser.add_argument("--new", action="store_true", help="try only faults that are not in that file")
    parser.add_argument("--show", action="store_true", help="show pytest's output where a fault is not caught")
    chosen = parser.parse_args(arguments)
    faults = [fault for fault in FAULTS if chosen.k in f"{fault.path} {fault.breaks}"]
    if chosen.new:
        known = {row.rpartition(" | ")[0] for row in rows_of(TABLE)}
        faults = [fault for fault in faults if start_of(fault) not in known]
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # the garbage collections of the forks need not look at all that
    caught: dict[Fault, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        project.mkdir()
        copy_project(project)
        for fault in faults:
            start = time.monotonic()
            outcome = attempt(fault, project)
            seconds = time.monotonic() - start
            print(f"{outcome:10} {seconds:5.1f} s  {fault.path}: {fault.breaks}", flush=True)
            if outcome == CAUGHT:
                caught[fault] = (project / FAILED).read_text(encoding="utf-8")
            elif chosen.show:
                print((project / LOG).read_text(encoding="utf-8"))
    gc.unfreeze()
    print(f"{len(caught)} of {len(faults)} faults are caught")
    if chosen.table:
        TABLE.write_text(table(caught, faults), encoding="utf-8")
    return int(len(caught) < len(faults) or not (faults or chosen.new))


def table(caught: Mapping[Fault, str], tried: Collection[Fault]) -> str:
    """Return the faults and the tests that catch them, as Markdown. Faults that were not tried keep their rows."""
    known = {row.rpartition(" | ")[0]: row for row in rows_of(TABLE)}
    made = {
        start_of(fault): f"{start_of(fault)} | {_escaped(name.removeprefix('tests/'))} |"
        for fault, name in caught.items()
    }
    rows = [(made if fault in tried else known).get(start_of(fault)) for fault in FAULTS]
    return "\n".join([
        "# Deliberate faults, and the tests that catch them", "",
        "Each fault was put into the code alone; the fast tests of its part were run until one failed, which the last "
        "column names.", "",
        "`python -m tests.mutations --table`", "",
        "| file in dropattack/ | the fault | caught by |", "|---|---|---|", *filter(None, rows), "",
    ])  # fmt: skip


def rows_of(path: Path) -> list[str]:
    """Return the rows of the table in a file, if there is one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def start_of(fault: Fault) -> str:
    """Return a fault's row up to the test that catches it."""
    return f"| {fault.path} | {_escaped(fault.breaks)}"


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<\\[])", r"\\\1", text)


if __name__ == "__main__":
    sys.exit(main())
