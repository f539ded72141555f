"""The plan of `make tune` (conf/tune/): which settings are tried, on which seeds, and which trial wins.

A search is a successive halving over seeds. All settings are tried on one seed, the best few on more, and the winner
has the highest mean validation accuracy. The settings are scrambled Sobol points, which fill a space evenly and, unlike
a model-based search, do not depend on the order in which the trials finish: a search can run in parallel, and resume.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from dropattack.errors import UserError
from dropattack.runs import experiment
from dropattack.runs.config import cells, compose
from dropattack.runs.yaml_io import read_yaml
from dropattack.sweeps.table import TableConfig

Key = tuple[str, str, str]  # dataset, model, method
Settings = dict[str, Any]
RECIPE = "recipe"  # the name of the search that fixes the recipe, instead of a method


@dataclass(frozen=True)
class Setting:
    """How one setting is drawn from a number in 0..1.

    Attributes:
        log: (low, high): from low to high on a logarithmic scale.
        uniform: (low, high): from low to high on a linear scale.
        of: one of these values.
        value: always this value.
        times: the drawn value is multiplied by the value of this key of the cell's config, or of this setting of the
            same trial.
    """

    log: tuple[float, float] | None = None
    uniform: tuple[float, float] | None = None
    of: tuple[Any, ...] | None = None
    value: Any = None
    times: str | None = None

    @property
    def drawn(self) -> bool:
        return any(kind is not None for kind in (self.log, self.uniform, self.of))

    def at(self, place: float) -> Any:
        """Return the value at `place` in 0..1; numbers are rounded to three significant digits."""
        if self.log is not None:
            low, high = self.log
            return float(f"{low * (high / low) ** place:.3g}")
        if self.uniform is not None:
            low, high = self.uniform
            return float(f"{low + (high - low) * place:.3g}")
        if self.of is not None:
            return self.of[min(int(place * len(self.of)), len(self.of) - 1)]
        return self.value


@dataclass(frozen=True)
class OwnSearch:
    """Parts of a search that a data set has of its own; None for those of the plan.

    Attributes:
        rungs: of each method's search.
        recipe_rungs: of the recipe's search.
        rows: the number of training rows of a method's trials.
    """

    rungs: tuple[tuple[int, int], ...] | None = None
    recipe_rungs: tuple[tuple[int, int], ...] | None = None
    rows: int | None = None


@dataclass(frozen=True)
class TuningPlan:
    """A plan of conf/tune/; the files document the keys."""

    seed: int
    rungs: tuple[tuple[int, int], ...]  # (settings, seeds each)
    recipe_rungs: tuple[tuple[int, int], ...]
    recipe: Mapping[str, Mapping[str, Setting]]  # per data set
    methods: Mapping[str, Mapping[str, Setting]]
    follows: Mapping[str, str]
    of_dataset: Mapping[str, OwnSearch] = field(default_factory=dict)

    def space(self, method: str, dataset: str) -> Mapping[str, Setting]:
        """Return what is searched for a method, or for the recipe of a data set.

        Raises:
            UserError: the plan has no recipe for the data set.
        """
        if method != RECIPE:
            return self.methods[method]
        if dataset not in self.recipe:
            raise UserError(f"the plan has no recipe for {dataset}, only for {', '.join(self.recipe)}; add one")
        return self.recipe[dataset]

    def rungs_of(self, method: str, dataset: str) -> tuple[tuple[int, int], ...]:
        """Return (settings, seeds) of each round of a search: the data set's own, where the plan has them."""
        own = self.of_dataset.get(dataset, OwnSearch())
        if method == RECIPE:
            return own.recipe_rungs or self.recipe_rungs
        return own.rungs or self.rungs

    def rows_of(self, method: str, dataset: str) -> list[str]:
        """Return the override with which a trial has fewer training rows than a run, if the data set's trials have."""
        rows = self.of_dataset.get(dataset, OwnSearch()).rows
        return [f"dataset.train_rows={rows}"] if rows and method != RECIPE else []

    def seeds(self, count: int, repeat: int) -> list[int]:
        """Return the trials' seeds; each repetition of the search has its own."""
        return [self.seed + 100 * repeat + i for i in range(count)]

    def settings(self, method: str, config: Mapping[str, Any], repeat: int = 0) -> list[Settings]:
        """Return the settings that are tried: the middle of the space, then Sobol points.

        Args:
            method: a method of the plan, or `recipe`.
            config: the cell's config, for settings that are relative to a key of it.
            repeat: the number of the search; each draws other points.
        """
        from scipy.stats import qmc

        dataset = config["dataset"]["name"]
        space, count = self.space(method, dataset), self.rungs_of(method, dataset)[0][0]
        drawn = [key for key, setting in space.items() if setting.drawn]
        power = max(1, math.ceil(math.log2(max(count - 1, 1))))
        points = qmc.Sobol(max(len(drawn), 1), seed=self.seed + repeat).random_base2(power)
        places = [[0.5] * len(drawn), *points.tolist()][:count]
        return [_settings(space, dict(zip(drawn, place, strict=False)), config) for place in places]


