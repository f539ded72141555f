"""Hostile records: the analysis lists each and leaves it out; a table with no other records is an error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dropattack.runs import record
from tests.hostile.case import Case, command

CONFIG: dict[str, Any] = {
    "dataset": {"name": "digits", "fraction": 1.0}, "model": {"name": "cnn", "dropout": 0.0}, "reg": {"name": "none"},
    "scale": {"name": "mini"}, "trainer": {"epochs": 3, "learning_rate": 1e-3}, "tracker": {"name": "none"}, "seed": 0,
    "paths": {"output": "out", "data": "data"},
}  # fmt: skip


def finished(seed: int = 0) -> dict[str, Any]:
    """Return a complete record of a finished run."""
    scores = {"accuracy": 0.9, "macro_f1": 0.9, "loss": 0.3}
    return record.blank({**CONFIG, "seed": seed}) | {
        "status": "finished", "data": {"fingerprint": "f", "sizes": {"train": 9}}, "validation": scores | {"epoch": 2},
        "test": scores, "passes_per_step": 1.0, "seconds_per_step": 0.1, "cpu_seconds_per_step": 0.1, "seconds": 9.0,
    }  # fmt: skip


def read_all(folder: Path, arguments: Sequence[str]) -> int:
    """Read all records below a folder; print what was left out and count the rest."""
    import sys

    from dropattack.analysis.records import read_records

    found = read_records(*map(Path, arguments))
    for left in found.left_out:
        print(left, file=sys.stderr)
    print(f"{len(found.frame)} rows")
    return 0


def bad(name: str, says: str, put: Callable[[Path], object], lines: int = 1) -> Case:
    """Make a good record, and next to it bad.json as written by `put`."""

    def make(folder: Path) -> Sequence[str]:
        record.write(folder / "records" / "good.json", finished(seed=1))
        put(folder / "records" / "bad.json")
        return ["records"]

    return Case(name, make, rf"^(bad|good)\.json: {says}", 0, read_all, lines)


def text(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(change(json.dumps(finished())), encoding="utf-8", errors="surrogatepass")


def edited(*keys: str, **values: Any) -> Callable[[Path], object]:
    """Replace values below the nested `keys`."""

    def put(path: Path) -> None:
        whole = finished()
        inner = whole
        for key in keys:
            inner = inner[key]
        inner |= values
        path.write_text(json.dumps(whole))

    return put


def without(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({k: v for k, v in finished().items() if k != key}))


def table_of_nothing(folder: Path) -> Sequence[str]:
    place = folder / "results" / "mini" / "vision"
    place.mkdir(parents=True)
    (place / "runs.txt").write_text("bad -\n")
    (place.parent / "records.jsonl").write_text("[]\n")
    return ["vision", "--no-run", "--results", "results"]


CASES = (
    bad(
        "a record cut short",
        r"truncated \(.*not a complete JSON record.*remove it and run again",
        text(lambda t: t[: len(t) // 2]),
    ),
    bad(
        "a record of no bytes", r"truncated \(.*not a complete JSON record.*remove it and run again", text(lambda t: "")
    ),
    bad(
        "a record in UTF-16",
        r"truncated \(.*utf-8.*remove it and run again",
        lambda path: path.write_text(json.dumps(finished()), encoding="utf-16"),
    ),
    bad("a record that is a list", r"another schema \(.*it is not a mapping", text(lambda t: f"[{t}]")),
    bad(
        "a record nested 50,000 deep",
        r"truncated \(.*maximum recursion depth.*remove it and run again",
        text(lambda t: 50_000 * "["),
    ),
    bad(
        "a record of another schema",
        r"another schema \(.*its schema is 99, but this version reads 1",
        edited(schema=99),
    ),
    bad("a record without its history", r"another schema \(.*it lacks history", without("history")),
    bad("a record whose versions are a number", r"another schema \(.*its versions is a int", edited(versions=3)),
    bad(
        "a record of an unknown status",
        r"another schema \(.*its status is 'perfect', which is not one of finished",
        edited(status="perfect"),
    ),
    bad(
        "a record of a failed run",
        r"failed \(RuntimeError: the GPU fell off",
        edited(status="failed", error="RuntimeError: the GPU fell off"),
    ),
    bad("a finished record without a test", r"another schema \(.*no test or validation result", edited(test=None)),
    bad("a record without an accuracy", r"incomplete \(KeyError: 'accuracy'", edited(test={"macro_f1": 0.5})),
    bad(
        "a record with an accuracy of NaN",
        r"incomplete \(ValueError: nan is not a number from 0 to 1",
        edited("test", accuracy=float("nan")),
    ),
    bad(
        "a record with an accuracy of 90",
        r"incomplete \(ValueError: 90\.0 is not a number from 0 to 1",
        edited("test", accuracy=90.0),
    ),
    bad(
        "a record with an accuracy as text",
        r"incomplete \(ValueError: '0\.99' is not a number from 0 to 1",
        edited("test", accuracy="0.99"),
    ),
    bad(
        "a record with an accuracy of 400 digits",
        r"incomplete \(ValueError: 10+ is not a number from 0 to 1",
        edited("test", accuracy=10**400),
    ),
    bad("a record with seconds of 400 digits", r"incomplete \(OverflowError", edited(seconds=10**400)),
    bad(
        "a record with half a seed", r"incomplete \(ValueError: 0\.5 is not a whole number", edited("config", seed=0.5)
    ),
    bad("a record whose folders are a list", r"incomplete \(AttributeError", edited("config", paths=[1])),
    bad("a record whose data set has no name", r"incomplete \(AttributeError", edited("config", dataset=["digits"])),
    bad(
        "a record with markup for a name",
        r"incomplete \(ValueError: '\[/red\]\|<b>\\n' is not a name",
        edited("config", reg={"name": "[/red]|<b>\n"}),
    ),
    bad(
        "a record with half a character for a name",
        r"incomplete \(ValueError: '\\ud800' is not a name",
        edited("config", reg={"name": "\ud800"}),
    ),
    bad(
        "a record with a number for a commit",
        r"incomplete \(ValueError: its commit has no hash",
        edited(commit={"hash": 7, "dirty": False}),
    ),
    bad(
        "a record that is there already", r"duplicate \(of bad\.json", lambda path: record.write(path, finished(seed=1))
    ),
    bad(
        "a record that contradicts another",
        r"contradicting \(.*bad\.json 0\.1000, good\.json 0\.9000",
        lambda path: record.write(path, finished(seed=1) | {"test": {"accuracy": 0.1, "macro_f1": 0.1, "loss": 1.0}}),
        2,
    ),
    bad("a folder called like a record", r"unreadable \(not a file", Path.mkdir),
    bad("a pipe called like a record", r"unreadable \(not a file", os.mkfifo),
    bad("a link to nowhere called like a record", r"unreadable \(not a file", lambda path: path.symlink_to("nowhere")),
    Case(
        "a table of bad records alone",
        table_of_nothing,
        r"table vision: no finished record in results/mini/vision; run the table first",
        2,
        command("table"),
    ),
)
