"""A table's plan: the margin of equivalence, and the few comparisons that were meant to answer its question."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dropattack.statistics.paired import MARGIN


@dataclass(frozen=True)
class Primary:
    """The primary family: one comparison per data set. All other comparisons of the table are secondary.

    Attributes:
        method: the method.
        against: the method that it is compared with.
        datasets: the data sets of the plan; those without a comparison count in the correction.
        where: settings that select one row of the method, such as `{"reg.relative": True}`.
        declared: when the family was declared, for the table's note.
    """

    method: str
    against: str = "none"
    datasets: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    declared: str = ""

    def has(self, dataset: str, method: str, baseline: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a row with these flat settings, compared with `baseline`, belongs to the family."""
        asked = not self.datasets or dataset in self.datasets
        chosen = all(settings.get(key) == value for key, value in self.where.items())
        return (method, baseline) == (self.method, self.against) and asked and chosen


@dataclass(frozen=True)
class PlannedRow:
    """A row that a table is to have: a method on a data set.

    Attributes:
        dataset: name of the data set.
        method: name of the method.
        settings: the method's settings that the table names, such as `{"reg.epsilon": 5.0}`.
        seeds: number of seeds.
        model: name of the model; empty if the table does not name it.
    """

    dataset: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 0
    model: str = ""

    def fits(self, row: "FoundRow") -> bool:
        """Return whether a row can be this one. A setting that a record leaves out may have any value."""
        same = all(row.settings.get(key, value) == value for key, value in self.settings.items())
        models = ("", row.model, *re.findall(r"\(model=(.*)\)", row.model))  # `MiniLM (model=bert)` is bert
        return (row.dataset, row.method) == (self.dataset, self.method) and same and self.model in models

    def __str__(self) -> str:
        settings = ", ".join(f"{key.removeprefix('reg.')}={_plain(value)}" for key, value in self.settings.items())
        return f"{self.method} ({settings})" if settings else self.method


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


class FoundRow(NamedTuple):
    """A row that a table has; `settings` are flat."""

    dataset: str
    model: str
    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The question of a table.

    Attributes:
        margin: differences within ± margin points are equivalent.
        primary: None: all comparisons of the table are one family.
        rows: what the table is to have; empty if that is not known.
        timed: whether the times of steps can be compared.
    """

    margin: float = MARGIN
    primary: Primary | None = None
    rows: tuple[PlannedRow, ...] = ()
    timed: bool = True

    def seeds(self, found: FoundRow) -> int:
        """Return the number of seeds that a row is to have; 0 if that is not known."""
        own = [row for row in self.rows if row.fits(found)]
        return max(own, key=lambda row: _alike(row, found)).seeds if own else 0

    def missing(self, found: Iterable[FoundRow]) -> list[PlannedRow]:
        """Return the planned rows that are not among those found."""
        left = list(found)
        pairs = [(row, one) for row in self.rows for one in left if row.fits(one)]
        lacking = list(self.rows)
        for row, one in sorted(pairs, key=lambda pair: -_alike(*pair)):  # a row without settings takes what is left
            if row in lacking and one in left:
                lacking.remove(row)
                left.remove(one)
        return lacking


def _alike(row: PlannedRow, found: FoundRow) -> int:
    return sum(key in found.settings for key in row.settings)
