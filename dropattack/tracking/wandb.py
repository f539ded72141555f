"""Weights & Biases, kept at arm's length: it may be slow, absent or broken, and the run goes on.

What wandb 0.31 does by itself, and what is done about it here: without a key it raises (or asks on a terminal), and
with an unreachable server it blocks for 100 s, so a key is looked for first, five seconds are given, and then the run
starts offline. A run left open by a job that raised would swallow the next job's numbers (`reinit`). `finish` hangs
when the server is lost (`finish_timeout`); when its service hangs, so do `finish` and the end of the process: `Guarded`
bounds the first, `abandon` the second. Machine and user names, paths and the environment are not sent.
"""

from __future__ import annotations

import logging
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dropattack.tracking.guard import reason

Mode = Literal["auto", "online", "offline", "disabled"]
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # of WANDB_MODE; the last two are old names
# What a shell, a sweep's agent or an outer run left behind and would make of this run: another one, or a part of it.
OTHERS = (
    *("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS", "WANDB_DIR"),
    *("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_FORK_FROM", "WANDB_RESUME_FROM"),
)
INIT_SECONDS = 5
FINISH_SECONDS = 30


class WandbTracker:
    """Follows a run in W&B, online where it can and offline where it cannot.

    Args:
        folder: where `wandb/` is made; nothing is written elsewhere.
        group: None takes the group that `start` is given; a run of a table's group is a job of type `cell`.
        mode: `auto` takes WANDB_MODE if it is set, `disabled` with WANDB_DISABLED=true, else `online`; `online` becomes
            `offline` without a key or a server. Which run this is, nothing of the environment decides.
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
            _say(f"{', '.join(inherited)} of the environment would decide which run this is, and is not used")
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
            _say(f"the server did not take all of it; `wandb sync` sends {self.folder / 'wandb'} later")
        except Exception:  # its service is gone
            self.abandon()
            raise

    def abandon(self) -> None:
        """Take back what wandb does at the process's end: wait for its service, or print a traceback if that died."""
        import wandb

        with suppress(Exception):
            wandb.teardown()

    def _start(self, mode: str, **options: Any) -> None:
        self.folder.joinpath("wandb").mkdir(parents=True, exist_ok=True)
        for variable, name in (("WANDB_CACHE_DIR", ".cache"), ("WANDB_DATA_DIR", ".data")):
            os.environ.setdefault(variable, str(self.folder / "wandb" / name))  # else below the home folder
        if not os.environ.get("WANDB_MODE"):  # wandb takes an empty one for a mode, and refuses it
            os.environ.pop("WANDB_MODE", None)
        os.environ.setdefault("WANDB_SILENT", "true")  # `silent` below comes too late for the login's own words
        logging.raiseExceptions = False  # on a full disk, else, each line of wandb's debug logs is a traceback
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
                except Exception as error:  # no server, a bad key, …: all of it ends offline
                    why = reason(error)
            else:
                why = "there is no API key (`wandb login`, or WANDB_API_KEY)"
            _say(f"offline, since {why}; `wandb sync` sends {self.folder / 'wandb'} later")
            mode = "offline"
        self._run = begin(mode)


def _mode() -> str:
    """What the environment asks for. Raises ValueError for a word that is no mode."""
    mode = os.environ.get("WANDB_MODE") or "online"
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        mode = "disabled"
    if mode not in WANDB_MODES:
        raise ValueError(f"WANDB_MODE={mode} is none of {', '.join(WANDB_MODES)}")
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def has_key() -> bool:
    """Is there a key for the server (in the environment or ~/.netrc)? wandb itself would stop and ask on a terminal."""
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


def _say(sentence: str) -> None:
    print(f"W&B: {sentence}", file=sys.stderr, flush=True)
