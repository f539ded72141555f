"""The tracker interface, and the tracker that does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Track one run. Methods may raise or hang: `Guarded` protects the run from that."""

    run_id: str | None  # the dashboard's own name for the run, used to resume it

    def start(
        self, config: Mapping[str, Any], *, name: str, group: str, tags: Sequence[str], resume: str | None = None,
        job: str | None = None,
    ) -> None:  # fmt: skip
        """Start a run, or resume the run named `resume`; `config` holds no paths and no secrets.

        `job` is the kind of work: None for a training run, `table` for making a table.
        """
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics at an optimizer step; called once per epoch."""
        ...

    def publish(self, files: Sequence[Path], *, name: str, kind: str) -> None:
        """Publish files, such as a table and its figures, as one versioned artifact of that name and kind."""
        ...

    def finish(self, summary: Mapping[str, Any], *, failed: bool = False) -> None:
        """End the run with its summary metrics; do nothing if it was not started."""
        ...

    def abandon(self) -> None:
        """Release what would keep the process alive, while another call hangs. Called from another thread."""
        ...


class NullTracker:
    """Track nothing: only the JSON record is written."""

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
