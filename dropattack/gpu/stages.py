"""Run stages, most important first, each a command with a time limit, until the budget is spent.

A stage writes results as it goes, so a cut-off loses only the current step. In the same folder, a finished stage is not
run again, and one that was cut off resumes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dropattack.files import write_atomically

GRACE = 8  # seconds between SIGTERM and SIGKILL
STATUS = "stages.json"


@dataclass(frozen=True)
class Stage:
    """A command and its time limit in seconds."""

    name: str
    limit: float
    command: tuple[str, ...]


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: `done`, `failed` (with its exit code), `cut off` or `not started`."""

    name: str
    state: str
    seconds: float
    code: int | None = None


def run_stages(stages: Sequence[Stage], *, budget: float, folder: Path, root: Path) -> list[StageOutcome]:
    """Run the stages one after the other until `budget` seconds are spent.

    Args:
        stages: the stages, most important first.
        budget: seconds for all stages together; a stage gets its own limit or what is left, whichever is less.
        folder: output folder; each stage writes below its own name, and logs are `<name>.log`.
        root: working directory of the commands.

    Returns:
        One outcome per stage, also written to `folder`/stages.json after each stage.
    """
    start, before = time.monotonic(), _read(folder / STATUS)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[StageOutcome] = []
    for stage in stages:
        known = before.get(stage.name)
        left = budget - (time.monotonic() - start)
        if known is not None and known.state == "done":
            outcome = known
        elif left < 1:
            outcome = known or StageOutcome(stage.name, "not started", 0.0)
        else:
            print(f"{stage.name}: at most {min(left, stage.limit):.0f} s", flush=True)
            outcome = _run(stage, min(left, stage.limit), folder, root)
            if known is not None:
                outcome = StageOutcome(stage.name, outcome.state, outcome.seconds + known.seconds, outcome.code)
            print(f"{stage.name}: {outcome.state} after {outcome.seconds:.1f} s", flush=True)
        outcomes.append(outcome)
        _write(folder / STATUS, outcomes)
    return outcomes


def _run(stage: Stage, limit: float, folder: Path, root: Path) -> StageOutcome:
    """Run one stage in its own process group, and end the whole group at the limit."""
    begun = time.monotonic()
    (folder / stage.name).mkdir(exist_ok=True)
    with (folder / f"{stage.name}.log").open("ab") as log:
        process = subprocess.Popen(
            stage.command, cwd=root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _path(root)},
        )  # fmt: skip
        try:
            code: int | None = process.wait(max(1.0, limit - GRACE))
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _end_group(process.pid)
            process.wait()
    state = "cut off" if code is None else "failed" if code else "done"
    return StageOutcome(stage.name, state, round(time.monotonic() - begun, 1), code)


def _path(root: Path) -> str:
    """Return PYTHONPATH with `root` first, so that the code runs without being installed."""
    return os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _read(path: Path) -> dict[str, StageOutcome]:
    if not path.exists():
        return {}
    return {entry["name"]: StageOutcome(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["stages"]}


def _write(path: Path, outcomes: Sequence[StageOutcome], about: Mapping[str, Any] | None = None) -> None:
    content = {**(about or {}), "stages": [asdict(outcome) for outcome in outcomes]}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def python(*arguments: str) -> tuple[str, ...]:
    """Return a command for the current interpreter."""
    return (sys.executable, *arguments)


def bundle(folder: Path, to: Path, most_bytes: int = 15 << 20) -> list[str]:
    """Archive what the stages wrote: JSON, JSON Lines, Markdown and logs, smallest files first.

    Returns:
        The files that did not fit.
    """
    kept = (".json", ".jsonl", ".md", ".txt", ".log")
    files = sorted((f for f in folder.rglob("*") if f.suffix in kept and f.is_file()), key=lambda f: f.stat().st_size)
    content, left_out = io.BytesIO(), []
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file in files:
            if content.tell() + file.stat().st_size // 4 > most_bytes:
                left_out.append(str(file.relative_to(folder)))
            else:
                archive.add(file, arcname=str(file.relative_to(folder)))
    write_atomically(to, content.getvalue())
    return left_out
