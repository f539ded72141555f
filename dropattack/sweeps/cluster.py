"""Run the cells of a sweep on a Ray cluster. Each is one task, which restarts elsewhere when its node dies.

If all nodes share the folder `paths.output`, no work is lost: the task resumes from its last checkpoint. Hydra's own
Ray launcher is not used, because it pins an old cloudpickle that joblib refuses.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.sweeps.cell import freeze_imports, one_run

PASSED_ON = ("DROPATTACK_DATA", "WANDB_MODE", "WANDB_BASE_URL", "HF_HOME")  # no keys: each node has its own login
LOCKED_SECONDS = 120  # a dead node's process may hold its run for a while


def run_on_ray(
    cells: Sequence[Sequence[str]], *, address: str, cpus: float = 1, gpus: float = 0, retries: int = 3
) -> dict[str, str]:
    """Run the cells on the cluster at `address`, and wait for all of them.

    Args:
        cells: the overrides of each run. A relative `paths.output` is relative to this process's working folder.
        address: `host:port` of the head, or `auto` for the cluster of this machine.
        cpus: CPUs per run.
        gpus: GPUs per run; `gpus=0.25` lets four runs share one.
        retries: how many times a run may lose its node.

    Returns:
        The errors of failed cells, by their overrides.

    Raises:
        UserError: Ray is not installed, or there is no cluster at `address`.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed: pip install -e '.[ray]' -c constraints.txt") from error
    _reach(address)
    # Not the whole environment: other users of the cluster can read it.
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"OMP_NUM_THREADS": str(max(1, int(cpus))), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ray.init(address=address, runtime_env={"env_vars": environment}, log_to_driver=False, logging_level=logging.ERROR)
    try:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(_cell)
        pending = {task.remote(_absolute(cell)): " ".join(cell) for cell in cells}
        failed, total, nodes = {}, len(pending), _alive(ray)
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            before, nodes = nodes, _alive(ray)
            if nodes < before:
                print(f"{before - nodes} of {before} nodes died; their runs restart elsewhere", file=sys.stderr)
            cell = pending.pop(done)
            try:
                said, node = ray.get(done)
            except ray.exceptions.RayError as error:  # all retries lost their nodes, or the run raised
                said, node = str(error).strip().splitlines()[-1], "no node"
            if said:
                failed[cell] = said
            print(f"[{total - len(pending)}/{total}] {node}: {cell}{f': {said}' * bool(said)}", file=sys.stderr)
        return failed
    finally:
        ray.shutdown()


def _alive(ray: Any) -> int:
    return sum(node["Alive"] for node in ray.nodes())


def _cell(overrides: list[str]) -> tuple[str, str]:
    """Do one run on a node. Return its error (empty if none) and the node."""
    import ray

    said = one_run(overrides, patience=LOCKED_SECONDS)
    freeze_imports()
    return said, ray.get_runtime_context().get_node_id()[:8]


def _absolute(cell: Sequence[str]) -> list[str]:
    """Make `paths.output` absolute, so that it means the same in another process."""
    name = "paths.output="
    return [name + str(Path(o.removeprefix(name)).absolute()) if o.startswith(name) else o for o in cell]


def _reach(address: str) -> None:
    """Try to connect first, because `ray.init` waits forever for a missing cluster."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster at {address!r} ({error}); start one with `ray start --head --port=6379` and name "
            "its host:port"
        ) from error
