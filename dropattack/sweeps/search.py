"""Run a plan's searches, and write the chosen settings and all trials."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dropattack.errors import UserError
from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.runs.experiment import Run
from dropattack.sweeps import tuning
from dropattack.sweeps.launch import Engine, launch
from dropattack.sweeps.table import TableConfig


@dataclass(frozen=True)
class Search:
    """Searches at one scale.

    Attributes:
        plan: what is tried.
        scale: the scale of the trials.
        output: the trials' output folder.
        results: the folder of the files with all trials.
        conf: the folder in which the chosen settings are written: `settings/tuned/` and `recipe/`.
        jobs: concurrent trials.
        repeat: 0 is the search that counts; 1, 2, … repeat it with other points and seeds, and choose nothing.
    """

    plan: tuning.TuningPlan
    scale: str
    output: Path
    results: Path
    conf: Path
    jobs: int
    repeat: int = 0

    def recipes(self, table: TableConfig, only: Set[str]) -> bool:
        """Search the recipe of plain training for each model and data set of a table, or only for some data sets.

        Returns:
            Whether all were found.
        """
        cells = {(dataset, model): base for (dataset, model, _), base in tuning.tuned_cells(table).items()}
        found = True
        for (dataset, model), base in cells.items():
            if only and dataset not in only:
                continue
            plain = [override for override in base if not override.startswith("reg=")]
            found &= self._search((dataset, model, tuning.RECIPE), [*plain, "reg=none"])
        return found

    def methods(self, table: TableConfig, only: Mapping[str, set[str]]) -> bool:
        """Search each cell's settings.

        Args:
            table: the table whose cells are searched.
            only: the data sets and methods to search (`dataset`, `reg`), or empty for all.

        Returns:
            Whether all were found.

        Raises:
            UserError: the plan has no settings for a method of the table.
        """
        wanted = tuning.tuned_cells(table)
        followed = {**dict.fromkeys(self.plan.methods), **self.plan.follows}
        if unplanned := sorted({method for *_, method in wanted} - set(followed)):
            raise UserError(f"the plan of scale {self.scale} has no settings for {', '.join(unplanned)}; add them")
        chosen = {
            key: base for key, base in wanted.items()
            if key[0] in only.get("dataset", {key[0]})
            and only.get("reg", {key[2]}) & {key[2], followed[key[2]]}  # a control comes with its method
        }  # fmt: skip
        found = [self._search(key, base) for key, base in chosen.items() if followed[key[2]] is None]
        for key in chosen:
            other = followed[key[2]]
            if other is not None and not self.repeat:
                self._follow(key, other, chosen[key])
        return all(found)

    def _search(self, key: tuning.Key, base: list[str]) -> bool:
        method = key[2]
        common = [f"scale={self.scale}", "tracker=none", "trainer.threads=1", "trainer.checkpoint.every_epochs=0",
                  f"paths.output={self.output}", *base, *self.plan.rows_of(method, key[0])]  # fmt: skip
        config: Any = OmegaConf.to_container(compose(experiment.CONF, common), resolve=True)
        trials: list[dict[str, Any]] = [
            {"settings": settings} for settings in self.plan.settings(method, config, self.repeat)
        ]
        entered = trials
        for count, seeds in self.plan.rungs_of(method, key[0]):
            entered = entered[:count]
            runs = {
                (place, seed): [*common, *tuning.overrides(trial["settings"]), f"seed={seed}"]
                for place, trial in enumerate(entered) for seed in self.plan.seeds(seeds, self.repeat)
            }  # fmt: skip
            launch([run for run in runs.values() if not Run.asked(run).done()], Engine(jobs=self.jobs))
            for place, trial in enumerate(entered):
                outcomes = [_outcome(run, seed) for (other, seed), run in runs.items() if other == place]
                trial.update(tuning.summarised(trial["settings"], outcomes))
                if failed := [one for one in outcomes if one.get("status", "diverged") != "diverged"]:
                    print(f"{'-'.join(key)}: a trial has no result, so nothing is chosen: {failed[0]['error']}; the "
                          "same command tries it again", file=sys.stderr)  # fmt: skip
                    return False
            entered = tuning.ranked(entered)
            if not entered:
                print(f"{'-'.join(key)}: no trial finished: {_error(trials)}", file=sys.stderr)
                return False
        self._write(key, trials, (tuning.frugal(entered) if method == tuning.RECIPE else entered)[0])
        return True

    def _follow(self, key: tuning.Key, other: str, base: list[str]) -> None:
        """Give a control the settings of the method it controls for, also those that are defaults of that method."""
        path = self._tuned(*key[:2], other)
        if not path.is_file():
            raise UserError(
                f"{key[2]} takes the settings of {other}, which has none for {key[0]}; search {other} first"
            )
        cell = [f"scale={self.scale}", *(override for override in base if not override.startswith("reg="))]
        own, followed = (compose(experiment.CONF, [*cell, f"reg={method}"]).reg for method in (key[2], other))
        text = path.read_text()
        chosen = OmegaConf.create(text)
        for option in own:
            differs = option not in ("_target_", "name") and option in followed and own[option] != followed[option]
            if differs and OmegaConf.select(chosen, f"reg.{option}") is None:
                OmegaConf.update(chosen, f"reg.{option}", followed[option])
        header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        self._tuned(*key).write_text(header + OmegaConf.to_yaml(chosen))

    def _tuned(self, dataset: str, model: str, method: str) -> Path:
        return self.conf / "settings" / "tuned" / f"{self.scale}-{dataset}-{model}-{method}.yaml"

    def _write(self, key: tuning.Key, trials: list[dict[str, Any]], best: dict[str, Any]) -> None:
        name = "-".join((self.scale, *key)) + (f"-repeat{self.repeat}" if self.repeat else "")
        content = {
            "chosen": best["settings"], "at_edge": list(tuning.at_edge(trials, best)),
            "passes": sum(one.get("passes") or 0 for trial in trials for one in trial["seeds"]),
            "seconds": sum(one.get("seconds") or 0 for trial in trials for one in trial["seeds"]), "trials": trials,
        }  # fmt: skip
        self.results.mkdir(parents=True, exist_ok=True)
        (self.results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        shown = f"validation accuracy {best['validation_accuracy']:.4f} over {len(best['seeds'])} seeds"
        print(f"{name}: {best['settings']} ({shown})", flush=True)
        if self.repeat:
            return
        is_recipe = key[2] == tuning.RECIPE
        path = self.conf / "recipe" / f"{self.scale}-{key[0]}-{key[1]}.yaml" if is_recipe else self._tuned(*key)
        chosen = OmegaConf.create()
        for setting, value in best["settings"].items():  # a recipe holds defaults, which trainer.… still overrides
            OmegaConf.update(chosen, setting.replace("trainer.", "model.recipe.", 1) if is_recipe else setting, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = (
            f"# @package _global_\n# Chosen among {len(trials)} settings on validation: results/tuning/{name}.json\n"
        )
        path.write_text(header + OmegaConf.to_yaml(chosen))


def _outcome(overrides: list[str], seed: int) -> dict[str, Any]:
    """Return a trial's result on one seed: validation metrics, cost and code, or the reason why it has none."""
    path = Run.asked(overrides).record_path
    if (status := record.is_done(path)) != "finished":
        lacking = {"seed": seed, "validation_accuracy": None, "error": record.why(path)}
        return lacking if status == "diverged" else {**lacking, "status": "failed"}
    found = record.read(path)
    chosen_on = {f"validation_{key}": found["validation"][key] for key in ("accuracy", "loss", "epoch")}
    return {
        "seed": seed, **chosen_on, "passes": found["steps"] * found["passes_per_step"], "seconds": found["seconds"],
        "epochs": found["config"]["trainer"]["epochs"], "rows": found["data"]["sizes"]["validation"],
        "run_id": found["run_id"], "commit": found["commit"], "fingerprint": found["data"]["fingerprint"],
    }  # fmt: skip


def _error(trials: list[dict[str, Any]]) -> str:
    return next((str(one["error"]) for trial in trials for one in trial["seeds"] if "error" in one), "unknown")
