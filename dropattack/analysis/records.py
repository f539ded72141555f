"""Read records of finished runs into a table with one row per run, and list every record left out, with the reason.

Two runs are seeds of one cell if they agree in everything but the seed. A row therefore has two keys besides the seed:
its `context`, shared by the methods of a comparison (data, model, training), and its `variant`, the method with its
settings.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dropattack import jsonl
from dropattack.analysis.encoders import dataset_label, model_label
from dropattack.analysis.equivalent import Equivalent
from dropattack.analysis.settings import (
    DRAW,
    flatten,
    is_chosen,
    join_draws,
    lengthened,
    name_neutral,
    of_context,
    plugins_aside,
    plugins_of,
)
from dropattack.errors import UserError, one_line
from dropattack.runs import identity, record, store
from dropattack.runs.ranges import is_name


@dataclass(frozen=True)
class LeftOut:
    """A record that is not counted.

    Attributes:
        path: the record.
        reason: `missing`, `unreadable`, `truncated`, `another schema`, `failed`, `diverged`, `incomplete`,
            `other code`, `duplicate` or `contradicting`.
        detail: for people.
    """

    path: Path
    reason: str
    detail: str

    def __str__(self) -> str:
        return one_line(f"{self.path.name}: {self.reason} ({self.detail})")


@dataclass(frozen=True)
class Records:
    """`frame`: one row per finished run. `left_out`: every other record found; none of them is averaged in."""

    frame: pd.DataFrame
    left_out: tuple[LeftOut, ...]


def read_records(
    *places: Path, equivalent: Equivalent | None = None, names: Collection[str] | None = None
) -> Records:  # fmt: skip
    """Return the records of files, of the runs of a table's folder, and of all `*.json` below any other folder.

    Files in folders called `checkpoints`, where runs keep their weights, are not read.
    A bad record never raises: it is listed in `left_out`.

    Args:
        *places: files or folders.
        equivalent: codes that count as one; None: those declared in `results/equivalent.yaml`.
        names: of a table's runs, those to read; None reads all of them.

    Raises:
        FileNotFoundError: a place does not exist.
    """
    read: dict[Path, Callable[[], dict[str, Any]]] = {}
    for place in map(Path, places):
        if not place.exists():
            raise FileNotFoundError(f"there are no records at {place}")
        if store.is_table(place):
            read |= _of_table(place, names)
        else:
            read |= {path: partial(_from_file, path) for path in (_below(place) if place.is_dir() else [place])}
    rows: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    for path, load in sorted(read.items()):
        outcome = _read(path, load)
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
        else:
            rows.append(outcome)
    join_draws(rows)
    rows, strangers = _of_one_code(rows, Equivalent() if equivalent is None else equivalent)
    kept, doubles = _without_doubles(rows)
    name_neutral(kept)
    return Records(pd.DataFrame(kept, columns=COLUMNS), (*left_out, *strangers, *doubles))


COLUMNS = [
    *("path", "run_id", "dataset", "model", "scale", "method", "seed", "context", "variant", "settings"),
    *("test_accuracy", "test_macro_f1", "validation_accuracy", "validation_epoch"),
    *("passes", "step_seconds", "seconds", "peak_memory_mb", "parameters"),
    *("commit", "versions", "hardware", "data", "epochs"),  # `epochs`: the record's history
    "correct",  # bool [test rows], or None in older records
    "metrics",  # {name: value} of the further metrics that the data set asks for
]


def _below(folder: Path) -> list[Path]:
    """Return the JSON files below a folder, except those beside the weights of runs."""
    found = folder.rglob("*.json")
    return [path for path in found if "checkpoints" not in path.relative_to(folder).parts]


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():  # reading a pipe would block
        raise UserError("not a file") from OSError()
    return record.read(path)


def _of_table(folder: Path, names: Collection[str] | None) -> dict[Path, Callable[[], dict[str, Any]]]:
    """Return a function per run of a table that reads it, keyed by the path of its record in `outputs/`."""
    path, found = folder.parent / store.RECORDS, {}
    read: dict[Path, Callable[[], dict[str, Any]]] = {}
    for number, line in jsonl.lines(path):
        where = f"{path.name}, line {number}"
        try:
            one = record.parse(line, where)
            found[store.key(one)] = one
        except (UserError, LookupError, TypeError, AttributeError):  # it may belong to any table
            read[folder / where] = partial(record.parse, line, where)
    for key in store.runs_of(folder):
        name = key.partition(" ")[0]
        if names is None or name in names:
            read[folder / f"{name}.json"] = partial(_found, found, key, path)
    return read


def _found(found: Mapping[str, dict[str, Any]], key: str, path: Path) -> dict[str, Any]:
    if key not in found:
        raise UserError(f"{path} has no record {key}") from LookupError()
    return found[key]


def _read(path: Path, load: Callable[[], dict[str, Any]]) -> dict[str, Any] | LeftOut:
    try:
        found = load()
    except UserError as error:
        reasons = {OSError: "unreadable", LookupError: "missing", ValueError: "truncated", RecursionError: "truncated"}
        known = (reason for kind, reason in reasons.items() if isinstance(error.__cause__, kind))
        return LeftOut(path, next(known, "another schema"), str(error))
    if found["status"] != "finished":
        return LeftOut(path, found["status"], found["error"] or "no reason recorded")
    try:
        return _row(path, found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        return LeftOut(path, "incomplete", f"{type(error).__name__}: {error}")


def _row(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    config, test, validation = found["config"], found["test"], found["validation"]
    settings = {key: value for key, value in flatten(identity.of(config)).items() if key != "seed"}
    data = found["data"]["fingerprint"]
    known = flatten(identity.compared(config))  # a file of the user's own counts by its content, wherever it is
    aside = plugins_aside(settings)
    shared = {
        key: value for key, value in of_context({key: known[key] for key in settings}).items() if key not in aside
    }
    chosen = {key: value for key, value in settings.items() if is_chosen(key) or aside.get(key)}
    chosen |= {key: settings[key] for key, value in shared.items() if value != known[key]}  # of longer training
    drawn = {key: value for key, value in shared.items() if key != DRAW}
    return {
        "path": path,
        "run_id": str(found["run_id"]),
        "dataset": _name(dataset_label(config["dataset"])),
        "model": model_label(_name(config["model"]["name"]), config["model"].get("pretrained")),
        "scale": _name(config["scale"]["name"]),
        "method": _name(config["reg"]["name"]),
        "seed": _whole(config["seed"]),
        "context": _digest({**shared, "data": data}),
        "drawn": _digest({**drawn, "data": found["data"].get("notes", {}).get("drawn_from", data)}),
        "variant": _digest(chosen),
        "settings": settings,
        "test_accuracy": _number(test["accuracy"], most=1),
        "test_macro_f1": _number(test["macro_f1"], most=1),
        "validation_accuracy": _number(validation["accuracy"], most=1),
        "validation_epoch": _whole(validation["epoch"]),
        "passes": lengthened(settings) * _number(found["passes_per_step"]),
        "step_seconds": lengthened(settings) * _step_seconds(found),
        "seconds": _number(found["seconds"]),
        "commit": _commit(found["commit"]),
        "epochs": found["history"],
        "peak_memory_mb": _device_memory(found),
        "correct": _correct(test, found["data"]),
        "metrics": {str(name): _metric(test[name]) for name in config["dataset"].get("metrics") or ()},
        **{key: found[key] for key in ("parameters", "versions", "hardware", "data")},
    }


def _number(value: Any, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
        raise ValueError(f"{value!r:.40} is not a number from 0 to {most:g}")
    return float(value)


def _metric(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise ValueError(f"{value!r:.40} is not a number from -1 to 1")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r:.40} is not a whole number")
    return value


def _name(value: Any) -> str:
    if not is_name(value):
        raise ValueError(f"{value!r:.40} is not a name")
    return value


def _commit(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if value is not None and not (isinstance(value["hash"], str) and isinstance(value["dirty"], bool)):
        raise ValueError("its commit has no hash, or does not say whether it is dirty")
    return value


def _correct(test: Mapping[str, Any], data: Mapping[str, Any]) -> np.ndarray | None:
    """Return which test rows were right: bool [rows]; None if the record does not hold them."""
    if test.get("correct") is None:
        return None
    correct = np.array(record.unpack_correct(test["correct"], _whole(data["sizes"]["test"])))
    if abs(correct.mean() - test["accuracy"]) * len(correct) > 0.5:
        raise ValueError("its test accuracy is not that of its rows")
    return correct


def _step_seconds(record: Mapping[str, Any]) -> float:
    """Return CPU seconds per step on a CPU, and wall-clock seconds on a GPU that no other run of the sweep used."""
    hardware = record["hardware"]
    if hardware.get("device") == "cpu":
        return _number(record["cpu_seconds_per_step"])
    alone = hardware.get("device") is None or hardware.get("jobs") == 1
    return _number(record["seconds_per_step"]) if alone else math.nan


def _device_memory(record: Mapping[str, Any]) -> float | None:
    """Return peak MB on a GPU. On a CPU the process's memory also counts libraries and earlier runs, so return None."""
    known = record["hardware"].get("device") not in (None, "cpu") and record["peak_memory_mb"] is not None
    return _number(record["peak_memory_mb"]) if known else None


