"""A table's plan: the margin of equivalence, and the few comparisons that were meant to answer its question."""

from collections.abc import Mapping
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
class Plan:
    """The question of a table.

    Attributes:
        margin: differences within ± margin points are equivalent.
        primary: None: all comparisons of the table are one family.
    """

    margin: float = MARGIN
    primary: Primary | None = None
