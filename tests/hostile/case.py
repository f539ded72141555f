"""What a hostile input is, and how it meets the project: through the commands a person types, within this process."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest import mock

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from omegaconf import DictConfig

from dropattack import provenance
from dropattack.errors import UserError
from dropattack.runs import cli, experiment
from dropattack.runs.config import compose

ROOT = Path(__file__).resolve().parents[2]
# A case works in its own folder, so the same words mean another place in each, and are composed once.
QUIET = (
    "tracker=none",
    "scale=smoke",
    "trainer.device=cpu",
    "trainer.progress=none",
    "paths.data=data",
    "paths.output=out",
)
Use = Callable[[Path, Sequence[str]], int]


@dataclass(frozen=True)
class Said:
    """What came of it: the exit code, what stood on stdout and stderr, and which files were written."""

    code: int
    out: str
    err: str
    written: tuple[Path, ...]


def run(folder: Path, overrides: Sequence[str]) -> int:
    """`run.py` with these overrides; it reads `folder/data` and writes `folder/out`."""
    arguments = [*QUIET, *overrides]
    # Composing is most of a case's time, and Hydra would do it twice.
    with mock.patch.object(cli, "compose", lambda conf, given: composed(conf, tuple(given))):
        return cli.main(lambda: print(experiment.run(composed(experiment.CONF, tuple(arguments)))), arguments)


def script(name: str) -> Use:
    """A command of scripts/, in its own words."""

    def use(folder: Path, arguments: Sequence[str]) -> int:
        with mock.patch.object(sys, "argv", [f"{name}.py", *arguments]):
            return _module(name).main()

    return use


def reader(read: Callable[..., object]) -> Use:
    """A function that reads one file, behind the guard that all commands share."""

    def use(folder: Path, arguments: Sequence[str]) -> int:
        try:
            print(read(*map(Path, arguments)))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return use


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        name: what it is, in a few words.
        make: puts it below an empty folder and returns the arguments of `use`.
        says: a regular expression that the one sentence fits; it names the thing and what to do.
        code: 2 where it is refused; 0 where it is named and left out.
        use: the command that meets it.
        lines: of stderr; more than one where several things are left out, one a line.
    """

    name: str
    make: Callable[[Path], Sequence[str]]
    says: str
    code: int = 2
    use: Use = run
    lines: int = 1

    def meet(self, folder: Path) -> Said:
        """Make the input below `folder`, use it, and return what was said."""
        arguments = self.make(folder)
        before = _files(folder)
        conf = folder / "conf"
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_no_network())
            stack.enter_context(_working_in(folder))
            stack.enter_context(mock.patch.object(provenance, "commit", return_value=None))  # git is slow
            if conf.is_dir():
                stack.enter_context(mock.patch.multiple(experiment, CONF=conf))
                stack.enter_context(mock.patch.multiple(cli, CONF=conf))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                code = self.use(folder, arguments)
            except BaseException:
                traceback.print_exc()
                code = 1
        return Said(code, out.getvalue(), err.getvalue(), tuple(sorted(_files(folder) - before)))


def own_conf(folder: Path) -> Path:
    """A copy of conf/ to spoil."""
    return Path(shutil.copytree(experiment.CONF, folder / "conf"))


class Bomb:
    """Pickled, it is code that leaves a file behind when anything loads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


CANARY = "canary"  # the file that code in an input would make, below the case's folder


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


@cache
def composed(conf: Path, overrides: tuple[str, ...]) -> DictConfig:
    return compose(conf, overrides)


@cache
def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hostile_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _no_network() -> Iterator[None]:
    """No case may reach for a network, whatever the machine's own settings."""
    import dropattack.data.cifar10
    import dropattack.data.hub
    import dropattack.data.mnist

    with contextlib.ExitStack() as stack:
        for module in (dropattack.data.hub, dropattack.data.mnist, dropattack.data.cifar10):
            stack.enter_context(mock.patch.object(module, "reachable", return_value=False))
        yield
