"""Six methods, two data sets, three seeds: one table, one picture. `make demo` runs it, and goes on where it stopped.

Two worker processes with one torch thread each take the runs one by one, so torch is imported twice and not 36 times.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dropattack import experiment
from dropattack.config import compose
from dropattack.record import record_path

OUTPUT = Path("outputs/demo")
SEEDS = (0, 1, 2)
SETTINGS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "pydoc / lstm": (
        ["dataset=pydoc", "dataset.fraction=0.65", "dataset.validation_fraction=0.3", "model=lstm",
         "model.tokenizer.max_length=32", "trainer.learning_rate=3e-3", "trainer.epochs=8"],
        {
            "dropattack": ["reg.relative=true", "reg.epsilon=0.1"],
            "pgd": ["reg.epsilon=2", "reg.alpha=1"],
            "freelb": ["reg.alpha=0.5"],
            "fgm": ["reg.epsilon=2"],
            "dropout": ["reg.rate=0.35"],
            "none": [],
        },
    ),
    "digits / cnn": (
        ["dataset=digits", "dataset.fraction=0.33", "dataset.validation_fraction=0.4", "model=cnn",
         "trainer.learning_rate=3e-3", "trainer.epochs=20"],
        {
            "dropattack": ["reg.relative=true", "reg.epsilon=0.15"],
            "pgd": ["reg.epsilon=1", "reg.alpha=0.5"],
            "freelb": ["reg.alpha=0.3"],
            "fgm": ["reg.epsilon=1"],
            "dropout": ["reg.rate=0.35"],
            "none": [],
        },
    ),
}  # fmt: skip
COMMON = ["scale=mini", "tracker=none", f"paths.output={OUTPUT}", "trainer.threads=1", "trainer.device=cpu",
          "trainer.progress=none", "trainer.checkpoint.every_epochs=0"]  # fmt: skip


def runs() -> dict[str, DictConfig]:
    """The name and the config of every run, the longest first so that both workers end together."""
    return {
        f"{data} {method} seed {seed}": OmegaConf.merge(config, {"seed": seed})
        for data, (shared, methods) in SETTINGS.items()
        for method, chosen in methods.items()
        for config in [compose(experiment.CONF, [f"reg={method}", *COMMON, *shared, *chosen])]
        for seed in SEEDS
    }


def train(todo: dict[str, DictConfig], total: int, console: Console) -> dict[str, str]:
    """Run what is to do; returns the name and the error of what failed."""
    failed: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        task = bar.add_task("starting two workers", total=total, completed=total - len(todo))
        futures = {pool.submit(experiment.run, config): name for name, config in todo.items()}
        try:
            for future in as_completed(futures):
                if (error := future.exception()) is not None:
                    failed[futures[future]] = f"{type(error).__name__}: {error}".splitlines()[0]
                bar.update(task, advance=1, description=futures[future])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def show(paths: list[Path], console: Console) -> int:
    """Print the table, and write it and the picture; returns the number of runs in them."""
    from dropattack.analysis import compare, figures, records, tables

    read = records.read_records(*(path for path in paths if path.exists()))
    compared = compare.compare(read.frame)
    ran = "; ".join(f"{what}: {', '.join(names)}" for what, names in compare.provenance(read.frame).items())
    notes = (f"A demonstration: small models, small data, {len(SEEDS)} seeds. {ran}.",
             *(f"Left out: {left}." for left in read.left_out))  # fmt: skip
    table = tables.comparison_table(compared, notes)
    console.print(tables.rich_table(table))
    for note in table.notes:
        console.print(note, style="dim", highlight=False)
    saved = tables.save(tables.markdown(table), OUTPUT / "table.md")
    picture = figures.gain_against_cost(
        compared, OUTPUT / "demo.png", title="What each method gains, and what it costs",
        note=f"small dot: one seed · large dot: mean · line: 95 % interval of {len(SEEDS)} seeds",
    )  # fmt: skip
    console.print(f"\nTable    {saved}\nPicture  {picture}\nRecords  {OUTPUT / 'records'}", highlight=False)
    return len(read.frame)


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    todo, paths = {}, []
    for name, config in runs().items():
        values = experiment.resolve(config)
        paths.append(record_path(values))
        if experiment.done(values) is None:
            todo[name] = config
    try:
        failed = train(todo, len(paths), console) if todo else {}
    except KeyboardInterrupt:
        console.print("interrupted; `make demo` goes on from here")
        return 130
    finished = show(paths, console)
    for name, error in failed.items():
        console.print(f"failed: {name}: {error}", style="red", highlight=False)
    if failed:
        console.print("`make demo` tries these again, and keeps the others.")
    return 0 if finished == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main())
