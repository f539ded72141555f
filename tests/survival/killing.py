"""One run that is killed and resumed, compared with the same run left alone, for `python -m tests.survival`."""

import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dropattack import source
from dropattack.files import write_atomically
from dropattack.runs.record import TRAINS

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300.0  # seconds that any run may take
RESULT = ("run_id", "status", "config", "data", "validation", "test", "steps", "skipped", "passes_per_step")
Kill = dict[str, Any]  # `aim`: time, checkpoint or result; `at`: share of the run's time; and the outcome


@dataclass(frozen=True)
class Cell:
    """A cell to run, and how: `command` uses `python run.py`, otherwise a fork that has already imported torch."""

    name: str
    overrides: tuple[str, ...]
    command: bool = False

    def start(self, out: Path, *extra: str) -> int:
        """Start a run into `out`, logging to `<out>.log`; return its process id."""
        if pid := os.fork():
            return pid
        code: Any = 70
        try:
            os.chdir(ROOT)
            log = open(f"{out}.log", "w", buffering=1)  # noqa: SIM115  of the process
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log  # pytest's own write elsewhere
            arguments = ["run.py", *self.overrides, *extra, f"paths.output={out}"]
            if self.command:
                os.execv(sys.executable, [sys.executable, *arguments])
            sys.argv = arguments
            runpy.run_path("run.py", run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def whole(self, out: Path, *extra: str) -> float:
        """Let a run end; return its seconds."""
        begin, pid = time.monotonic(), self.start(out, *extra)
        while not self._ended(pid, out):
            if time.monotonic() - begin > LIMIT:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        return time.monotonic() - begin

    def killed(self, out: Path, kill: Kill, seconds: float) -> Kill | None:
        """Start or resume a run and kill it; return None if it ended first."""
        before, begin = files(out), time.monotonic()
        pid = self.start(out)
        while not self._ended(pid, out):
            now = time.monotonic() - begin
            reached = now >= kill["at"] * seconds
            if reached and kill["aim"] in ("time", place(out, before)):
                os.kill(pid, signal.SIGSTOP)  # now nothing changes: is it still there?
                if self._ended(pid, out, os.WUNTRACED):
                    return None
                found = place(out, before)
                if kill["aim"] in ("time", found):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    steps = [int(step) for step in re.findall(r"step-(\d+)", " ".join(files(out)))]
                    return {**kill, "within": found, "share": now / seconds, "step": max(steps, default=None)}
                os.kill(pid, signal.SIGCONT)
            if now > LIMIT:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.0003 if reached else 0.002)
        return None

    def _ended(self, pid: int, out: Path, options: int = os.WNOHANG) -> bool:
        found, status = os.waitpid(pid, options)
        if not found or os.WIFSTOPPED(status):
            return False
        if status:
            raise RuntimeError(f"{self.name}: exit status {status}: {Path(f'{out}.log').read_text()[-1000:]}")
        return True

    def tried(self, out: Path, kills: list[Kill], seconds: float, cache: Path) -> list[Kill] | None:
        """Kill a new run as planned, and let it end; return None if it ended before its last kill."""
        fresh(out, cache)
        done: list[Kill] = []
        for kill in kills:
            if (one := self.killed(out, kill, seconds)) is None:
                return None
            if done:
                done[-1]["resumed"] = "killed again first" if one["within"] == "preparation" else resumed(out)
            done.append(one)
        self.whole(out)
        done[-1]["resumed"] = resumed(out)
        return done

    def kept(self, runs: list[list[Kill]], folder: Path, until: float) -> list[Kill] | None:
        """Return the rows of `run`, from the file of an earlier call if there is one; None after the time `until`."""
        kept = folder / "done" / f"{self.name}.json"
        methods = [f"dropattack.regularizers.{file.stem}" for file in ROOT.glob("dropattack/regularizers/*.py")]
        code = source.digest(source.modules_of([*TRAINS, *sorted(methods)]))
        asked = {"overrides": list(self.overrides), "runs": runs, "code": code}
        if kept.exists() and (earlier := json.loads(kept.read_text()))["asked"] == asked:
            return earlier["rows"]
        if time.time() > until:
            return None
        rows = self.run(runs, folder)
        kept.parent.mkdir(exist_ok=True)
        write_atomically(kept, json.dumps({"asked": asked, "rows": rows}).encode())
        return rows

    def run(self, runs: list[list[Kill]], folder: Path) -> list[Kill]:
        """Perform all kills of the cell; return one row each, comparing every run with the uninterrupted one."""
        own, rows = folder / self.name, []
        cache = own / "prepared" / "cache"  # so that runs mostly train
        shutil.rmtree(own, ignore_errors=True)  # of a cell that was stopped
        own.mkdir(parents=True)
        if "dataset=pydoc" in self.overrides:
            self.whole(own / "prepared", "trainer.max_steps=1")
        fresh(own / "whole", cache)
        seconds = self.whole(own / "whole")
        expected = outcome(own / "whole")
        for number, kills in enumerate(runs, 1):
            out = own / f"run-{number}"
            for attempt in range(10):  # a run that ends before the kill is repeated, with an earlier kill
                sooner = [{**kill, "at": kill["at"] * 0.8**attempt} for kill in kills]
                if (done := self.tried(out, sooner, seconds, cache)) is not None:
                    break
            else:
                raise RuntimeError(f"{self.name}: it always ended before it was killed")
            found = outcome(out)
            if done[-1]["resumed"] == "the record":  # the run was finished: checkpoints may be left
                found["files"] = expected["files"]
            differs = [key for key, value in expected.items() if found[key] != value]
            for order, kill in enumerate(done, 1):
                entry = {"cell": self.name, "run": number, "kill": order, "entry": "run.py" if self.command else "fork"}
                rows.append({**entry, **kill, "differs": differs})
        if not any(row["differs"] for row in rows):
            shutil.rmtree(own)
        return rows


def fresh(out: Path, cache: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if cache.exists():
        shutil.copytree(cache, out / "cache")


def files(out: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in (*out.glob("checkpoints/*/*"), *out.glob("records/*"))}


def place(out: Path, before: set[str]) -> str:
    """Return the stage that a run has reached, by the files that it has made."""
    now = files(out)
    new = now - before
    if any(re.search(r"^records/|/\.?best\.", file) for file in new):
        return "result"
    if any(re.search(r"/\.(old-)?step-", file) for file in new) or sum("/step-" in file for file in now) > 1:
        return "checkpoint"
    return "training" if any(file.endswith("/lock") for file in now) else "preparation"


def resumed(out: Path) -> str:
    """Return what a run reported that it resumed from."""
    log = Path(f"{out}.log").read_text()
    if found := re.search(r"going on from (step \d+)", log):
        return found[1]
    return "the record" if "already done" in log else "the start"


def outcome(out: Path) -> dict[str, Any]:
    """Return what must be equal."""
    (path,) = out.glob("records/*.json")
    (weights,) = out.glob("checkpoints/*/best.safetensors")
    record = json.loads(path.read_text())
    history = [{key: value for key, value in entry.items() if key != "seconds"} for entry in record["history"]]
    return {
        **{key: record[key] for key in RESULT}, "history": history,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "files": sorted(file.name for file in weights.parent.iterdir()),
    }  # fmt: skip


def preload(modules: list[str]) -> None:
    """Import modules when a worker starts. (A worker of `python -m tests.survival` cannot find it in `__main__`.)."""
    for module in modules:
        import_module(module)
