"""The records of many runs in one file, and the runs that a table is made of.

`<scale>/records.jsonl` has a line for each run, `<scale>/<table>/runs.txt` a line for each run of the table:
`<dataset>-<model>-<reg>-s<seed>-<run_id> <commit>`. A run that two commits measured has two lines, and a table says
which it is made of. Both files are sorted: a change of one run is a change of one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock

from dropattack.errors import UserError
from dropattack.files import disk_problem, write_atomically
from dropattack.runs import record

RECORDS, RUNS = "records.jsonl", "runs.txt"


def key(found: Mapping[str, Any]) -> str:
    """What names a record in both files: the run, and the first ten digits of the commit that ran it (`-`: none)."""
    commit = found["commit"] or {}
    return f"{record.name(found['config'], found['run_id'])} {str(commit.get('hash', '-'))[:10]}"


def is_table(folder: Path) -> bool:
    """Whether a folder says which runs it is made of."""
    return (folder / RUNS).is_file()


def runs_of(folder: Path) -> list[str]:
    """The keys of a table's runs.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return (folder / RUNS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RUNS} cannot be read ({error}); make the table again") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The records of a store as text, with their line numbers from 1. A store that is not there has none.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    for number, line in enumerate(text.split("\n"), 1):  # not `splitlines`: JSON may hold other line separators
        if line:
            yield number, line


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The whole records of a store, by their keys.

    Raises:
        UserError: a line is not a whole record.
    """
    found = (record.parse(line, f"{path}, line {number}") for number, line in lines(path))
    return {key(one): one for one in found}


def keep(folder: Path, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Make `records` the runs of the table in `folder`, and its scale's store hold them.

    A record that the table named before and that no table names any more leaves the store. Each file is replaced as a
    whole; tables that are made at the same time wait for each other.

    Returns:
        The keys that the table no longer names.

    Raises:
        UserError: a file cannot be read or written.
    """
    store, own = folder.parent / RECORDS, {key(one): dict(one) for one in records}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{RECORDS}.lock"):
            before = runs_of(folder) if is_table(folder) else []
            others = {name for table in folder.parent.iterdir() if table != folder and is_table(table)
                      for name in runs_of(table)}  # fmt: skip
            dropped = sorted(set(before) - own.keys())
            kept = read(store) | own
            _write(store, kept)
            write_atomically(folder / RUNS, "".join(f"{name}\n" for name in sorted(own)).encode())
            if lost := set(dropped) - others:  # last, so that at no moment a table names what is not there
                _write(store, {name: one for name, one in kept.items() if name not in lost})
    except OSError as error:
        raise UserError(disk_problem(store, error)) from error
    return dropped


def _write(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    body = "".join(f"{record.dumps(records[name])}\n" for name in sorted(records))
    write_atomically(path, body.encode(errors="backslashreplace"))


def places(given: Sequence[Path], runs: Path | None, match: str = "*") -> list[Path]:
    """The files of the records that a person names: files, folders of them, or tables' folders.

    Args:
        runs: the folder that a table's runs wrote to, `paths.output`: their records and weights lie there.
        match: a pattern; of tables and folders, the records whose name fits it.

    Raises:
        UserError: there are none, or a table is named and `runs` is not.
    """
    found: list[Path] = []
    for place in given:
        if is_table(place):
            if runs is None:
                raise UserError(f"{place} is a table: name the folder that its runs wrote to (--runs)")
            names = [name.partition(" ")[0] for name in runs_of(place)]
            found += [runs / "records" / f"{name}.json" for name in names if fnmatchcase(name, match)]
        elif place.is_dir():
            found += [path for path in sorted(place.glob("*.json")) if fnmatchcase(path.stem, match)]
        else:
            found.append(place)
    if not found:
        raise UserError(f"there are no records in {', '.join(map(str, given))}")
    return found
