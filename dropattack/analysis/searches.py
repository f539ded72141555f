"""The searches of `make tune`: what they chose, how much the choice varies, and how long searches and runs took."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.analysis.encoders import model_label
from dropattack.analysis.formats import NOTHING, Table
from dropattack.errors import UserError

REPEAT = "repeat"


@dataclass(frozen=True)
class Search:
    """One file of results/tuning/.

    Attributes:
        place: data set and model, as tables name them.
        scale: of the trials.
        method: `recipe` for the recipe of plain training.
        repeat: 0 is the search that counts.
        chosen: the chosen settings.
        accuracy: mean validation accuracy of the chosen settings over the seeds they were tried with, in percent.
        trials: number of settings that were tried.
        edge: settings whose chosen value is the lowest or highest that was tried.
        seconds: time of all trials; NaN if unknown.
    """

    place: str
    scale: str
    method: str
    repeat: int
    chosen: Mapping[str, Any]
    accuracy: float
    trials: int
    edge: tuple[str, ...]
    seconds: float

    @property
    def said(self) -> str:
        return ", ".join(f"{name.rpartition('.')[2]}={_plain(value)}" for name, value in self.chosen.items())


def read_searches(folder: Path) -> list[Search]:
    """Return all searches, sorted by file name.

    Raises:
        UserError: a file is not one of these.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Search:
    scale, *cell, method = path.stem.split("-")
    repeat = 0
    if method.startswith(REPEAT):
        repeat, method = int(method.removeprefix(REPEAT) or 0), cell.pop()
    *data, model = cell
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        chosen = dict(content["chosen"])
        trials = [trial for trial in content["trials"] if trial["settings"] == chosen]
        return Search(
            place=" / ".join([*data, model_label(model)]), scale=scale, method=method,
            repeat=repeat, chosen=chosen, accuracy=100 * trials[0]["validation_accuracy"],
            trials=len(content["trials"]),
            edge=tuple(name.rpartition(".")[2] for name in content["at_edge"]),
            seconds=float(content.get("seconds", math.nan)),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a trial file of `make tune` ({type(error).__name__}: {error})") from error


def chosen_settings(folder: Path) -> Table:
    """Return the settings that `make tune` chose on validation, read from its trial files.

    Raises:
        UserError: a file is not one of these.
    """
    rows = [
        (f"{one.place} ({one.scale})", one.method, one.said, f"{one.accuracy:.2f}", str(one.trials),
         ", ".join(one.edge) or NOTHING)
        for one in read_searches(folder) if not one.repeat
    ]  # fmt: skip
    columns = ("data / model", "method", "chosen", "validation, %", "trials", "at an end of what was tried")
    note = (
        "Chosen on seeds that are not among those reported: one at mini, three at midi. Where a setting is the lowest "
        "or highest that was tried, a wider search might have found a better one."
    )
    return Table(columns, tuple(rows), 3, (note,))


def repeated_choices(folder: Path) -> Table | None:
    """Return each repeated search beside the one that counts, or None if no search was repeated."""
    searches = read_searches(folder)
    repeated = {(one.place, one.scale, one.method) for one in searches if one.repeat}
    shown = [one for one in searches if (one.place, one.scale, one.method) in repeated]
    if not shown:
        return None
    shown.sort(key=lambda one: (one.place, one.scale, one.method, one.repeat))
    first = {(one.place, one.scale, one.method): one.chosen for one in shown if not one.repeat}
    others = [one for one in shown if one.repeat]
    same = sum(first.get((one.place, one.scale, one.method)) == one.chosen for one in others)
    rows = [
        (f"{one.place} ({one.scale})", one.method, str(one.repeat) if one.repeat else "the one that counts", one.said,
         f"{one.accuracy:.2f}", str(one.trials))
        for one in shown
    ]  # fmt: skip
    note = (
        f"{len(others) - same} of {len(others)} repetitions chose another setting. Each draws other points (the first, "
        "the middle of the space, is the same) and has other seeds; nothing is chosen from them."
    )
    columns = ("data / model", "method", "repetition", "chosen", "validation, %", "trials")
    return Table(columns, tuple(rows), 4, (note,))


def hours(frames: Mapping[str, pd.DataFrame], folder: Path) -> Table:
    """Return the hours of the runs and of the searches of each scale, by the device.

    Args:
        frames: `read_records(…).frame` by the table's name, `midi, midi`. A run in several tables counts once.
        folder: of the trial files, whose device is not known: they count as that of the scale's runs with most hours.
    """
    runs: dict[tuple[str, str], dict[str, float]] = {}
    for table, frame in frames.items():
        scale = table.rpartition(", ")[2]
        for row in frame.itertuples():
            device = row.hardware.get("gpu") or "one CPU core"
            if not math.isnan(row.seconds):
                runs.setdefault((scale, device), {})[row.run_id] = row.seconds
    searched: dict[str, float] = {}
    for one in read_searches(folder):
        if not math.isnan(one.seconds):
            searched[one.scale] = searched.get(one.scale, 0.0) + one.seconds
    rows = []
    for (scale, device), own in sorted(runs.items(), key=lambda item: -sum(item[1].values())):
        trials = searched.pop(scale, math.nan)
        rows.append((scale, device, str(len(own)), _hours(sum(own.values())), _hours(trials)))
    note = "Wall-clock hours of finished runs; runs that shared a GPU or a core each count in full."
    return Table(("scale", "device", "runs", "hours of runs", "hours of searches"), tuple(sorted(rows)), 2, (note,))


def _hours(seconds: float) -> str:
    return NOTHING if math.isnan(seconds) else f"{seconds / 3600:.1f}"


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower()
