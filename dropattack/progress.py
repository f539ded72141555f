"""Progress of long work on stderr: a bar on a terminal, otherwise one line per item."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def bar(*columns: Any, **options: Any) -> Any:
    """Return a rich progress bar on stderr: description, share, count, the given columns, and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    first = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()
    last = TimeRemainingColumn(compact=True), TextColumn("left")
    return Progress(*first, *columns, *last, console=Console(stderr=True), **options)


@contextmanager
def counting(unit: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Count `total` items, such as `runs`, of which `done` are done; call the result with each finished item's name."""
    if not sys.stderr.isatty():

        def line(name: str) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{total}] {name}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.markup import escape
    from rich.progress import TextColumn

    with bar(TextColumn(unit)) as shown:
        task = shown.add_task("starting", total=total, completed=done)
        yield lambda name: shown.update(task, advance=1, description=escape(name))
