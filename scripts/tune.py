"""Choose every method's settings on validation, with the same number of trials a method: `make tune TABLE=vision`.

Runs the trials of conf/tune/default.yaml for each data set and model of a table, and writes what won to conf/tuned/
(where `settings=tuned` finds it) and all trials to results/tuning/. Trials that are done are not run again. The choice
reads validation accuracy alone, and its seed is none of the seeds that are reported.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from joblib import Parallel, delayed
from omegaconf import OmegaConf
from rich.progress import track

from dropattack import experiment, record, sweep
from dropattack.config import compose, parse
from dropattack.errors import UserError
from dropattack.yamls import read_yaml


def cells(table: sweep.Table) -> dict[tuple[str, str, str], list[str]]:
    """(dataset, model, method) → the overrides of a table's cell."""
    found = {}
    for grid in table.grids:
        for cell in BasicSweeper.split_arguments(parse(grid), None)[0]:
            chosen = {key: value for key, _, value in (override.partition("=") for override in cell)}
            if lacking := [group for group in ("dataset", "model", "reg") if group not in chosen]:
                raise UserError(f"table {table.name}: a grid names no {', '.join(lacking)}; tuning needs all three")
            found[chosen["dataset"], chosen["model"], chosen["reg"]] = [
                o for o in cell if not o.startswith("settings=")
            ]
    return found


def trial(base: list[str], tried: dict[str, Any], plan: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The overrides of one trial, and the settings in them that are the method's."""
    rate = compose(experiment.CONF, base).model.recipe.learning_rate
    settings = {plan["learning_rate"] if k == "learning_rate" else k: rate * v if k == "learning_rate" else v
                for k, v in tried.items()}  # fmt: skip
    return [*base, *(f"{key}={str(value).lower()}" for key, value in settings.items())], settings


def attempt(overrides: list[str]) -> dict[str, Any]:
    """One trial's validation accuracy, or why it has none."""
    try:
        found = record.read(experiment.run(compose(experiment.CONF, overrides)))
        return {"validation_accuracy": found["validation"]["accuracy"], "run_id": found["run_id"]}
    except (UserError, experiment.DivergedError) as error:
        return {"validation_accuracy": None, "error": str(error)}


def planned(path: Path) -> dict[str, Any]:
    """The plan of conf/tune/: `seed`, what `learning_rate` sets, and a list of `trials` for each method."""
    plan = read_yaml(path)
    if missing := [key for key in ("seed", "learning_rate", "trials") if key not in plan]:
        raise UserError(f"{path} lacks {', '.join(missing)}; add it")
    for method, tried in plan["trials"].items() if isinstance(plan["trials"], dict) else [(None, None)]:
        if not isinstance(tried, list) or not tried or not all(isinstance(one, dict) for one in tried):
            raise UserError(f"{path}: trials of {method} have to be a list of settings, such as {{reg.epsilon: 1.0}}")
        settings = {key: value for one in tried for key, value in one.items() if key != "learning_rate"}
        # A key that the config does not have would fail every trial, hours later.
        compose(experiment.CONF, [f"reg={method}", *(f"{key}={str(value).lower()}" for key, value in settings.items())])
    return plan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a file of conf/table/ whose grids name dataset, model and reg")
    parser.add_argument("--scale", default="mini", choices=("full", "mini", "smoke"))
    parser.add_argument("--jobs", type=int, default=2, help="trials at once (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tuning"))
    parser.add_argument("--results", type=Path, default=Path("results/tuning"))
    parser.add_argument("--conf", type=Path, default=experiment.CONF / "tuned" / "tuned", help="where the choice goes")
    try:
        return run(parser.parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    plan = planned(experiment.CONF / "tune" / "default.yaml")
    common = [f"scale={args.scale}", f"seed={plan['seed']}", "tracker=none", "trainer.threads=1",
              "trainer.progress=none", "trainer.checkpoint.every_epochs=0", f"paths.output={args.output}"]  # fmt: skip
    wanted = cells(sweep.load(experiment.CONF, args.table))
    if unplanned := sorted({method for *_, method in wanted} - set(plan["trials"])):
        raise UserError(f"conf/tune/default.yaml has no trials of {', '.join(unplanned)}; add as many as others have")
    todo = [(key, *trial([*common, *cell], tried, plan)) for key, cell in wanted.items()
            for tried in plan["trials"][key[2]]]  # fmt: skip
    work = Parallel(n_jobs=args.jobs, return_as="generator")(delayed(attempt)(overrides) for _, overrides, _ in todo)
    outcomes = list(track(work, description="trials", total=len(todo)))
    for key in dict.fromkeys(key for key, *_ in todo):
        own = [{"settings": settings, **outcome}
               for (other, _, settings), outcome in zip(todo, outcomes, strict=True) if other == key]  # fmt: skip
        write(args, key, own)
    return 0


def write(args: argparse.Namespace, key: tuple[str, str, str], trials: list[dict[str, Any]]) -> None:
    """The winner (the earliest, at a tie) to conf/tuned/, and all trials to results/tuning/."""
    ranked = [t for t in trials if t["validation_accuracy"] is not None]
    if not ranked:
        print(f"{'-'.join(key)}: no trial finished: {trials[0]['error']}", file=sys.stderr)
        return
    best = max(ranked, key=lambda t: t["validation_accuracy"])
    name = "-".join((args.scale, *key))
    chosen = OmegaConf.create()
    for setting, value in best["settings"].items():
        OmegaConf.update(chosen, setting, value)
    args.conf.mkdir(parents=True, exist_ok=True)
    header = f"# @package _global_\n# The best of {len(trials)} trials on validation: results/tuning/{name}.json\n"
    (args.conf / f"{name}.yaml").write_text(header + OmegaConf.to_yaml(chosen))
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"{name}.json").write_text(
        json.dumps({"chosen": best["settings"], "trials": trials}, indent=1) + "\n"
    )
    print(f"{name}: {best['settings']} (validation accuracy {best['validation_accuracy']:.4f})")


if __name__ == "__main__":
    sys.exit(main())
