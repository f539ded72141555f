"""Measure what checkpoints cost with the default schedule: their share of a run's time, fsync included.

`python scripts/checkpoint_overhead.py` trains three small runs from scratch (minutes) and fails if any share is above
2 %. It accepts more overrides: `scale=smoke`, or `trainer.checkpoint.every_minutes=1`.
"""

import argparse
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from dropattack.runs import experiment, record
from dropattack.runs.config import compose

CELLS = ("dataset=imdb model=lstm", "dataset=mnist model=cnn", "dataset=imdb model=bert")
COMMON = "scale=mini tracker=none trainer.device=cpu trainer.threads=1 trainer.progress=none"
PROMISE = 0.02


def measure(overrides: list[str]) -> tuple[dict[str, Any], list[float]]:
    """Return the record of a run, and the seconds that each of its checkpoints took."""
    from dropattack.training.loop import Trainer

    took: list[float] = []
    save = Trainer._save

    def timed(trainer: Trainer) -> None:
        start = time.perf_counter()
        save(trainer)
        took.append(time.perf_counter() - start)

    Trainer._save = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = compose(experiment.CONF, [*overrides, f"paths.output={folder}"])
            return record.read(experiment.run(config)), took
    finally:
        Trainer._save = save  # type: ignore[method-assign]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("override", nargs="*", help="for each run, after those of the script")
    overrides = [*COMMON.split(), *parser.parse_args().override]
    table, worst = Table("run", "steps", "training and validation (s)", "checkpoints", "saving (s)", "share"), 0.0
    for cell in CELLS:
        run, took = measure([*cell.split(), *overrides])
        share = sum(took) / (sum(took) + run["seconds"])
        worst = max(worst, share)
        numbers = run["steps"], f"{run['seconds']:.1f}", len(took), f"{sum(took):.2f}", f"{share:.2%}"
        table.add_row(cell, *map(str, numbers))
    Console().print(table)
    return int(worst > PROMISE)


if __name__ == "__main__":
    sys.exit(main())
