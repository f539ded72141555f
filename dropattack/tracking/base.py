"""What a run needs of a dashboard, and the dashboard that is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Follows one run. A method may raise or hang: `Guarded` keeps that from the run."""

    run_id: str | None  # the dashboard's own name for the run, with which it is continued

    def start(
        self, config: Mapping[str, Any], *, name: str, group: str, tags: Sequence[str], resume: str | None = None,
        job: str | None = None,
    ) -> None:  # fmt: skip
        """Begin, or go on with the run that was called `resume`; `config` holds no paths and no secrets.

        `job` says what kind of work it is: None for a training, `table` for the making of one.
        """
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add numbers at an optimizer step; called once an epoch."""
        ...

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        """Keep files, such as a table and its pictures, as one versioned thing of that name and kind."""
        ...

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        """End, with the numbers that stand for the run; does nothing if there was no start."""
        ...

    def abandon(self) -> None:
        """Another call never came back: let go of what would keep the process from ending. Called beside that call."""
        ...


class NullTracker:
    """Follows nothing: the JSON record is all there is."""

    run_id: str | None = None

    def start(self, config: Mapping[str, Any], **options: Any) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        pass

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        pass

    def abandon(self) -> None:
        pass
