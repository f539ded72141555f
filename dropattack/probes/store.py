"""The measurements on finished runs: `<scale>/probes.jsonl` has one line per run and kind.

A line of kind `probes` is by `suite`, one of kind `plane`, `rays` or `line` by `landscape`. Its run is the name of the
run's record; a line between two runs has both names, joined by `--`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropattack import jsonl

STORE, SCHEMA = "probes.jsonl", 1
PROBES = "probes"
PARTS = {PROBES: ("run_id", "options", PROBES), **dict.fromkeys(("plane", "rays", "line"), ("description", "axes"))}


def key(content: Mapping[str, Any]) -> str:
    """Return the key of a line's content: its run and kind.

    Raises:
        ValueError: it is of no kind, or lacks a part of its kind.
    """
    kind = content["kind"]
    if content.get("schema") != SCHEMA or kind not in PARTS or not {"run", *PARTS[kind]} <= content.keys():
        raise ValueError("neither probes nor a landscape of this version")
    return f"{content['run']} {kind}"


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the contents of a store by key; none if there is no such file.

    Raises:
        UserError: a line is damaged.
    """
    return jsonl.read(path, key, "remove it and measure again")


def of_kind(path: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the contents of one kind by run; errors are those of `read`."""
    return {content["run"]: content for content in read(path).values() if content["kind"] == kind}


def landscapes(path: Path) -> list[dict[str, Any]]:
    """Return the landscapes of a store, sorted by key; errors are those of `read`."""
    found = read(path)
    return [found[name] for name in sorted(found) if found[name]["kind"] != PROBES]


def put(path: Path, content: Mapping[str, Any]) -> None:
    """Add one line, instead of an earlier one of the same run and kind.

    Raises:
        UserError: the store is damaged or cannot be written.
    """
    with jsonl.changing(path):
        kept = {**read(path), key(content): content}
        jsonl.write(path, {name: jsonl.line(one) for name, one in kept.items()})
