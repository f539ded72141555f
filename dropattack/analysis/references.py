"""Rows of linear models in a table: a floor for its networks, fitted on the same rows of data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.analysis.formats import NOTHING, Table
from dropattack.errors import UserError

NOTES = {
    "bag of words": "Bag of words: logistic regression on TF-IDF of words and pairs of words.",
    "linear": "Linear: logistic regression on the pixels.",
    "neighbours": "Neighbours: nearest neighbours of the pixels.",
}
CHOSEN = "{} Fitted on the same training rows, with the one setting that is best on validation."


def read_references(path: Path) -> dict[str, Any]:
    """Return what `dropattack reference` wrote to `results/<scale>/references.json`; nothing if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        for found in known.values():
            {name: float(model["test"]["accuracy"]) for name, model in found["models"].items()}, found["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error!r:.80}); make it again with `dropattack reference`") from error
    return known


def with_references(table: Table, frame: pd.DataFrame, references: dict[str, Any]) -> Table:
    """Return the table with a row per linear model above the methods of each data set that it was fitted on.

    Args:
        table: a comparison; its first column is "data set / model", its fourth the test accuracy.
        frame: the runs of the table.
        references: the result of `read_references`.
    """
    prints = {(row.dataset, row.model, row.data["fingerprint"]) for row in frame.itertuples()}
    fitted = {
        (name, model): found for name, found in references.items() for model in set(frame["model"])
        if (name, model, found["fingerprint"]) in prints
    }  # fmt: skip
    rows: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for row in table.rows:
        dataset, _, network = row[0].partition(" / ")
        if row[0] not in seen and (dataset, network) in fitted:
            for name, model in fitted[dataset, network]["models"].items():
                accuracy = f"{100 * model['test']['accuracy']:.2f}"
                rows.append((row[0], name, NOTHING, accuracy, *[NOTHING] * (len(row) - 4)))
        seen.add(row[0])
        rows.append(row)
    names = {name: None for found in fitted.values() for name in found["models"]}
    said = CHOSEN.format(" ".join(NOTES.get(name, name) for name in names))
    return replace(table, rows=tuple(rows), notes=(*table.notes, said)) if names else table
