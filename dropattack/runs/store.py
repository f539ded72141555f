"""The records of many runs in one file, and the list of runs of each table.

`<scale>/records.jsonl` has one line per run, `<scale>/<table>/runs.txt` one line per run of the table:
`<dataset>-<model>-<reg>-s<seed>-<run_id> <commit>`. A run measured by two commits has two lines, and a table says
which one it uses. Both files are sorted, so that changing one run changes one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dropattack import jsonl
from dropattack.errors import UserError
from dropattack.files import write_atomically
from dropattack.runs import identity, record

RECORDS, RUNS = "records.jsonl", "runs.txt"


def key(found: Mapping[str, Any]) -> str:
    """Return a record's key in both files: the run, and the first ten digits of its commit (`-`: none)."""
    commit = found["commit"] or {}
    return f"{identity.name(found['config'], found['run_id'])} {str(commit.get('hash', '-'))[:10]}"


def is_table(folder: Path) -> bool:
    """Return whether a folder has a list of runs."""
    return (folder / RUNS).is_file()


def runs_of(folder: Path) -> list[str]:
    """Return the keys of a table's runs.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return (folder / RUNS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RUNS} cannot be read ({error}); make the table again") from error


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a store by key.

    Raises:
        UserError: a line is not a complete record.
    """
    found = (record.parse(line, f"{path}, line {number}") for number, line in jsonl.lines(path))
    return {key(one): one for one in found}


def keep(folder: Path, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Make `records` the runs of the table in `folder`, and add them to the store of its scale.

    Records that this table used before, and that no table uses any more, are removed from the store. Each file is
    replaced atomically; tables made at the same time wait for each other.

    Returns:
        The keys that the table no longer uses.

    Raises:
        UserError: a file cannot be read or written.
    """
    store, own = folder.parent / RECORDS, {key(one): dict(one) for one in records}
    with jsonl.changing(store):
        folder.mkdir(exist_ok=True)
        before = runs_of(folder) if is_table(folder) else []
        others = {name for table in folder.parent.iterdir() if table != folder and is_table(table)
                  for name in runs_of(table)}  # fmt: skip
        dropped = sorted(set(before) - own.keys())
        kept = {name: record.dumps(one) for name, one in (read(store) | own).items()}
        jsonl.write(store, kept)
        write_atomically(folder / RUNS, "".join(f"{name}\n" for name in sorted(own)).encode())
        if lost := set(dropped) - others:  # last, so that no table ever names a missing record
            jsonl.write(store, {name: text for name, text in kept.items() if name not in lost})
    return dropped


def named(given: str, output: Path) -> Path:
    """Return the record that a user names by its path, its run id, or the run's name.

    Args:
        given: such as `outputs/records/digits-cnn-none-s0-0123456789ab.json`, its stem, or `0123456789ab`.
        output: the output folder in which ids and names are looked up, and in the folders directly below it.

    Raises:
        UserError: there is no such record, or more than one.
    """
    if Path(given).is_file():
        return Path(given)
    if given.endswith(".json") or os.sep in given:
        raise UserError(f"there is no record {given}")
    everything = [*output.glob("records/*.json"), *output.glob("*/records/*.json")]
    found = sorted(path for path in everything if given in (path.stem, path.stem.rpartition("-")[2]))
    if not found:
        raise UserError(
            f"there is no record {given}, and no run of that id in {output}; name its output folder (--runs)"
        )
    if len(found) > 1:
        raise UserError(f"there are several records of run {given}: {', '.join(map(str, found))}; name one of them")
    return found[0]


def places(given: Sequence[Path], runs: Path | None, match: str = "*") -> list[Path]:
    """Return the record files that a user names: files, folders of records, or folders of tables.

    Args:
        given: the files and folders.
        runs: the output folder (`paths.output`) of a table's runs, with their records and weights.
        match: a glob that selects records by name, in tables and folders.

    Raises:
        UserError: there are no records, or a table is named without `runs`.
    """
    found: list[Path] = []
    for place in given:
        if is_table(place):
            if runs is None:
                raise UserError(f"{place} is a table: name the output folder of its runs (--runs)")
            names = [name.partition(" ")[0] for name in runs_of(place)]
            found += [runs / "records" / f"{name}.json" for name in names if fnmatchcase(name, match)]
        elif place.is_dir():
            found += [path for path in sorted(place.glob("*.json")) if fnmatchcase(path.stem, match)]
        else:
            found.append(place)
    if not found:
        raise UserError(f"there are no records in {', '.join(map(str, given))}")
    return found
