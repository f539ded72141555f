"""A sweep on four Ray nodes of this machine, two of which are killed midway."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dropattack.errors import UserError
from dropattack.runs import experiment
from dropattack.runs.config import cells, compose
from dropattack.runs.record import read, record_path

ray = pytest.importorskip("ray", reason="pip install -e '.[ray]' for the cluster's tests")

from dropattack.sweeps import cluster  # noqa: E402

GRID = ["dataset=digits", "model=cnn", "scale=mini", "tracker=none", "trainer.threads=1", "trainer.progress=none",
        "trainer.epochs=6", "reg=none,dropattack", "seed=0,1,2,3"]  # fmt: skip
DRIVER = """
import sys
from dropattack.runs.config import cells
from dropattack.sweeps.launch import Engine, launch
sys.exit(bool(launch(cells(sys.argv[2:]), Engine("ray", address=sys.argv[1], gpus=0.5))))
"""


@pytest.fixture
def start_node(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Ray nodes on demand; stop these nodes, and nothing else, at the end."""
    nodes: list[subprocess.Popen] = []
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}

    def start(*arguments: str) -> subprocess.Popen:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=1",
                   "--object-store-memory=80000000", "--disable-usage-stats", *arguments]  # fmt: skip
        said = tmp_path / f"node{len(nodes)}.log"
        with said.open("w") as log:
            nodes.append(subprocess.Popen(command, env=environment, start_new_session=True, stdout=log))
        _wait_until(lambda: "Ray runtime started" in said.read_text(), 60)  # two that start at once take the same ports
        return nodes[-1]

    yield start
    for node in nodes:
        _kill(node)


def _kill(node: subprocess.Popen) -> None:
    """Kill the node and all its processes at once, as in a power failure."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def _wait_until(met: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_completes_though_two_of_four_nodes_die(start_node, tmp_path, capfd):
    address, folder = f"127.0.0.1:{_free_port()}", tmp_path / "outputs"
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # not below tmp_path: sockets want a short path
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", f"--temp-dir={session}"]
    try:
        start_node(*head)
        others = [start_node(f"--address={address}") for _ in range(3)]
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, address, *GRID, f"paths.output={folder}"],
            cwd=Path(__file__).parents[2], env={**os.environ, "RAY_AUTH_MODE": "disabled"}, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        # Each node has a CPU for one run, so four runs at once use all nodes.
        _wait_until(lambda: len(list((folder / "checkpoints").glob("*/lock"))) == 4, 180)
        done = len(list((folder / "records").glob("*.json")))
        for node in others[:2]:
            _kill(node)
        _, said = driver.communicate(timeout=360)
        assert driver.returncode == 0, said
        assert done < 8, "the nodes died too late to show anything"
        records = [read(path) for path in sorted((folder / "records").glob("*.json"))]
        assert len(records) == 8
        assert {record["status"] for record in records} == {"finished"}
        configs = [compose(experiment.CONF, cell) for cell in cells([*GRID, f"paths.output={folder}"])]
        wanted = {record_path(experiment.resolve(config)) for config in configs}
        assert wanted == set((folder / "records").glob("*.json"))
        assert sum(map(int, re.findall(r"(\d) of \d nodes died; their runs restart elsewhere", said))) == 2, said
        print(f"killed with {done} of 8 done\n{said}")
    finally:
        shutil.rmtree(session, ignore_errors=True)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:port"])
def test_a_missing_cluster_is_reported_without_waiting(address):
    before = time.monotonic()
    with pytest.raises(UserError, match=r"there is no Ray cluster at .*ray start --head"):
        cluster.run_on_ray([["dataset=digits"]], address=address)
    assert time.monotonic() - before < 10
