"""A sweep of 1,000 small runs in one go: `python -m benchmarks.soak --json results/survival/soak.json`.

Every method trains on the digits with many seeds, in two workers that live as long as the sweep. The memory, open
files and CPU time of the sweep's processes are sampled from outside every few seconds: none of them may grow with
the number of runs. After every hundred runs, the finished records are written into a store, which is read at the
same time and must be whole. `--launcher ray` starts a Ray node of its own (it needs `pip install -e '.[ray]'`).

Each launcher adds its sweep to the JSON; a figure and a page are made beside it. Exit code 1: something grew, or
was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from joblib.externals.loky import get_reusable_executor

from benchmarks import soak_page
from dropattack import provenance
from dropattack.files import write_atomically
from dropattack.runs import record, store
from dropattack.runs.cli import guarded
from dropattack.runs.config import choices
from dropattack.runs.experiment import CONF
from dropattack.sweeps.launch import Engine, launch

QUICK = "dataset=digits model=cnn scale=smoke tracker=none trainer.device=cpu trainer.threads=1 trainer.progress=none"
WORKERS = {"joblib": ("popen_loky",), "ray": ("ray::_cell", "ray::IDLE")}  # in a worker's command line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--launcher", choices=WORKERS, default="joblib", help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1000, help="at least so many (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="workers (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--store-every", type=int, default=100, help="runs between stores (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="add the sweep to this file, and make a figure and a page beside it")
    parser.add_argument("--no-run", action="store_true", help="only make the figure and the page of --json again")
    asked = parser.parse_args(argv)
    if min(asked.runs, asked.jobs, asked.every, asked.store_every) <= 0:
        parser.error("--runs, --jobs, --every and --store-every must be above 0")
    if asked.no_run:
        if not (asked.json and asked.json.is_file()):
            parser.error("--no-run needs the --json of an earlier call")
        soak_page.write(json.loads(asked.json.read_text())["sweeps"], asked.json)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the sweep's processes end, too
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        sweep = soaked(Path(folder), asked)
    sweep = {
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        **sweep,
    }
    print(soak_page.sentence(asked.launcher, sweep))
    if asked.json:
        known = json.loads(asked.json.read_text())["sweeps"] if asked.json.exists() else {}
        sweeps = dict(sorted({**known, asked.launcher: sweep}.items()))
        write_atomically(asked.json, soak_page.dumps(sweeps).encode())
        soak_page.write(sweeps, asked.json)
    return int(bool(soak_page.problems(sweep)))


def soaked(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Run the sweep in a process of its own, and watch it; return what was seen."""
    methods = sorted(choices(CONF, "reg"))
    seeds = -(-asked.runs // len(methods))
    output = folder / "outputs"
    # In turn, so that each part of the sweep has the same work.
    cells = [[*QUICK.split(), f"reg={reg}", f"seed={seed}", f"paths.output={output}"]
             for seed in range(seeds) for reg in methods]  # fmt: skip
    begin = time.monotonic()
    with node(folder, asked.jobs) if asked.launcher == "ray" else here() as (address, host):
        receiving, sending = multiprocessing.Pipe(duplex=False)
        engine = Engine(asked.launcher, jobs=asked.jobs, address=address)
        driver = multiprocessing.get_context("spawn").Process(target=_sweep, args=(cells, engine, sending))
        driver.start()
        watched = Watched(output, driver.pid or 0, host or driver.pid or 0, WORKERS[asked.launcher], begin)
        try:
            while driver.is_alive():
                watched.sample()
                if watched.done >= asked.store_every * (len(watched.stored) + 1):
                    watched.store()
                driver.join(asked.every)
        finally:
            driver.kill()
        failed = receiving.recv() if receiving.poll() else {"the sweep": f"exit code {driver.exitcode}"}
    watched.store()
    names = {f"{one['config']['reg']['name']} {one['config']['seed']}"
             for one in watched.records().values() if one["status"] == "finished"}  # fmt: skip
    left = Counter(path.name for path in output.rglob("*") if path.is_file() and path.parent.name != "records")
    return {
        "launcher": asked.launcher, "jobs": asked.jobs, "methods": len(methods), "seeds": seeds, "runs": len(cells),
        "finished": len(names), "failed": sorted(failed.values()), "left": _kinds(left), "stored": watched.stored,
        "samples": watched.samples,
    }  # fmt: skip


def _sweep(cells: list[list[str]], engine: Engine, result: Connection) -> None:
    with open(os.devnull, "w") as nowhere:  # a line for each run
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    result.send(launch(cells, engine))
    if engine.launcher == "joblib":  # a process waits for its children as it ends, and idle workers end after minutes
        get_reusable_executor().shutdown(kill_workers=True)


def _kinds(names: Counter[str]) -> dict[str, int]:
    """Count files by name, and rare ones (one or two, such as a cache) by suffix."""
    kinds: Counter[str] = Counter()
    for name, count in names.items():
        kinds[name if count > 2 else f"*{Path(name).suffix}"] += count
    return dict(sorted(kinds.items()))


class Watched:
    """A sweep seen from outside: its processes, its records, and a store of those that are finished."""

    def __init__(self, output: Path, driver: int, host: int, marks: tuple[str, ...], begin: float) -> None:
        self.output, self.driver, self.host, self.marks, self.begin = output, driver, host, marks, begin
        self.samples: list[dict[str, Any]] = []
        self.stored: list[dict[str, int]] = []  # each time that the store was written
        self.cpu: dict[int, float] = {}  # of each worker that ever was: its seconds of CPU time
        self.done = 0

    def sample(self) -> None:
        """Add a sample: what the driver and each worker hold. Workers are known by their number."""
        self.done = sum(1 for _ in self.output.glob("records/*.json"))
        workers = []
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.host).children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                    if any(mark in " ".join(one.cmdline()) for mark in self.marks):
                        held, times = _held(one), one.cpu_times()
                        self.cpu[one.pid] = times.user + times.system
                        workers.append([[*self.cpu].index(one.pid), *held])
            self.samples.append({
                "seconds": round(time.monotonic() - self.begin, 1), "done": self.done,
                "cpu_seconds": round(sum(self.cpu.values()), 1), "driver": _held(psutil.Process(self.driver)),
                "workers": workers,
            })  # fmt: skip

    def records(self) -> dict[str, dict[str, Any]]:
        """Return all records by key; each must be whole at any time, as the files are replaced atomically."""
        return {store.key(one): one for one in map(record.read, sorted(self.output.glob("records/*.json")))}

    def store(self) -> None:
        """Write the records into a store, and read it meanwhile: it must be the one before, or the new one."""
        place = self.output.parent / "store" / "soak"
        before, records = len(store.read(place.parent / store.RECORDS)), self.records()
        reads = 0
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(store.keep, place, records.values())
            while not writing.done() or not reads:
                if (found := len(store.read(place.parent / store.RECORDS))) not in (before, len(records)):
                    raise RuntimeError(f"the store has {found} records, neither {before} nor {len(records)}")
                reads += 1
            writing.result()
        self.stored.append({"records": len(records), "reads": reads})


