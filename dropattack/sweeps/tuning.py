"""Plan of `make tune` (conf/tune/), the cells it tunes, and how it selects the best trial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.runs import experiment
from dropattack.runs.config import cells, compose
from dropattack.runs.yaml_io import read_yaml
from dropattack.sweeps.table import Table

Key = tuple[str, str, str]  # dataset, model, method
Settings = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A plan of conf/tune/; the file documents the keys."""

    seed: int
    learning_rate: str
    rates: tuple[float, ...]
    strengths: Mapping[str, Sequence[Settings]]

    def first(self, method: str, rate: float) -> list[Settings]:
        """Return the first round: all learning rates at the method's first strength; `rate` is the recipe's."""
        return [{self.learning_rate: rate * factor, **self.strengths[method][0]} for factor in self.rates]

    def second(self, method: str, best: float, rate: float) -> list[Settings]:
        """Return the second round: the other strengths at the best rate, or if there are none, as many nearby rates."""
        strength, *others = self.strengths[method]
        if others:
            return [{self.learning_rate: best, **other} for other in others]
        return [{self.learning_rate: other, **strength} for other in self._beside(best, rate)]

    def _beside(self, best: float, rate: float) -> list[float]:
        """Return rates between the best one's neighbours, in equal ratios, within the range that all methods tried."""
        tried = sorted(rate * factor for factor in self.rates)
        place = min(range(len(tried)), key=lambda i: abs(tried[i] - best))
        low, high = tried[max(place - 1, 0)], tried[min(place + 1, len(tried) - 1)]
        count = max(len(several) for several in self.strengths.values()) - 1
        return [low * (high / low) ** ((i + 1) / (count + 1)) for i in range(count)]


def tuned_cells(table: Table) -> dict[Key, list[str]]:
    """Map (dataset, model, method) to the overrides of a table's cell, without the tuned settings and the seed."""
    found = {}
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
            found[key] = [o for o in cell if not o.startswith(("settings=", "seed="))]
    return found


def planned(path: Path) -> Plan:
    """Read a plan of conf/tune/.

    Raises:
        UserError: a key is missing or has the wrong type, a setting does not exist, or methods get unequal trials.
    """
    values = read_yaml(path)
    if missing := [key for key in Plan.__dataclass_fields__ if key not in values]:
        raise UserError(f"{path} lacks {', '.join(missing)}; add it")
    rates = values["rates"]
    if not isinstance(rates, list) or not rates or not all(map(_positive, rates)):
        raise UserError(f"{path}: rates must be a list of factors above 0, such as [1, 0.33, 3]")
    strengths = values["strengths"]
    for method, tried in strengths.items() if isinstance(strengths, dict) else [(None, None)]:
        if not isinstance(tried, list) or not tried or not all(isinstance(one, dict) for one in tried):
            raise UserError(f"{path}: strengths of {method} must be a list of settings, such as {{reg.epsilon: 1.0}}")
        # A key that the config does not have would fail every trial, hours later.
        settings = {key: value for one in tried for key, value in one.items()}
        compose(experiment.CONF, [f"reg={method}", *overrides(settings)])
    counts = {len(tried) for tried in strengths.values()} - {1}
    if len(counts) > 1:
        raise UserError(
            f"{path}: methods have {' or '.join(map(str, sorted(counts)))} strengths; give all the same number"
        )
    return Plan(values["seed"], str(values["learning_rate"]), tuple(rates), strengths)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def overrides(settings: Settings) -> list[str]:
    return [f"{key}={str(value).lower()}" for key, value in settings.items()]


def winner(outcomes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the trial with the best validation accuracy (ties: lowest loss), or None if no trial finished."""
    ranked = [trial for trial in outcomes if trial["validation_accuracy"] is not None]
    return max(ranked, key=lambda trial: (trial["validation_accuracy"], -trial["validation_loss"]), default=None)


def at_edge(tried: list[dict[str, Any]], best: dict[str, Any]) -> Iterator[str]:
    """Yield the best trial's settings that are the lowest or highest tried: a wider search may find better ones."""
    for setting, value in best["settings"].items():
        values = {trial["settings"].get(setting) for trial in tried}
        if len(values) > 1 and value in (min(values), max(values)):
            yield setting
