"""Train every combination of several values: `dropattack run --multirun`."""

from collections.abc import Sequence

from dropattack.commands import run


def main(argv: Sequence[str] | None = None) -> int:
    return run.main(argv, program="dropattack sweep", sweep=True)
