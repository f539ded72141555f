"""Choose every method's settings on validation, with the same number of trials per method: `make tune TABLE=vision`.

Runs the trials of conf/tune/default.yaml for each data set and model of a table, in two rounds (learning rates, then
strengths at the best rate). Writes the best settings to conf/settings/tuned/ (used by `settings=tuned`) and all trials
to results/tuning/. Finished trials are not repeated. The choice uses validation accuracy only, with a seed that is not
among the reported ones.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, experiment, record
from dropattack.runs.config import SCALES, compose
from dropattack.runs.experiment import Run
from dropattack.sweeps import tuning
from dropattack.sweeps.launch import Engine, launch
from dropattack.sweeps.table import load_table


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("tune", __doc__)
    parser.add_argument("table", help="a file of conf/table/ whose grids name dataset, model and reg")
    parser.add_argument("--scale", default="mini", choices=SCALES)
    parser.add_argument("--jobs", type=int, default=2, help="concurrent trials (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tuning"))
    parser.add_argument("--results", type=Path, default=Path("results/tuning"))
    parser.add_argument(
        "--conf", type=Path, default=experiment.CONF / "settings" / "tuned", help="output folder of the chosen settings"
    )
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    plan = tuning.planned(experiment.CONF / "tune" / "default.yaml")
    common = [f"scale={args.scale}", f"seed={plan.seed}", "tracker=none", "trainer.threads=1",
              "trainer.progress=none", "trainer.checkpoint.every_epochs=0", f"paths.output={args.output}"]  # fmt: skip
    wanted = tuning.tuned_cells(load_table(experiment.CONF, args.table))
    if unplanned := sorted({method for *_, method in wanted} - set(plan.strengths)):
        raise UserError(
            f"conf/tune/default.yaml has no strengths for {', '.join(unplanned)}; add as many as the other methods have"
        )
    bases = {key: [*common, *cell] for key, cell in wanted.items()}
    recipes = {key: compose(experiment.CONF, base).model.recipe.learning_rate for key, base in bases.items()}
    tried = trials({key: plan.first(key[2], rate) for key, rate in recipes.items()}, bases, args.jobs)
    second = {key: plan.second(key[2], best["settings"][plan.learning_rate], recipes[key])
              for key, outcomes in tried.items() if (best := tuning.winner(outcomes))}  # fmt: skip
    for key, outcomes in trials(second, bases, args.jobs).items():
        tried[key] += outcomes
    written = [write(args, key, outcomes) for key, outcomes in tried.items()]
    return int(not all(written))


def trials(
    wanted: Mapping[tuning.Key, list[tuning.Settings]], bases: Mapping[tuning.Key, list[str]], jobs: int
) -> dict[tuning.Key, list[dict[str, Any]]]:
    """Run the settings wanted of each cell; return them with their outcomes, in the same order."""
    runs = {
        key: [[*bases[key], *tuning.overrides(settings)] for settings in several] for key, several in wanted.items()
    }
    launch([run for several in runs.values() for run in several], Engine(jobs=jobs))
    return {
        key: [{"settings": settings, **outcome(run)} for settings, run in zip(wanted[key], several, strict=True)]
        for key, several in runs.items()
    }


def outcome(overrides: list[str]) -> dict[str, Any]:
    """Return a trial's validation accuracy, or the reason why it has none."""
    path = Run.asked(overrides).record_path
    if record.is_done(path) != "finished":
        return {"validation_accuracy": None, "error": record.why(path)}
    found = record.read(path)
    chosen_on = {f"validation_{key}": found["validation"][key] for key in ("accuracy", "loss")}
    return {**chosen_on, "run_id": found["run_id"]}


def write(args: argparse.Namespace, key: tuning.Key, tried: list[dict[str, Any]]) -> bool:
    """Write the best settings to conf/settings/tuned/, all trials to results/tuning/; return whether any finished."""
    best = tuning.winner(tried)
    if best is None:
        print(f"{'-'.join(key)}: no trial finished: {tried[0]['error']}", file=sys.stderr)
        return False
    name = "-".join((args.scale, *key))
    chosen = OmegaConf.create()
    for setting, value in best["settings"].items():
        OmegaConf.update(chosen, setting, value)
    args.conf.mkdir(parents=True, exist_ok=True)
    header = f"# @package _global_\n# The best of {len(tried)} trials on validation: results/tuning/{name}.json\n"
    (args.conf / f"{name}.yaml").write_text(header + OmegaConf.to_yaml(chosen))
    args.results.mkdir(parents=True, exist_ok=True)
    content = {"chosen": best["settings"], "at_edge": list(tuning.at_edge(tried, best)), "trials": tried}
    (args.results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{name}: {best['settings']} (validation accuracy {best['validation_accuracy']:.4f})")
    return True
