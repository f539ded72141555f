"""Shared by all tests: one torch thread per worker, no network, and the folder of real data."""

import atexit
import contextlib
import copy
import gc
import io
import json
import os
import subprocess
from functools import cache
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DROPATTACK_COMMIT", json.dumps({"hash": 4 * "0123456789", "dirty": False}))  # asking git is slow

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
with contextlib.suppress(ImportError):  # the library's tests run without the experiments' packages
    import omegaconf

    # OmegaConf parses the text of each interpolation whenever it is read, which takes most of composing a config.
    omegaconf.base.parse = cache(omegaconf.base.parse)
    load_yaml = omegaconf.OmegaConf.load

    @cache
    def _loaded(text):
        return load_yaml(io.StringIO(text))

    def load_once(file):
        """Parse each text once: Hydra reads a dozen files of conf/ whenever it composes a config."""
        try:
            return copy.deepcopy(_loaded(file.read()))
        except Exception:  # a path; or an error, which has to name the file
            if hasattr(file, "seek"):
                file.seek(0)
            return load_yaml(file)

    omegaconf.OmegaConf.load = staticmethod(load_once)
# The same examples everywhere and no deadline, so that a busy machine causes no failure. `make test-slow` has more.
for name, examples in (("project", 40), ("thorough", 150)):
    settings.register_profile(name, derandomize=True, database=None, deadline=None, max_examples=examples)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def denormals():
    """Restore denormal numbers, because training flushes them for the rest of its process."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets; skip the test if there is none."""
    root = Path(os.environ.get("DROPATTACK_DATA", ROOT / "data"))
    if not (root / "imdb").is_dir():
        pytest.skip("real data: set DROPATTACK_DATA to the folder that holds imdb/, mnist/, …")
    return root


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 1 MB; skip the test if that is not possible."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def pytest_collection_finish():
    """Keep garbage collections from looking at all that was imported, and libraries from asking for full ones.

    Accelerate asks after each training and statsmodels at each correction: a tenth of a second each. `gc.collect(2)` is
    a full one.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    collect = gc.collect
    gc.collect = lambda generation=0: collect(generation)


# Folders whose tests share what takes long to make: trained networks, the page of the report.
TOGETHER = ("tests/commands", "tests/probes", "tests/report")
APART = ("tests/regularizers",)  # thousands of short tests that share nothing


def folder_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].rpartition("/")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run a file, or a folder of TOGETHER, in one process of pytest -n, so that each of their fixtures is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = folder_of(nodeid)
            return nodeid if folder in APART else folder if folder in TOGETHER else nodeid.partition("::")[0]

    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    # Short tests come last, so that no process ends long before the others.
    items.sort(key=lambda item: folder_of(item.nodeid) in APART)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
