"""Launch many runs: on this machine, on a Ray cluster, or with Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from dropattack.progress import counting
from dropattack.provenance import JOBS, without_secrets
from dropattack.runs import record
from dropattack.runs.experiment import Run
from dropattack.sweeps.cell import freeze_imports, one_run

SLURM = ("submitit_local", "submitit_slurm")
RETRIES = 3  # how many times the workers of a sweep may die
LAUNCHERS = ("joblib", "basic", *SLURM, "ray")


@dataclass(frozen=True)
class Engine:
    """Where to run.

    `joblib`: in `jobs` processes on this machine; `basic`: one by one in this process; `ray`: on the cluster at
    `address`, each run with `cpus` and `gpus`; Slurm's: with Hydra's launchers of that name.
    """

    launcher: str = "joblib"
    jobs: int = 2
    address: str = "auto"
    cpus: float = 1
    gpus: float = 0


def launch(runs: Sequence[Sequence[str]], engine: Engine) -> dict[str, str]:
    """Run each list of overrides, and wait for all of them. Neither a failed run nor a dead worker stops the others.

    Returns:
        The errors of failed runs, by their overrides. They are also written beside the runs' records.

    Raises:
        UserError: the engine cannot be reached.
    """
    if engine.launcher == "ray":
        from dropattack.sweeps.cluster import run_on_ray

        failed = run_on_ray(runs, address=engine.address, cpus=engine.cpus, gpus=engine.gpus)
    else:
        failed = _run_here(runs, 1 if engine.launcher == "basic" else engine.jobs)
    failed = {name: without_secrets(why) for name, why in failed.items()}
    for run in runs:
        if why := failed.get(" ".join(run)):
            record.note_error(Run.asked(run).record_path, why)
    return failed


def launch_by_hydra(grid: Sequence[str], engine: Engine) -> None:
    """Run a grid of overrides with one of Hydra's launchers, in a separate process."""
    command = [sys.executable, "-m", "dropattack", "sweep", f"hydra/launcher={engine.launcher}", *grid]
    subprocess.run(command, check=False)


def _run_here(runs: Sequence[Sequence[str]], jobs: int) -> dict[str, str]:
    from joblib import Parallel, delayed

    failed: dict[str, str] = {}
    todo = {" ".join(run): run for run in runs}
    deaths = 0
    parent = None if jobs == 1 else os.getpid()
    # The processes share a terminal, so one bar counts the runs, instead of one bar per run.
    quiet = ["trainer.progress=none"] if jobs > 1 else []
    with _noting(jobs), counting("runs", len(todo)) as done:
        while todo:
            calls = [delayed(_one_run_of)([*quiet, *run], name, parent, turn)
                     for turn, (name, run) in enumerate(todo.items())]  # fmt: skip
            try:
                for name, why in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
                    del todo[name]
                    if why:
                        failed[name] = why
                    done(f"{name}: {why}" if why else name)
            except BrokenProcessPool:  # the workers that are left were stopped, too
                deaths += 1
                if deaths > RETRIES:
                    return failed | dict.fromkeys(todo, "worker processes kept dying: is there enough memory?")
                print(f"a worker process died; {len(todo)} runs resume in new ones", file=sys.stderr)
    return failed


@contextmanager
def _noting(jobs: int) -> Iterator[None]:
    """Let records say how many runs there are at a time."""
    before = os.environ.get(JOBS)
    os.environ[JOBS] = str(jobs)
    try:
        yield
    finally:
        os.environ.pop(JOBS)
        if before is not None:
            os.environ[JOBS] = before


def _one_run_of(overrides: list[str], name: str, parent: int | None, turn: int) -> tuple[str, str]:
    if parent is not None:
        _end_with(parent)
        _take_gpu(turn)
    said = one_run(overrides)
    if parent is not None:
        freeze_imports()
    return name, said


_took_gpu: set[int] = set()
_watched: set[int] = set()


def _take_gpu(turn: int) -> None:
    """Let this process see one GPU of several, by its first turn: the processes of a sweep share them out."""
    if os.getpid() in _took_gpu:
        return
    _took_gpu.add(os.getpid())
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        from torch import cuda

        seen = ",".join(map(str, range(cuda.device_count())))  # does not initialise CUDA, which reads the variable
    gpus = seen.split(",")
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turn % len(gpus)]


def _end_with(parent: int) -> None:
    """End this process soon after `parent` ends, even if it is killed."""
    if parent in _watched or os.name != "posix":
        return
    _watched.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
