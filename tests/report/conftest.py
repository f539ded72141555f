"""One filled results/ folder and its page, made once per worker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dropattack import provenance
from dropattack.report.page import build
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table
from tests.report import folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quick_git() -> Iterator[None]:
    """Write records without calling git for each."""
    with without_git():
        yield


@contextmanager
def without_git() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: {"hash": "0123456789abcdef", "dirty": False})
        yield


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    with without_git():  # only here, because other tests of the worker need the real one
        return folders.fill(tmp_path_factory.mktemp("filled") / "results")


@pytest.fixture(scope="session")
def make() -> Callable[[Path], str]:
    """Return `make(results)`, which makes the page of a folder."""
    tables = [load_table(CONF, name) for name in ("vision", "half_data", "ablation", "encoder")]
    return lambda results: build(results, tables=tables, docs=ROOT / "docs")


@pytest.fixture(scope="session")
def page(make, filled) -> str:
    return make(filled)
