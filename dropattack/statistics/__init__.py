"""Statistics over a few seeds and a few data sets: estimates, paired differences, verdicts, power, pooled answers.

Every estimate carries its n. What cannot be estimated is NaN, without a warning.
"""

from dropattack.statistics.paired import (
    BETTER,
    EQUIVALENT,
    MARGIN,
    MIN_SEEDS,
    UNKNOWN,
    VERDICTS,
    WORSE,
    Estimate,
    PairedDifference,
    equivalence,
    estimate,
    holm,
    paired_difference,
    verdict,
)
from dropattack.statistics.plan import FoundRow, Plan, PlannedRow, Primary

__all__ = [
    "BETTER", "EQUIVALENT", "MARGIN", "MIN_SEEDS", "UNKNOWN", "VERDICTS", "WORSE", "Estimate", "FoundRow",
    "PairedDifference", "Plan", "PlannedRow", "Primary", "equivalence", "estimate", "holm", "paired_difference",
    "verdict",
]  # fmt: skip
