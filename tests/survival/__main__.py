"""Kill runs with SIGKILL, resume them with the same command, and compare with uninterrupted runs.

Of ten kills, five come at a random moment of the run, four while a checkpoint is written, and one while the result is
written (for these, the process is stopped first to make sure of the moment). Some runs are killed twice. Equal means
the same record except for its times, and the same best weights, bit for bit. Most runs are forked from a process that
has imported torch; every ninth cell uses `python run.py`. Each cell's result is kept in the output folder, so the same
command continues where it was stopped. Exit code 0: all are equal.
"""

import argparse
import itertools
import json
import math
import os
import random
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dropattack import provenance
from dropattack.runs.config import choices
from dropattack.runs.experiment import CONF
from tests.survival.killing import Cell, Kill, preload

COMPOSED = ("dropattack+rdrop", "fgm+rdrop")
METHODS = ("none", *sorted({*choices(CONF, "reg")} - {"none", "compose"}), *COMPOSED)
IMAGES = "dataset=digits model=cnn dataset.train_rows=320 trainer.epochs=4"  # about a second of training each
TEXTS = (
    "dataset=pydoc model=lstm dataset.train_rows=320 trainer.epochs=4",
    "dataset=pydoc model=bigru dataset.train_rows=240 trainer.epochs=4 trainer.schedule=cosine",
    "dataset=pydoc model=bert dataset.train_rows=160 trainer.epochs=3",
)
COMMON = (
    "scale=smoke dataset.validation_rows=64 tracker=none trainer.device=cpu trainer.threads=1 trainer.progress=none "
    "trainer.checkpoint.every_minutes=0.003 trainer.checkpoint.share=1"
)
AIMS = ("time", "checkpoint", "result", "checkpoint", "time", "checkpoint", "time", "checkpoint", "time", "time")
PRELOADED = ("torch._dynamo", "sklearn.datasets", "dropattack.commands.run", "dropattack.training.loop",
             "dropattack.data.encode", "dropattack.data.loader", "dropattack.models.rnn", "dropattack.models.cnn",
             "dropattack.models.bert", "dropattack.regularizers")  # fmt: skip
HEAD = ("cell (run, kill)", "entry", "killed at", "within", "newest checkpoint", "went on from", "equal")


def cells(extra: str = "") -> list[Cell]:
    """Return every method and some compositions, on images and on text, the three text models in turn.

    Each also gets the overrides in `extra`. Every third cell accumulates gradients.
    """
    found = []
    of_texts = ["fgm+awp" if method == "mixup" else method for method in METHODS]  # mixup mixes images alone
    images, texts = ([(IMAGES, method) for method in METHODS], [*zip(itertools.cycle(TEXTS), of_texts, strict=False)])
    for number, (model, method) in enumerate([*images, *texts]):
        overrides = f"{model} reg={method} {COMMON} trainer.accumulation={1 + number % 3 // 2} {extra}".split()
        name = "-".join(re.findall(r"(?:dataset|model|reg)=([\w+]+)", " ".join(overrides)))
        found.append(Cell(name, tuple(overrides), command=number % 9 == 4))
    return found


def plan(kills: int, seed: int, cells: list[Cell]) -> dict[Cell, list[list[Kill]]]:
    """Return the kills of each run of each cell, cycling through the cells; repeated cells are chosen at random."""
    drawn = random.Random(seed)
    planned: dict[Cell, list[list[Kill]]] = {cell: [] for cell in cells}
    for number in range(kills):
        turn = number // len(cells) if len(cells) % len(AIMS) == 0 else 0  # each cell gets every aim in turn
        kill = {"aim": AIMS[(number + turn) % len(AIMS)], "at": drawn.random()}
        runs = planned[cells[number % len(cells)]]
        again = drawn.random() < 0.7
        if runs and again and runs[-1][-1]["aim"] != "result":  # little is left to kill after that
            runs[-1].append(kill)
        else:
            runs.append([kill])
    return {cell: runs for cell, runs in planned.items() if runs}


