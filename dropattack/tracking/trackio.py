"""trackio: a local dashboard that needs no account. `make dashboard` opens it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


class TrackioTracker:
    """Track a run in a local SQLite file below `folder`.

    trackio has groups but neither tags nor a summary: tags go into the config, the summary is logged as `summary/…`.

    Args:
        project: all runs of one project share a dashboard.
        folder: where to create `trackio/`. The first run of a process sets it for the whole process.
        group: None uses the group given to `start`.
    """

    def __init__(self, *, project: str, folder: str, group: str | None = None) -> None:
        self.project, self.group, self.folder = project, group, Path(folder).absolute() / "trackio"
        self.run_id: str | None = None
        self._run: Any = None

    def start(
        self, config: Mapping[str, Any], *, name: str, group: str, tags: Sequence[str], resume: str | None = None,
        job: str | None = None,
    ) -> None:  # fmt: skip
        os.environ.setdefault("TRACKIO_DIR", str(self.folder))  # trackio reads it when imported
        import trackio

        with redirect_stdout(None):  # stdout is for the record's path
            self._run = trackio.init(
                project=self.project, name=resume or name, group=self.group or group,
                config={**config, "tags": list(tags), "job": job or "train"}, embed=False,
                resume="allow" if resume else "never", auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        self.run_id = self._run.name

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({key: value for key, value in metrics.items() if key != "step"}, step=step)

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        import trackio

        for path in files:
            self._run.log_artifact(str(path), name=f"{name}-{path.name}", type=kind)
        self._run.log({path.stem: trackio.Image(str(path)) for path in files if path.suffix == ".png"})

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        if self._run is not None:
            numbers = {f"summary/{key}": value for key, value in summary.items() if isinstance(value, int | float)}
            self._run.log({**numbers, "summary/failed": int(failed)})
            import trackio

            with redirect_stdout(None):
                trackio.finish()
            self._run = None

    def abandon(self) -> None:
        self._run = None
