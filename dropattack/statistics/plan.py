"""A table's plan: the margin of equivalence, and the few comparisons that were meant to answer its question."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

    def has(self, method: str, baseline: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a row with these flat settings, compared with `baseline`, belongs to the family."""
        chosen = all(settings.get(key) == value for key, value in self.where.items())
        return (method, baseline) == (self.method, self.against) and chosen


@dataclass(frozen=True)
class PlannedRow:
    """A row that a table is to have: a method on a data set.

    Attributes:
        dataset: name of the data set.
        method: name of the method.
        settings: the method's settings that the table names, as written there, such as `{"reg.epsilon": "5.0"}`.
        seeds: number of seeds.
    """

    dataset: str
    method: str
    settings: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 0

    def fits(self, dataset: str, method: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a row with these flat settings can be this one."""
        same = all(_same(settings.get(key), text) for key, text in self.settings.items())
        return (dataset, method) == (self.dataset, self.method) and same

    def __str__(self) -> str:
        settings = ", ".join(f"{key.removeprefix('reg.')}={value.lower()}" for key, value in self.settings.items())
        return f"{self.method} ({settings})" if settings else self.method


def _same(value: Any, text: str) -> bool:
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value).lower() == text.lower()


@dataclass(frozen=True)
class Plan:
    """The question of a table.

    Attributes:
        margin: differences within ± margin points are equivalent.
        primary: None: all comparisons of the table are one family.
        rows: what the table is to have; empty if that is not known.
    """

    margin: float = MARGIN
    primary: Primary | None = None
    rows: tuple[PlannedRow, ...] = ()

    def seeds(self, dataset: str, method: str, settings: Mapping[str, Any]) -> int:
        """Return the number of seeds that a row is to have; 0 if that is not known."""
        own = [row for row in self.rows if row.fits(dataset, method, settings)]
        return max(own, key=lambda row: len(row.settings)).seeds if own else 0  # the one that says most about itself

    def missing(self, found: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[PlannedRow]:
        """Return the planned rows that are not among those found, each a data set, a method and flat settings."""
        left = list(found)
        lacking = []
        for row in sorted(self.rows, key=lambda row: -len(row.settings)):  # a row without settings takes what is left
            own = next((one for one in left if row.fits(*one)), None)
            if own is None:
                lacking.append(row)
            else:
                left.remove(own)
        return [row for row in self.rows if row in lacking]
