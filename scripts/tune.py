"""Choose every method's settings on validation, with the same number of trials a method: `make tune TABLE=vision`.

Runs the trials of conf/tune/default.yaml for each data set and model of a table, in two rounds (learning rates, then
strengths at the best rate), and writes what won to conf/tuned/ (where `settings=tuned` finds it) and all trials to
results/tuning/. Trials that are done are not run again. The choice reads validation accuracy alone, and its seed is
none of the seeds that are reported.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from joblib import Parallel, delayed
from omegaconf import OmegaConf
from rich.progress import track

from dropattack import cli, experiment, record, sweep
from dropattack.config import compose, parse
from dropattack.errors import UserError
from dropattack.yamls import read_yaml

Key = tuple[str, str, str]  # dataset, model, method
Settings = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What conf/tune/ says: see there."""

    seed: int
    learning_rate: str
    rates: tuple[float, ...]
    more_rates: tuple[float, ...]
    strengths: Mapping[str, Sequence[Settings]]

    def first(self, method: str, rate: float) -> list[Settings]:
        """The learning rates, at the method's first strength; `rate` is the recipe's."""
        return [{self.learning_rate: rate * factor, **self.strengths[method][0]} for factor in self.rates]

    def second(self, method: str, best: float) -> list[Settings]:
        """The other strengths at the best rate, or, where there is one strength only, rates around the best."""
        strength, *others = self.strengths[method]
        if others:
            return [{self.learning_rate: best, **other} for other in others]
        return [{self.learning_rate: best * factor, **strength} for factor in self.more_rates]


def cells(table: sweep.Table) -> dict[Key, list[str]]:
    """(dataset, model, method) → the overrides of a table's cell, but for what tuning decides and the seed."""
    found = {}
    for grid in table.grids:
        for cell in BasicSweeper.split_arguments(parse(grid), None)[0]:
            chosen = {key: value for key, _, value in (override.partition("=") for override in cell)}
            if lacking := [group for group in ("dataset", "model", "reg") if group not in chosen]:
                raise UserError(f"table {table.name}: a grid names no {', '.join(lacking)}; tuning needs all three")
            found[chosen["dataset"], chosen["model"], chosen["reg"]] = [
                o for o in cell if not o.startswith(("settings=", "seed="))
            ]
    return found


def attempt(overrides: list[str]) -> dict[str, Any]:
    """One trial's validation accuracy, or why it has none."""
    try:
        found = record.read(experiment.run(compose(experiment.CONF, overrides)))
        return {"validation_accuracy": found["validation"]["accuracy"], "run_id": found["run_id"]}
    except (UserError, experiment.DivergedError) as error:
        return {"validation_accuracy": None, "error": str(error)}


