"""Findings on one method over all tables: against the baseline, and against every other method."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.encoders import model_label
from dropattack.analysis.records import training_rows
from dropattack.analysis.tables import (
    NOTHING,
    Table,
    difference_and_interval,
    mean_and_spread,
    p_value,
    seed_count,
)
from dropattack.errors import UserError
from dropattack.statistics import PairedDifference, Plan, holm, verdict

NONE = "none"


def against_baseline(
    frames: Mapping[str, pd.DataFrame], method: str = "dropattack", plans: Mapping[str, Plan] | None = None
) -> Table:
    """Return a comparison with the baseline: one row per cell of the method, with the verdict of the cell's own table.

    Args:
        frames: `read_records(…).frame` by the table's name.
        method: the method.
        plans: by the table's name; a table without one has the default plan.
    """
    rows = []
    for table, frame in frames.items():
        cells = compare(frame, plan=(plans or {}).get(table))
        own = cells[cells["method"] == method]
        several = len({settings.get("reg.relative") for settings in own["settings"]}) > 1  # ε of two kinds
        for row in own.itertuples():
            plain = cells[(cells["context"] == row.context) & (cells["method"] == NONE)]
            if plain.empty:
                continue
            rows.append((
                f"{row.dataset_label} / {row.model}", _with_strength(row) if several else str(row.method_label), table,
                training_rows(frame[frame["context"] == row.context]) or NOTHING, str(row.pairs),
                mean_and_spread(plain.iloc[0]["score"]), mean_and_spread(row.score),
                row.why or difference_and_interval(row.difference), p_value(row.p_holm),
                row.verdict or NOTHING, seed_count(row.seeds_for_one),
                NOTHING if math.isnan(row.cost) else f"{row.cost:.1f}×",
            ))  # fmt: skip
    columns = ("data / model", "method", "table", "training rows", "pairs", "none, %", "with it, %",
               "difference [95 % interval]", "p (Holm)", "verdict", "seeds for +1", "time a step")  # fmt: skip
    return Table(columns, tuple(rows), 3)


def _with_strength(row: Any) -> str:
    """Return the method's label with its ε, which another data set of the table has in the other unit."""
    label, epsilon, relative = str(row.method_label), row.settings.get("reg.epsilon"), row.settings.get("reg.relative")
    return label if "relative=" in label else f"{label} (epsilon={epsilon}, relative={relative})"


@dataclass(frozen=True)
class Rival:
    """A method against another in one cell of a table. `difference` is its accuracy minus the other's, in points."""

    table: str
    dataset: str
    model: str
    dataset_label: str
    other: str
    other_label: str
    difference: PairedDifference
    p_holm: float
    verdict: str


def rivals(frames: Mapping[str, pd.DataFrame], method: str = "dropattack") -> list[Rival]:
    """Return comparisons with every other method, paired by seed; p-values are Holm-corrected over all of them.

    Args:
        frames: `read_records(…).frame` by the table's name. Contexts with several cells of the method are skipped.
        method: the method.
    """
    found = []
    for table, frame in frames.items():
        for row in compare(frame, baseline=method).itertuples():
            if row.method not in (method, NONE) and not row.why and row.difference.n:
                found.append((table, row, _negated(row.difference)))
    corrected = holm([difference.p for *_, difference in found])
    return [
        Rival(table, row.dataset, row.model, row.dataset_label, row.method, str(row.method_label), difference, p,
              verdict(difference, p))
        for (table, row, difference), p in zip(found, corrected, strict=True)
    ]  # fmt: skip


def _negated(d: PairedDifference) -> PairedDifference:
    return PairedDifference(-d.mean, d.sd, -d.high, -d.low, d.n, d.p, tuple(-value for value in d.values))


def against_others(found: Sequence[Rival], method: str = "dropattack") -> Table:
    """Compare the method with the other methods, each with its own settings."""
    rows = [
        (
            f"{one.dataset_label} / {one.model}", one.other_label, one.table, str(one.difference.n),
            difference_and_interval(one.difference), p_value(one.p_holm),
            one.verdict,
        )
        for one in found
    ]  # fmt: skip
    columns = ("data / model", "other method", "table", "pairs", f"{method} − other [95 % interval]", "p (Holm)",
               f"{method} is")  # fmt: skip
    tested = sum(not math.isnan(one.p_holm) for one in found)
    note = f"Paired by seed; p-values are corrected by Holm over the {tested} rows."
    return Table(columns, tuple(rows), 3, (note,))


AT_SCALE = {("mini", "bert"): "minilm"}  # `model.pretrained` in conf/model, which the trial files do not hold


def chosen_settings(folder: Path) -> Table:
    """Return the settings that `make tune` chose on validation, read from its trial files.

    Raises:
        UserError: a file is not one of these.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            best = max(t["validation_accuracy"] for t in content["trials"] if t["validation_accuracy"] is not None)
            settings, edge = dict(content["chosen"]), [name.rpartition(".")[2] for name in content["at_edge"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a trial file of `make tune` ({type(error).__name__}: {error})") from error
        scale, *cell, method = path.stem.split("-")
        *data, model = cell
        label = model_label(model, AT_SCALE.get((scale, model)))
        said = ", ".join(f"{name.rpartition('.')[2]}={_plain(value)}" for name, value in settings.items())
        where, trials = f"{' / '.join([*data, label])} ({scale})", str(len(content["trials"]))
        rows.append((where, method, said, f"{100 * best:.2f}", trials, ", ".join(edge) or NOTHING))
    columns = ("data / model", "method", "chosen", "validation, %", "trials", "at an end of what was tried")
    note = (
        "Chosen on seeds that are not among those reported: one at mini, three at midi. Where a setting is the lowest "
        "or highest that was tried, a wider search might have found a better one."
    )
    return Table(columns, tuple(rows), 3, (note,))


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower()
