"""Apply each fault of `faults.py` to a copy of the project and check that its tests fail: `python -m tests.mutations`.

The table has a line for each fault with what came of it, the seconds and what it breaks. The exit status is 1 unless
all faults are caught.
"""

import argparse
import gc
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("dropattack", "tests", "conf", "scripts", "benchmarks", "run.py", "pyproject.toml")
# Imported once, before the tests of each fault run in a fork: these imports take most of their time.
IMPORTED = (
    "torch", "accelerate", "transformers.models.bert.modeling_bert", "hydra", "omegaconf", "pandas", "hypothesis",
    "statsmodels.stats.multitest", "pytest",
)  # fmt: skip
SECONDS = 300
CAUGHT, NOT_CAUGHT = "caught", "NOT CAUGHT"


def problem(fault: Fault, root: Path = ROOT) -> str | None:
    """Why a fault cannot be applied to the code below `root`; None if it can."""
    path = root / fault.path
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
    path = project / fault.path
    original = path.read_text(encoding="utf-8")
    write(path, original.replace(fault.old, fault.new))
    try:
        code = run_tests(project, fault.tests)
    finally:
        write(path, original)
    return {0: NOT_CAUGHT, 1: CAUGHT}.get(code, f"NO RESULT: pytest's exit code is {code}")


def write(path: Path, text: str) -> None:
    """Write a module and remove its bytecode, which Python would keep if the file changed twice within a second."""
    path.write_text(text, encoding="utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def run_tests(project: Path, tests: tuple[str, ...]) -> int:
    """Pytest's exit code in a fork of this process; its output is in `<project>/pytest.log`. 124 after `SECONDS`."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(project, tests))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return 124
    return process.exitcode


def _pytest(project: Path, tests: tuple[str, ...]) -> None:
    import pytest

    os.chdir(project)
    os.environ["PYTHONPATH"] = str(project)
    sys.path[:] = [str(project), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "dropattack")]:
        del sys.modules[name]
    log = os.open(project / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = int(pytest.main(["-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]))
    import dropattack

    is_copy = Path(str(dropattack.__file__)).resolve().parent == (project / "dropattack").resolve()
    sys.stdout.flush()
    os._exit(code if is_copy else 125)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check that every deliberate fault makes its tests fail.")
    parser.add_argument("-k", default="", metavar="TEXT", help="try only faults with this in their path or description")
    parser.add_argument("--show", action="store_true", help="show pytest's output where a fault is not caught")
    chosen = parser.parse_args(arguments)
    faults = [fault for fault in FAULTS if chosen.k in f"{fault.path} {fault.breaks}"]
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # the garbage collections of the forks need not look at all that
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        project.mkdir()
        copy_project(project)
        for fault in faults:
            start = time.monotonic()
            outcome = attempt(fault, project)
            caught += outcome == CAUGHT
            seconds, path = time.monotonic() - start, fault.path.removeprefix("dropattack/")
            print(f"{outcome:10} {seconds:5.1f} s  {path}: {fault.breaks}", flush=True)
            if chosen.show and outcome != CAUGHT:
                print((project / "pytest.log").read_text(encoding="utf-8"))
    gc.unfreeze()
    print(f"{caught} of {len(faults)} faults are caught")
    return int(caught < len(faults) or not faults)


if __name__ == "__main__":
    sys.exit(main())
