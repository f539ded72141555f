"""Runs along a numeric setting, for curves: grouped such that nothing else differs between the points of a line."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from dropattack.analysis.settings import differences, of_context


def with_number(frame: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Return the runs in which `setting` is a number, with that number in column `x`."""
    values = [own.get(setting) for own in frame["settings"]]
    known = [
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    ]
    return frame[known].assign(x=[float(value) for value, there in zip(values, known, strict=True) if there])


def by_context(frame: pd.DataFrame, setting: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the name of the data, that of the model, and the runs, for runs that can share a curve along `setting`.

    They agree in data set, model and training, except in what follows from the setting, such as the epochs of a recipe.
    Where a data set and model have several such groups, the name of the data says what sets each apart.

    Args:
        frame: the result of `with_number(frame, setting)`.
        setting: the setting, which is column `x`.
    """
    for (dataset, model), rows in frame.groupby(["dataset", "model"], sort=True):
        shared = [{k: str(v) for k, v in of_context(own).items() if k != setting} for own in rows["settings"]]
        free = _free(shared, rows["x"].tolist())
        apart = [{key: own.get(key) for key in free} for own in shared]
        kinds = list({str(one): one for one in apart}.values())
        for kind, differing in zip(kinds, differences(kinds), strict=True):
            said = ", ".join(f"{key.removesuffix('.name').rpartition('.')[2]}={v}" for key, v in differing.items())
            yield f"{dataset} ({said})" if said else str(dataset), str(model), rows[[one == kind for one in apart]]


def _free(shared: list[dict[str, Any]], x: list[float]) -> list[str]:
    """Return the settings that differ between runs with the same x."""
    names = sorted({key for one in shared for key in one})
    return [key for key in names if len({(own.get(key), at) for own, at in zip(shared, x, strict=True)}) > len(set(x))]