def _settings(space: Mapping[str, Setting], places: Mapping[str, float], config: Mapping[str, Any]) -> Settings:
    found: Settings = {}
    for key, setting in space.items():
        value = setting.at(places.get(key, 0.5))
        if setting.times is not None:
            factor = found[setting.times] if setting.times in found else _look_up(config, setting.times)
            value = float(f"{value * factor:.3g}")
        found[key] = value
    return found


def _look_up(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value


def tuned_cells(table: TableConfig) -> dict[Key, list[str]]:
    """Map (dataset, model, method) to the overrides of a table's cell, without the tuned settings and the seed."""
    found: dict[Key, list[str]] = {}
    for grid in table.grids:
        for cell in cells(grid):
            chosen = {key: value for key, _, value in (override.partition("=") for override in cell)}
            if lacking := [group for group in ("dataset", "model", "reg") if group not in chosen]:
                raise UserError(f"table {table.name}: a grid names no {', '.join(lacking)}; tuning needs all three")
            if other := [key for key in chosen if key.startswith(("dataset.", "model.", "reg.", "trainer.epochs"))]:
                raise UserError(
                    f"table {table.name}: {other[0]} is not supported, because settings are tuned per data set, model "
                    "and method; tune a table without it, such as vision"
                )
            key = chosen["dataset"], chosen["model"], chosen["reg"]
            base = [o for o in cell if not o.startswith(("settings=", "seed="))]
            if found.setdefault(key, base) != base:
                raise UserError(
                    f"table {table.name} has {' and '.join(key)} with {' '.join(found[key][3:])} and with "
                    f"{' '.join(base[3:])}, but settings are tuned per data set, model and method; give one of them"
                )
    return found


def planned(path: Path) -> TuningPlan:
    """Return a plan of conf/tune/.

    Raises:
        UserError: a key is missing or has the wrong type, or a setting does not exist.
    """
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise UserError(
            f"there is no plan {path}: copy one of the others there and change its settings, or tune at a scale that "
            f"has one ({known or 'none'})"
        )
    values = read_yaml(path)
    keys = list(TuningPlan.__dataclass_fields__)
    if missing := [key for key in keys if key not in values and key != "of_dataset"]:
        raise UserError(f"{path} lacks {', '.join(missing)}; add it")
    if unknown := [key for key in values if key not in keys]:
        raise UserError(f"{path}: nothing reads {', '.join(unknown)}; its keys can be {', '.join(keys)}")
    recipe, methods = (_spaces(path, values, key) for key in ("recipe", "methods"))
    for method, space in methods.items():  # a key that the config does not have would fail every trial, hours later
        compose(experiment.CONF, [f"reg={method}", *overrides({key: one.at(0.5) for key, one in space.items()})])
    return TuningPlan(
        values["seed"], _rungs(path, "rungs", values["rungs"]), _rungs(path, "recipe_rungs", values["recipe_rungs"]),
        recipe, methods, values["follows"] or {}, _own_searches(path, values.get("of_dataset") or {}),
    )  # fmt: skip


def _rungs(path: Path, key: str, value: Any) -> tuple[tuple[int, int], ...]:
    rungs = value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else []
    pairs = [(one.get("settings"), one.get("seeds")) for one in rungs]
    whole = all(isinstance(number, int) and number > 0 for pair in pairs for number in pair)
    rising = whole and all(a[0] >= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    if not pairs or not rising:
        raise UserError(f"{path}: {key} must be a list such as [{{settings: 8, seeds: 1}}, {{settings: 3, seeds: 3}}]")
    return tuple(pairs)  # type: ignore[arg-type]


def _own_searches(path: Path, values: Any) -> dict[str, OwnSearch]:
    known = set(OwnSearch.__dataclass_fields__)
    fits = isinstance(values, dict) and all(isinstance(one, dict) and set(one) <= known for one in values.values())
    if not fits:
        raise UserError(f"{path}: of_dataset must map data sets to rungs, recipe_rungs and rows of their own")
    found = {}
    for dataset, one in values.items():
        rows = one.get("rows")
        if rows is not None and (not isinstance(rows, int) or rows < 1):
            raise UserError(f"{path}: of_dataset.{dataset}.rows must be a number of training rows, not {rows!r}")
        own = {key: _rungs(path, f"of_dataset.{dataset}.{key}", one[key]) for key in sorted(set(one) - {"rows"})}
        found[dataset] = OwnSearch(**own, rows=rows)
    return found


def _spaces(path: Path, values: Mapping[str, Any], key: str) -> dict[str, dict[str, Setting]]:
    spaces = values[key]
    if not isinstance(spaces, dict) or not all(isinstance(space, dict) for space in spaces.values()):
        raise UserError(f"{path}: {key} must map names to settings, such as fgm: {{reg.epsilon: {{log: [0.01, 1]}}}}")
    return {
        name: {setting: _setting(f"{path}: {name}: {setting}", value) for setting, value in space.items()}
        for name, space in spaces.items()
    }


def _setting(where: str, value: Any) -> Setting:
    if not isinstance(value, dict):
        return Setting(value=value)
    kinds = [kind for kind in ("log", "uniform", "of", "value") if kind in value]
    if len(kinds) != 1 or set(value) - {*kinds, "times"}:
        raise UserError(f"{where} must be a value, or one of log, uniform, of and value, with times if it is relative")
    kind = kinds[0]
    if kind in ("log", "uniform"):
        ends = value[kind]
        numbers = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
        if not numbers or not ends[0] < ends[1] or (kind == "log" and ends[0] <= 0):
            raise UserError(f"{where}: {kind} must be [low, high], with low < high{' and low > 0' * (kind == 'log')}")
    if kind == "of" and not (isinstance(value["of"], list) and value["of"]):
        raise UserError(f"{where}: of must be a list of values")
    content = tuple(value[kind]) if kind != "value" else value[kind]
    return Setting(**{kind: content}, times=value.get("times"))


def overrides(settings: Settings) -> list[str]:
    return [f"{key}={_written(value)}" for key, value in settings.items()]


def _written(value: Any) -> str:
    """Return a value as Hydra reads it: `null`, `true`, `[a,b]`."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def ranked(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trials that finished on all their seeds, best first.

    The highest mean validation accuracy wins; ties take the lower mean validation loss, then the earlier trial.
    """
    done = [trial for trial in trials if trial["validation_accuracy"] is not None]
    return sorted(done, key=lambda trial: (-trial["validation_accuracy"], trial["validation_loss"]))


def frugal(finalists: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the finalists of a recipe's search in the order of choice: best first, but the cheapest near-best leads.

    Of those within one standard error of the best (that of an accuracy on the validation rows), the one with the fewest
    passes over the data is taken, because every run of a table pays for it; ties keep their order.
    """
    best, most = finalists[0]["validation_accuracy"], max(trial["seeds"][0]["epochs"] for trial in finalists)
    error = math.sqrt(best * (1 - best) / finalists[0]["seeds"][0]["rows"])
    near = [trial for trial in finalists if trial["validation_accuracy"] >= best - error]
    return sorted(finalists, key=lambda one: one["seeds"][0]["epochs"] if one in near else most + 1)


def summarised(settings: Settings, outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a trial: its settings, the means over its seeds, and the outcome of each seed."""
    lacking = next((one for one in outcomes if one["validation_accuracy"] is None), None)
    means = {
        key: None if lacking else fmean(one[key] for one in outcomes)
        for key in ("validation_accuracy", "validation_loss")
    }
    return {"settings": settings, **means, "seeds": list(outcomes)}


def at_edge(trials: Sequence[dict[str, Any]], best: dict[str, Any]) -> Iterator[str]:
    """Yield the best trial's settings that are the lowest or highest tried: a wider search may find better ones."""
    for setting, value in best["settings"].items():
        values = {trial["settings"].get(setting) for trial in trials}
        if len(values) > 1 and not isinstance(value, str | bool) and value in (min(values), max(values)):
            yield setting
