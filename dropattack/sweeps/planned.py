"""The rows that a table's grids ask for: methods on each data set, with settings and numbers of seeds."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

from dropattack.runs.config import cells, parse
from dropattack.runs.yaml_io import read_yaml
from dropattack.statistics import PlannedRow

OVERRIDE = "override /"


def planned_rows(grids: Sequence[Sequence[str]], seeds: int, experiments: Path) -> tuple[PlannedRow, ...]:
    """Return the rows of a comparison whose runs are these grids.

    Args:
        grids: of overrides.
        seeds: per cell, where the grid sets none.
        experiments: the folder of presets, which may choose data set and method.
    """
    found: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], set[str]] = {}
    for grid in grids:
        for cell in cells(grid):
            chosen = dict(override.split("=", 1) for override in cell)
            groups = {**_preset(experiments / f"{chosen.get('experiment')}.yaml"), **chosen}
            if "dataset" not in groups or "reg" not in groups:
                continue
            dataset, method = groups["dataset"], groups["reg"]
            if "dataset.task" in chosen:
                dataset = f"{dataset}-{chosen['dataset.task']}"
            settings = {key: value for key, value in chosen.items() if key.startswith("reg.")}
            if method == "compose":
                method = "+".join(yaml.safe_load(settings.pop("reg.methods", "[]")))
            key = dataset, groups.get("model", ""), method, tuple(sorted(settings.items()))
            own = found.setdefault(key, set())
            own |= {chosen["seed"]} if "seed" in chosen else set(map(str, range(seeds)))
    return tuple(
        PlannedRow(dataset, method, {key: _value(key, value) for key, value in settings}, len(own), model)
        for (dataset, model, method, settings), own in found.items()
    )


def _value(key: str, text: str) -> object:
    """Return a value as Hydra reads it; to YAML, 1e-5 is text."""
    (override,) = parse([f"{key}={text}"])
    return override.value()


@cache
def _preset(path: Path) -> Mapping[str, str]:
    """Return the groups that a preset chooses: `override /dataset: imdb` is {"dataset": "imdb"}."""
    return dict(_overridden(read_yaml(path).get("defaults", ()))) if path.is_file() else {}


def _overridden(defaults: Sequence[object]) -> Iterator[tuple[str, str]]:
    for entry in defaults:
        for key, value in entry.items() if isinstance(entry, Mapping) else ():
            if str(key).startswith(OVERRIDE):
                yield str(key).removeprefix(OVERRIDE), str(value)
