"""Code versions that train bit-identically, as far as a run has shown: `results/equivalent.yaml`.

A record keeps digests of the code that trained it (`commit.code`: model, loading and training; `commit.method`: the
regularizer). If a code change leaves every number of a committed run equal, `scripts/equivalent.py` repeats the run and
records both digests as equivalent for the runs that share its context; tables then count both.

    pheme-bigru-none-s0-c842d833c2a4:     the run that showed it
      context: 0f6c0a…                    all runs of this data, model and training
      reg: none
      code: [827835092657, 5bac4d83b995]
      method: [827835092657, 1a79a4d60de6]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.runs.yaml_io import read_yaml

FILE = Path(__file__).resolve().parents[2] / "results" / "equivalent.yaml"
# Results that must be equal if the code is equivalent: numbers, but not times and memory.
RESULTS = ("status", "validation", "test", "history", "passes_per_step", "skipped", "steps", "parameters")
MEASURED = ("seconds", "gradients")  # per epoch; excluded
LATER = "test.correct"  # which rows were right: the first records lack it, and their accuracies and losses say as much


class Equivalent:
    """Equivalent code versions declared in a file; a digest that is not in it is only equivalent to itself.

    Raises:
        UserError: the file cannot be read, or an entry lacks a key.
    """

    def __init__(self, file: Path = FILE) -> None:
        self._same: dict[tuple[str, str, str], set[str]] = {}
        for cell, entry in (read_yaml(file) if file.exists() else {}).items():
            try:
                wanted = {key: entry[key] for key in ("context", "reg", "code", "method")}
                self._join(str(wanted["context"]), "", wanted["code"])
                self._join(str(wanted["context"]), str(wanted["reg"]), wanted["method"])
            except (KeyError, TypeError) as error:
                raise UserError(f"{file}: {cell} needs context, reg, code and method; make it again with "
                                "scripts/equivalent.py") from error  # fmt: skip

    def _join(self, context: str, reg: str, digests: Any) -> None:
        joined = set(map(str, digests))
        for digest in tuple(joined):
            joined |= self._same.get((context, reg, digest), set())
        for digest in joined:
            self._same[context, reg, digest] = joined

    def code(self, context: str, digest: str) -> str:
        """Return the representative of all code digests equivalent to this one among the runs of a context."""
        return min(self._same.get((context, "", digest), {digest}))

    def method(self, context: str, reg: str, digest: str) -> str:
        """Return the representative of all digests of a method's code equivalent to this one."""
        return min(self._same.get((context, reg, digest), {digest}))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the results in which two records of one run are not bit-equal."""
    pairs = ((dict(_numbers(record.get(key), key)) for record in (one, other)) for key in RESULTS)
    found = []
    for mine, theirs in pairs:
        both = LATER in mine and LATER in theirs
        found += [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key) and (key != LATER or both)]
    return found


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in MEASURED:
                yield from _numbers(item, f"{name}.{key}")
    elif isinstance(value, list):
        yield f"{name}.length", len(value)
        for number, item in enumerate(value):
            yield from _numbers(item, f"{name}[{number}]")
    else:
        yield name, None if isinstance(value, float) and not math.isfinite(value) else value
