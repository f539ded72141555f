"""Find what is in results/: records of tables, probes, landscapes, benchmarks, the kill test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.data_efficiency import Less, data_efficiency
from dropattack.analysis.records import Records, read_records
from dropattack.analysis.tables import Published, read_published
from dropattack.analysis.training_gradients import with_norms
from dropattack.errors import UserError
from dropattack.probes import store as probed
from dropattack.runs import store
from dropattack.statistics import Plan

# The value of a table at each scale.
SCALES = {
    "full": "full: the paper's size",
    "midi": "midi: all training rows and word vectors, for networks of about 100 units",
    "mini": "mini: real data, reduced; an indication, not a result",
    "smoke": "smoke: checks that it runs",
}


class TableSpec(Protocol):
    """A table in conf/table/, as read by `load_table`."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def seeds(self) -> int: ...
    @property
    def x(self) -> str | None: ...
    @property
    def y(self) -> str | None: ...
    @property
    def plan(self) -> Plan: ...


@dataclass(frozen=True)
class Found:
    """A table that has records."""

    table: TableSpec
    scale: str
    folder: Path
    records: Records
    published: Published | None

    @property
    def frame(self) -> pd.DataFrame:
        return self.records.frame

    @cached_property
    def compared(self) -> pd.DataFrame:
        return compare(self.frame, plan=self.table.plan)

    @cached_property
    def normed(self) -> pd.DataFrame:
        """The runs that measured gradient norms; see `with_norms`."""
        return with_norms(self.frame)

    @cached_property
    def probed(self) -> pd.DataFrame:
        """The runs that have probes in the store of their scale; see `with_probes`."""
        from dropattack.analysis.probes import with_probes  # slow import (1 s)

        return with_probes(self.frame, self.folder.parent / probed.STORE)

    @cached_property
    def less(self) -> list[Less]:
        """A curve's comparisons with the baseline at the most of its setting; see `data_efficiency`."""
        return data_efficiency(self.frame, self.table.x, margin=self.table.plan.margin) if self.table.x else []


def tables(results: Path, asked: Sequence[TableSpec]) -> tuple[list[Found], dict[str, list[str]]]:
    """Return the tables with a finished run, in the order of `asked`, and what was left out of the others."""
    found, empty = [], {}
    known = read_published(results / "reference.yaml")
    for table in asked:
        for scale in SCALES:
            folder = results / scale / table.name
            if not store.is_table(folder):
                continue
            records = read_records(folder)
            if records.frame.empty:
                empty[f"{scale}/{table.name}"] = [str(left) for left in records.left_out]
            else:
                found.append(Found(table, scale, folder, records, known.get(table.name)))
    return found, empty


def landscapes(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the landscapes of all scales, and a message for each unreadable store."""
    found: list[dict[str, Any]] = []
    left_out = []
    for path in sorted(results.glob(f"*/{probed.STORE}")):
        try:
            found += probed.landscapes(path)
        except UserError as error:
            left_out.append(str(error))
    return found, left_out


def benchmarks(results: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Return the name and content of each benchmark, and a message for each unreadable one."""
    read, left_out = [], []
    for path in sorted((results / "bench").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            read.append((path.stem, dict(content)))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            left_out.append(f"{path.name}: {type(error).__name__}: {error}")
    return read, left_out
