"""Weights & Biases, isolated: it may be slow, absent or broken without affecting the run.

How this module handles the behaviour of wandb 0.31: without a key wandb raises (or prompts on a terminal), and with an
unreachable server it blocks for 100 s, so we first look for a key, wait five seconds, and then start offline. A run
left open by a job that raised would receive the next job's metrics (`reinit`). `finish` hangs if the server is lost
(`finish_timeout`); if wandb's service hangs, so do `finish` and the end of the process: `Guarded` bounds the first,
`abandon` the second. Machine and user names, paths and the environment are not sent.
"""

from __future__ import annotations

import logging
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dropattack.tracking.guard import reason

Mode = Literal["auto", "online", "offline", "disabled"]
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # the last two are old
# Variables left by a shell, a sweep's agent or an outer run, which would turn this run into another, or part of one.
OTHERS = (
    *("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS", "WANDB_DIR"),
    *("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_FORK_FROM", "WANDB_RESUME_FROM"),
)
INIT_SECONDS = 5
FINISH_SECONDS = 30


class WandbTracker:
    """Track a run in W&B, online if possible and offline otherwise.

    Args:
        folder: where to create `wandb/`; nothing is written elsewhere.
        group: None uses the group given to `start`; a run of a table's group is a job of type `cell`.
        mode: `auto` uses WANDB_MODE if set, `disabled` with WANDB_DISABLED=true, else `online`; `online` becomes
            `offline` without a key or a server. The environment never determines which run this is.
    """

    def __init__(
        self, *, project: str, folder: str, entity: str | None = None, group: str | None = None, mode: Mode = "auto"
    ) -> None:
        self.project, self.entity, self.group, self.mode = project, entity, group, mode
        self.folder = Path(folder).resolve()
        self.run_id: str | None = None
        self._run: Any = None

    def start(
        self, config: Mapping[str, Any], *, name: str, group: str, tags: Sequence[str], resume: str | None = None,
        job: str | None = None,
    ) -> None:  # fmt: skip
        mode = _mode() if self.mode == "auto" else self.mode
        if mode == "disabled":
            return
        if inherited := [name for name in OTHERS if os.environ.pop(name, None)]:
            _say(f"{', '.join(inherited)} in the environment would change which run this is; ignored")
        self._start(
            mode, config=dict(config), name=name, group=self.group or group, tags=list(tags), id=resume,
            resume="allow" if resume else None, job_type=job or ("cell" if self.group else "train"),
        )  # fmt: skip
        self.run_id = self._run.id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            self._run.log(dict(metrics), step=step)

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        if self._run is None:
            return
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        for path in files:
            artifact.add_file(str(path), policy="immutable")
        self._run.log_artifact(artifact)
        self._run.log({path.stem: wandb.Image(str(path)) for path in files if path.suffix == ".png"})

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.summary.update(dict(summary))
            run.finish(exit_code=int(failed))
        except TimeoutError:
            _say(f"the server did not receive everything; run `wandb sync` on {self.folder / 'wandb'} later")
        except Exception:  # wandb's service is gone
            self.abandon()
            raise

    def abandon(self) -> None:
        """Keep wandb from waiting for its service, or printing a traceback about it, when the process ends."""
        import wandb

        with suppress(Exception):
            wandb.teardown()

    def _start(self, mode: str, **options: Any) -> None:
        self.folder.joinpath("wandb").mkdir(parents=True, exist_ok=True)
        for variable, name in (("WANDB_CACHE_DIR", ".cache"), ("WANDB_DATA_DIR", ".data")):
            os.environ.setdefault(variable, str(self.folder / "wandb" / name))  # the default is in the home folder
        if not os.environ.get("WANDB_MODE"):  # wandb rejects an empty mode
            os.environ.pop("WANDB_MODE", None)
        os.environ.setdefault("WANDB_SILENT", "true")  # `silent` below is too late for the login's messages
        logging.raiseExceptions = False  # else every line of wandb's debug logs is a traceback on a full disk
        import wandb

        def begin(mode: Any) -> Any:
            settings = wandb.Settings(
                init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True, silent=True,
                console="off", save_code=False, disable_git=True, disable_job_creation=True, x_disable_meta=True,
                x_disable_machine_info=True,
            )  # fmt: skip
            return wandb.init(
                project=self.project, entity=self.entity, dir=str(self.folder), mode=mode,
                reinit="finish_previous", settings=settings, **options,
            )  # fmt: skip

        if mode == "online":
            if has_key():
                try:
                    self._run = begin("online")
                    return
                except Exception as error:  # no server, a bad key, …: go offline
                    why = reason(error)
            else:
                why = "there is no API key (`wandb login`, or WANDB_API_KEY)"
            _say(
                f"offline, because {why}; `wandb sync` on {self.folder / 'wandb'} uploads it later, tracker=none turns "
                "tracking off"
            )
            mode = "offline"
        self._run = begin(mode)


def _mode() -> str:
    """Return the mode that the environment asks for.

    Raises:
        ValueError: WANDB_MODE is not a mode.
    """
    mode = os.environ.get("WANDB_MODE") or "online"
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        mode = "disabled"
    if mode not in WANDB_MODES:
        raise ValueError(f"WANDB_MODE={mode} is not one of {', '.join(WANDB_MODES)}")
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def has_key() -> bool:
    """Return whether the environment or ~/.netrc has a key for the server. Without one, wandb would prompt for it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if netrc.netrc(str(file)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@cache
def _say(sentence: str) -> None:
    """Print a sentence once per process: every run of a sweep would repeat it."""
    print(f"W&B: {sentence}", file=sys.stderr, flush=True)