def training_rows(runs: pd.DataFrame) -> str:
    """Return the number of training rows of runs that share their data, such as `40,000`; empty if not recorded."""
    sizes = runs.iloc[0]["data"].get("sizes", {})
    return f"{sizes['train']:,}" if "train" in sizes else ""


def _of_one_code(rows: Sequence[dict[str, Any]], equivalent: Equivalent) -> tuple[list[dict[str, Any]], list[LeftOut]]:
    """Return the runs made by the code that made most of those they are compared with, and the others as left out.

    All runs of a context must share the code of model, data loading and training; those of one method also its code,
    unless that is a plug-in's, whose versions are rows of their own.
    """
    kept, others = list(rows), []
    for part in (0, 1):
        compared = [(row["context"], f"{row['method']} {plugins_of(row['settings'])}" if part else "") for row in kept]
        codes = [_canonical(row, equivalent)[part] for row in kept]
        counts: dict[tuple[str, str], Counter[str]] = {}
        for group, code in zip(compared, codes, strict=True):
            counts.setdefault(group, Counter())[code] += 1
        most = {group: count.most_common(1)[0][0] for group, count in counts.items()}
        stays = []
        for row, group, code in zip(kept, compared, codes, strict=True):
            if code == most[group]:
                stays.append(row)
            else:
                others.append(LeftOut(row["path"], "other code", f"{code_of(row)[part]}, but most runs it is compared "
                                      f"with were trained by {most[group]}; repeat it with rerun=true"))  # fmt: skip
        kept = stays
    return kept, others


