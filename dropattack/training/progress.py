"""Training progress on stderr: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from dropattack.progress import bar

Style = Literal["auto", "bar", "plain", "none"]


class Progress:
    """Show steps and epochs. Read the running loss and accuracy at most once per second, because that synchronises.

    Args:
        style: `auto` is `bar` on a terminal and `plain` elsewhere.
        steps: optimizer steps of the whole run.
        epochs: epochs of the whole run, for display.
        passes: forward-backward passes per step, shown beside the bar.
    """

    INTERVAL = 1.0  # seconds

    def __init__(self, style: Style, *, steps: int, epochs: int, passes: float) -> None:
        self.style = ("bar" if sys.stderr.isatty() else "plain") if style == "auto" else style
        self.epochs = epochs
        self._next = 0.0
        self._bar: Any = None
        if self.style == "bar":
            from rich.progress import TextColumn

            each = f"{passes:g} pass{'es' if passes != 1 else ''}/step"
            self._bar = bar(TextColumn("{task.fields[now]}"), TextColumn(each), refresh_per_second=4)
            self._task = self._bar.add_task("starting", total=steps, now="")
            self._bar.start()

    def step(self, step: int, epoch: int, running: Callable[[], dict[str, float]]) -> None:
        """Report that `step` steps are done; `epoch` counts from 0."""
        if self._bar is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.INTERVAL
        now = running()
        text = f"loss {now['loss']:.3f} acc {now['accuracy']:.3f}"
        self._bar.update(self._task, completed=step, description=f"{epoch + 1}/{self.epochs}", now=text)

    def epoch(self, entry: dict[str, Any], best: bool) -> None:
        """Report the end of an epoch."""
        if self.style == "none":
            return
        train, validation = entry["train"], entry["validation"]
        line = (f"epoch {entry['epoch']}/{self.epochs}: train loss {train['loss']:.4f} acc {train['accuracy']:.4f}, "
                f"validation loss {validation['loss']:.4f} acc {validation['accuracy']:.4f} "
                f"F1 {validation['macro_f1']:.4f}{' (best)' if best else ''}, {entry['seconds']:.1f} s")  # fmt: skip
        if self._bar is not None:
            self._bar.update(self._task, completed=entry["step"])
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
