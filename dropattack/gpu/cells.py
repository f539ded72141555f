"""Run the cells of some tables, several at a time on one device, until they are done or time is up.

Each finished record is appended to one file immediately, so finished cells survive a cut-off and are not repeated.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from dropattack.runs import experiment, record
from dropattack.runs.config import cells, compose
from dropattack.sweeps.table import load_table, overrides

Overrides = tuple[str, ...]
POOLS = 3  # maximum number of times that the pool is started, if processes die
WHERE = ("paths.", "tracker", "scale=", "trainer.device", "trainer.threads", "trainer.progress")  # not worth printing


def cells_of(names: Iterable[str], *, scale: str, output: Path, extra: Sequence[str] = ()) -> dict[Overrides, Path]:
    """Return the cells of the tables `names` in order, with the path that each one's record will have.

    Within a grid, cells are ordered by seed, so a sweep that is cut off leaves complete seeds.
    """
    found: dict[Overrides, Path] = {}
    for name in names:
        for grid in overrides(load_table(experiment.CONF, name), scale=scale, output=output, extra=extra):
            for cell in sorted(map(tuple, cells(grid)), key=_seed):
                found[cell] = record.record_path(experiment.resolve(compose(experiment.CONF, cell)))
    return found


def _seed(cell: Sequence[str]) -> int:
    return next((int(o.removeprefix("seed=")) for o in cell if o.startswith("seed=")), 0)


def run_cells(wanted: Mapping[Overrides, Path], *, jobs: int, records: Path, known: Iterable[str] = ()) -> int:
    """Run the cells without a finished record, in order, `jobs` at a time.

    Args:
        wanted: see `cells_of`.
        jobs: number of processes; each runs many cells, one after the other.
        records: JSON Lines file that finished records are appended to; cells with a record there are skipped.
        known: run ids that are finished elsewhere, such as those of committed records.

    Returns:
        The number of cells that failed.
    """
    done = {entry["run_id"] for entry in read_lines(records)} | set(known)
    waiting = [cell for cell, path in wanted.items() if path.stem.rpartition("-")[2] not in done]
    print(f"{len(wanted)} cells, {len(wanted) - len(waiting)} already done; {jobs} at a time", flush=True)
    if not waiting:
        return 0
    records.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the pool's processes too
    failed, total, start = 0, len(waiting), time.monotonic()
    for _ in range(POOLS):
        try:
            for said, path, cell in _in_pool(list(waiting), jobs):
                waiting.remove(cell)
                failed += bool(said)
                if path is not None:
                    _append(records, record.read(path))
                shown = " ".join(override for override in cell if not override.startswith(WHERE))
                line = f"[{total - len(waiting)}/{total}] {time.monotonic() - start:.0f} s: {shown}"
                print(f"{line}{f': {said}' * bool(said)}", flush=True)
            break
        except BrokenProcessPool as error:
            print(f"a process died ({error}); restarting the {len(waiting)} remaining cells", flush=True)
    return failed + len(waiting)


def _in_pool(waiting: Sequence[Overrides], jobs: int) -> Iterator[tuple[str, Path | None, Overrides]]:
    """Run the cells in `jobs` processes; yield (error or "", record, cell) as each cell ends."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(min(jobs, len(waiting)), mp_context=context) as pool:
        futures: dict[Future[tuple[str, Path | None]], Overrides] = {pool.submit(_run, cell): cell for cell in waiting}
        try:
            for future in as_completed(futures):
                yield *future.result(), futures[future]
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _run(cell: Overrides) -> tuple[str, Path | None]:
    """Run one cell and return (error or "", record)."""
    try:
        return "", experiment.run(compose(experiment.CONF, list(cell)))
    except Exception as error:
        return f"{type(error).__name__}: {error}", None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the records in a JSON Lines file, leaving out a truncated last line."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            print(f"{path}: left out a truncated line", file=sys.stderr)
    return found