def _canonical(row: Mapping[str, Any], equivalent: Equivalent) -> tuple[str, str]:
    code, method = code_of(row)
    return equivalent.code(row["context"], code), equivalent.method(row["context"], row["method"], method)


def code_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the digests of the code of a run and of its method; older records have one digest for both.

    A newer digest covers the files as they were; an older one is of a commit and does not cover uncommitted changes.
    """
    commit = row["commit"] or {}
    code = str(commit.get("code") or commit.get("hash", "unknown code")[:12])
    if "method" in commit:
        return code, str(commit["method"])
    code += "+changes" * bool(commit.get("dirty"))
    return code, code


def _without_doubles(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[LeftOut]]:
    """Keep the first record of each (context, variant, seed) in path order; keep none if they disagree."""
    kept, left_out = [], []
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["context"], row["variant"], row["seed"]), []).append(row)
    for first, *others in cells.values():
        if all(other["test_accuracy"] == first["test_accuracy"] for other in others):
            kept.append(first)
            left_out += [LeftOut(other["path"], "duplicate", f"of {first['path'].name}") for other in others]
        else:
            all_of_them = ", ".join(f"{row['path'].name} {row['test_accuracy']:.4f}" for row in (first, *others))
            left_out += [LeftOut(row["path"], "contradicting", f"test accuracies of the same run: {all_of_them}")
                         for row in (first, *others)]  # fmt: skip
    return kept, left_out


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
