"""A hostile input, and how to run a user's command on it within this process."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from omegaconf import DictConfig

from dropattack import provenance
from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.runs import cli, experiment
from dropattack.runs.config import compose

ROOT = Path(__file__).resolve().parents[2]
# Each case has its own folder, so the same relative paths can be composed once for all cases.
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
    """The outcome: exit code, stdout and stderr, and the files written."""

    code: int
    out: str
    err: str
    written: tuple[Path, ...]


def run(folder: Path, overrides: Sequence[str]) -> int:
    """Call `run.py` with these overrides; it reads `folder/data` and writes `folder/out`."""
    arguments = [*QUIET, *overrides]
    # Composing takes most of a case's time, and Hydra would do it twice.
    with mock.patch.object(cli, "compose", lambda conf, given: composed(conf, tuple(given))):
        return cli.main(lambda: print(experiment.run(composed(experiment.CONF, tuple(arguments)))), arguments)


def command(name: str) -> Use:
    """Return a use that calls `dropattack <name>`."""
    return lambda folder, arguments: main([name, *arguments])


def reader(read: Callable[..., object]) -> Use:
    """Return a use that calls a function reading one file, inside the guard that all commands share."""

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
        name: short description.
        make: creates it in an empty folder and returns the arguments of `use`.
        says: regular expression for the message, which must name the fault and what to do.
        code: exit code: 2 if the input is rejected, 0 if it is reported and left out.
        use: the command to run.
        lines: number of lines on stderr; more than one if several things are left out.
    """

    name: str
    make: Callable[[Path], Sequence[str]]
    says: str
    code: int = 2
    use: Use = run
    lines: int = 1

    def meet(self, folder: Path) -> Said:
        """Create the input in `folder`, run the command, and return its outcome."""
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
    """Copy conf/, to be modified."""
    return Path(shutil.copytree(experiment.CONF, folder / "conf"))


class Bomb:
    """An object whose pickle executes code that creates a file when loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


CANARY = "canary"  # the file that code in an input would create in the case's folder


def _files(folder: Path) -> set[Path]:
    """Return all files but those in which Python keeps a plug-in's compiled code."""
    return {path for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".pyc"}


@cache
def composed(conf: Path, overrides: tuple[str, ...]) -> DictConfig:
    return compose(conf, overrides)


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
    """Prevent network access, whatever the machine's settings."""
    import dropattack.data.cifar10
    import dropattack.data.hub
    import dropattack.data.mnist

    with contextlib.ExitStack() as stack:
        for module in (dropattack.data.hub, dropattack.data.mnist, dropattack.data.cifar10):
            stack.enter_context(mock.patch.object(module, "reachable", return_value=False))
        yield