def planned(path: Path) -> Plan:
    """The plan of conf/tune/.

    Raises:
        UserError: a key is missing or of another kind, a setting does not exist, or methods get unequal trials.
    """
    values = read_yaml(path)
    if missing := [key for key in Plan.__dataclass_fields__ if key not in values]:
        raise UserError(f"{path} lacks {', '.join(missing)}; add it")
    for key in ("rates", "more_rates"):
        factors = values[key]
        if not isinstance(factors, list) or not factors or not all(_positive(f) for f in factors):
            raise UserError(f"{path}: {key} has to be a list of factors above 0, such as [1, 0.33, 3]")
    strengths = values["strengths"]
    for method, tried in strengths.items() if isinstance(strengths, dict) else [(None, None)]:
        if not isinstance(tried, list) or not tried or not all(isinstance(one, dict) for one in tried):
            raise UserError(
                f"{path}: strengths of {method} have to be a list of settings, such as {{reg.epsilon: 1.0}}"
            )
        # A key that the config does not have would fail every trial, hours later.
        settings = {key: value for one in tried for key, value in one.items()}
        compose(experiment.CONF, [f"reg={method}", *_overrides(settings)])
        if (others := len(tried) - 1 or len(values["more_rates"])) != len(values["more_rates"]):
            raise UserError(f"{path}: {method} would get {others} trials in the second round, and a method of one "
                            f"strength {len(values['more_rates'])}; give all the same number")  # fmt: skip
    return Plan(values["seed"], str(values["learning_rate"]), tuple(values["rates"]), tuple(values["more_rates"]),
                strengths)  # fmt: skip


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _overrides(settings: Settings) -> list[str]:
    return [f"{key}={str(value).lower()}" for key, value in settings.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a file of conf/table/ whose grids name dataset, model and reg")
    parser.add_argument("--scale", default="mini", choices=("full", "mini", "smoke"))
    parser.add_argument("--jobs", type=int, default=2, help="trials at once (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tuning"))
    parser.add_argument("--results", type=Path, default=Path("results/tuning"))
    parser.add_argument("--conf", type=Path, default=experiment.CONF / "tuned" / "tuned", help="where the choice goes")
    args = parser.parse_args()
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    plan = planned(experiment.CONF / "tune" / "default.yaml")
    common = [f"scale={args.scale}", f"seed={plan.seed}", "tracker=none", "trainer.threads=1",
              "trainer.progress=none", "trainer.checkpoint.every_epochs=0", f"paths.output={args.output}"]  # fmt: skip
    wanted = cells(sweep.load(experiment.CONF, args.table))
    if unplanned := sorted({method for *_, method in wanted} - set(plan.strengths)):
        raise UserError(
            f"conf/tune/default.yaml has no strengths of {', '.join(unplanned)}; add as many as others have"
        )
    bases = {key: [*common, *cell] for key, cell in wanted.items()}
    recipes = {key: compose(experiment.CONF, base).model.recipe.learning_rate for key, base in bases.items()}
    tried = trials({key: plan.first(key[2], rate) for key, rate in recipes.items()}, bases, args.jobs)
    second = {key: plan.second(key[2], best["settings"][plan.learning_rate])
              for key, outcomes in tried.items() if (best := winner(outcomes))}  # fmt: skip
    for key, outcomes in trials(second, bases, args.jobs).items():
        tried[key] += outcomes
    for key, outcomes in tried.items():
        write(args, key, outcomes)
    return 0


def trials(
    wanted: Mapping[Key, list[Settings]], bases: Mapping[Key, list[str]], jobs: int
) -> dict[Key, list[dict[str, Any]]]:
    """Run the settings wanted of each cell; returns them with what came out, in the same order."""
    todo = [(key, settings) for key, several in wanted.items() for settings in several]
    calls = (delayed(attempt)([*bases[key], *_overrides(settings)]) for key, settings in todo)
    outcomes = Parallel(n_jobs=jobs, return_as="generator")(calls)
    found: dict[Key, list[dict[str, Any]]] = {key: [] for key in wanted}
    for (key, settings), outcome in zip(todo, track(outcomes, description="trials", total=len(todo)), strict=True):
        found[key].append({"settings": settings, **outcome})
    return found


def winner(outcomes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The best on validation, the earliest at a tie; None where no trial came to an end."""
    ranked = [trial for trial in outcomes if trial["validation_accuracy"] is not None]
    return max(ranked, key=lambda trial: trial["validation_accuracy"], default=None)


def at_edge(tried: list[dict[str, Any]], best: dict[str, Any]) -> Iterator[str]:
    """The settings of the best trial that are the lowest or highest of their kind: a wider search may find more."""
    for setting, value in best["settings"].items():
        values = {trial["settings"].get(setting) for trial in tried}
        if len(values) > 1 and value in (min(values), max(values)):
            yield setting


def write(args: argparse.Namespace, key: Key, tried: list[dict[str, Any]]) -> None:
    """The winner to conf/tuned/, and all trials to results/tuning/."""
    best = winner(tried)
    if best is None:
        print(f"{'-'.join(key)}: no trial finished: {tried[0]['error']}", file=sys.stderr)
        return
    name = "-".join((args.scale, *key))
    chosen = OmegaConf.create()
    for setting, value in best["settings"].items():
        OmegaConf.update(chosen, setting, value)
    args.conf.mkdir(parents=True, exist_ok=True)
    header = f"# @package _global_\n# The best of {len(tried)} trials on validation: results/tuning/{name}.json\n"
    (args.conf / f"{name}.yaml").write_text(header + OmegaConf.to_yaml(chosen))
    args.results.mkdir(parents=True, exist_ok=True)
    content = {"chosen": best["settings"], "at_edge": list(at_edge(tried, best)), "trials": tried}
    (args.results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{name}: {best['settings']} (validation accuracy {best['validation_accuracy']:.4f})")


if __name__ == "__main__":
    sys.exit(main())
