"""Six methods, two data sets, three seeds: one table, one figure. Run with `make demo`, which resumes if interrupted.

Two processes with one torch thread each run all cells, so torch is imported twice instead of 36 times.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console

from dropattack.commands.parsing import new_parser
from dropattack.runs.experiment import Run
from dropattack.sweeps.launch import Engine, launch

OUTPUT = Path("outputs/demo")
SEEDS = (0, 1, 2)
ENGINE = Engine(jobs=2)
# The settings were chosen by validation accuracy alone, over two (pydoc) or three (digits) seeds: first those shared by
# all methods, with `none`; then each method's ε or rate among three predefined values, with defaults for the rest
# (PGD: α = ε/2). DropAttack attacks tensors of different sizes with a single ε, so its ε is relative.
SETTINGS = {
    "pydoc / lstm": (
        "dataset=pydoc dataset.fraction=0.65 dataset.validation_fraction=0.3 model=lstm model.tokenizer.max_length=32 "
        "model.hidden_size=100 model.embedding_size=100 trainer.batch_size=32 trainer.learning_rate=3e-3 "
        "trainer.epochs=8",
        {"dropattack": "reg.relative=true reg.epsilon=0.03", "pgd": "reg.epsilon=2 reg.alpha=1",
         "freelb": "reg.alpha=0.1", "fgm": "reg.epsilon=0.5", "dropout": "reg.rate=0.35", "none": ""},
    ),
    "digits / cnn": (
        "dataset=digits dataset.fraction=0.33 dataset.validation_fraction=0.4 model=cnn trainer.learning_rate=3e-3 "
        "trainer.epochs=20",
        {"dropattack": "reg.relative=true reg.epsilon=0.5", "pgd": "reg.epsilon=1 reg.alpha=0.5",
         "freelb": "reg.alpha=1", "fgm": "reg.epsilon=1", "dropout": "reg.rate=0.35", "none": ""},
    ),
}  # fmt: skip
COMMON = (
    f"scale=mini tracker=none paths.output={OUTPUT} trainer.threads=1 trainer.device=cpu trainer.progress=none "
    "trainer.checkpoint.every_epochs=0"
)


def runs() -> dict[str, list[str]]:
    """Return the overrides of every run by name, longest first so that both workers finish together."""
    return {
        f"{data} {method} seed {seed}": f"reg={method} seed={seed} {COMMON} {shared} {chosen}".split()
        for data, (shared, methods) in SETTINGS.items()
        for method, chosen in methods.items()
        for seed in SEEDS
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("demo", f"{__doc__}\nIt takes no options, and writes to {OUTPUT}/.")
    parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 140)
    asked = {name: Run.asked(given) for name, given in runs().items()}
    paths = [run.record_path for run in asked.values()]
    todo = {name: given for name, given in runs().items() if not asked[name].done()}
    names = {" ".join(given): name for name, given in todo.items()}
    try:
        failed = launch(list(todo.values()), ENGINE) if todo else {}
    except KeyboardInterrupt:
        console.print("interrupted; `make demo` resumes from here")
        return 130
    from dropattack.analysis import records, summary  # slow import (1 s), only after the progress bar

    found = records.read_records(*(path for path in paths if path.exists()))
    summary.summarize(
        found, OUTPUT / "table.md", OUTPUT / "demo.png", title="What each method gains, and what it costs",
        note=f"A demonstration: small models, small data, {len(SEEDS)} seeds.", console=console,
    )  # fmt: skip
    console.print(f"Records  {OUTPUT / 'records'}", highlight=False)
    for given, error in failed.items():
        console.print(f"failed: {names[given]}: {error}", style="red", highlight=False)
    if failed:
        console.print("`make demo` retries these and keeps the others.")
    return 0 if len(found.frame) == len(paths) else 1