def run_all(
    planned: dict[Cell, list[list[Kill]]], folder: Path, jobs: int, console: Console, until: float = math.inf
) -> list[Kill]:
    """Return the kills of all cells, but start no cell after the time `until`, of `time.time`."""
    rows: list[Kill] = []
    modules = [*PRELOADED, *(["transformers"] if any("bert" in cell.name for cell in planned) else [])]
    workers = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=preload, initargs=(modules,))
    with Progress(console=console) as bar, workers as pool:
        task = bar.add_task("kills", total=sum(len(kills) for runs in planned.values() for kills in runs))
        futures = [pool.submit(cell.kept, runs, folder, until) for cell, runs in planned.items()]
        try:
            for future in as_completed(futures):
                if found := future.result():
                    rows += found
                    bar.update(task, completed=len(rows), description=rows[-1]["cell"])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    order = [cell.name for cell in planned]
    return sorted(rows, key=lambda row: (order.index(row["cell"]), row["run"], row["kill"]))


def shown(row: Kill) -> list[str]:
    again = f" ({row['run']}, {row['kill']})" if row["kill"] > 1 or row["run"] > 1 else ""
    step = "-" if row["step"] is None else f"step {row['step']}"
    equal = f"no: {', '.join(row['differs'])}" if row["differs"] else "yes"
    return [row["cell"] + again, row["entry"], f"{row['share']:.0%}", row["within"], step, row["resumed"], equal]


def summary(rows: list[Kill]) -> str:
    places = Counter(row["within"] for row in rows)
    runs, cells = {(row["cell"], row["run"]) for row in rows}, {row["cell"] for row in rows}
    return (
        f"{len(rows)} kills of {len(runs)} runs of {len(cells)} cells, {places['preparation']} in preparation, "
        f"{places['training']} in training, {places['checkpoint']} in the writing of a checkpoint and "
        f"{places['result']} in that of the result: {sum(not row['differs'] for row in rows)} equal."
    )


def write(path: Path, rows: list[Kill], args: argparse.Namespace) -> None:
    """Write the JSON, and the table as Markdown next to it."""
    found = {"seed": args.seed, "planned": args.kills, "kills": len(rows),
             "equal": sum(not row["differs"] for row in rows), "commit": provenance.commit(),
             "versions": provenance.versions(), "hardware": provenance.hardware(), "rows": rows}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    table = "\n".join(f"| {' | '.join(line)} |" for line in [HEAD, ("---",) * len(HEAD), *map(shown, rows)])
    command = f"python -m tests.survival --kills {args.kills} --seed {args.seed} --json {path}"
    rest = f" {args.kills - len(rows)} more are planned but not made yet." if len(rows) < args.kills else ""
    text = f"# Runs that were killed\n\n{summary(rows)}{rest}\n\n`{command}`\n\n{table}\n"
    path.with_suffix(".md").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.survival", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("override", nargs="*", help="for every run, after its own")
    parser.add_argument("--kills", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their moments (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (default: %(default)s)")
    parser.add_argument("--only", default="", help="cells with this in their name, such as cnn-fgm")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no cell after this time")
    parser.add_argument("--output", type=Path, default=Path("outputs/kill_test"), help="for the runs and what is done")
    parser.add_argument("--json", type=Path, help="where the result goes, and its table as .md beside it")
    args = parser.parse_args()
    chosen = [cell for cell in cells(" ".join(args.override)) if args.only in cell.name]
    if not chosen:
        parser.error(f"no cell has {args.only!r} in its name; cells: {', '.join(cell.name for cell in cells())}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    until = time.time() + 60 * args.minutes
    rows = run_all(plan(args.kills, args.seed, chosen), args.output.resolve(), args.jobs, console, until)
    if not rows:
        print("no kill was made: give more --minutes", file=sys.stderr)
        return 1
    table = Table(*HEAD)
    for row in rows:
        table.add_row(*shown(row))
    console.print(table, summary(rows))
    if args.json:
        write(args.json, rows, args)
    return int(any(row["differs"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