def _held(process: psutil.Process) -> list[float]:
    """Return the memory of a process in MB, and its open files."""
    return [round(process.memory_info().rss / 2**20, 1), process.num_fds()]


@contextmanager
def here() -> Iterator[tuple[str, int | None]]:
    """Need no other process than the sweep's own."""
    yield "auto", None


@contextmanager
def node(folder: Path, jobs: int) -> Iterator[tuple[str, int | None]]:
    """Start a Ray node with `jobs` CPUs; yield its address and process; stop this node, and nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["RAY_AUTH_MODE"] = "disabled"
    session = tempfile.mkdtemp(prefix="ray-")  # not below `folder`: sockets need a short path
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}",
               f"--num-cpus={jobs}", "--include-dashboard=false", "--object-store-memory=80000000",
               "--disable-usage-stats", f"--temp-dir={session}"]  # fmt: skip
    with open(folder / "node.log", "w") as log:
        started = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
    try:
        for _ in range(300):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if started.poll() is not None:
                raise RuntimeError(f"Ray does not start: {(folder / 'node.log').read_text()[-500:]}")
            time.sleep(0.5)
        yield f"127.0.0.1:{port}", started.pid
    finally:
        owned = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        for one in [*owned, *([started] if started.poll() is None else [])]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.kill()
        started.wait()
        shutil.rmtree(session, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
