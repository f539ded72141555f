"""The JSON record of a run: config, results and hardware. All tables and figures are made from records.

Standard library only: reading a record, or finding that a run is done, needs no import of torch.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dropattack import provenance, source
from dropattack.errors import UserError
from dropattack.files import disk_problem, write_atomically
from dropattack.runs import attacked, identity
from dropattack.runs.identity import SCHEMA

STATUSES = ("finished", "failed", "diverged")
DONE = ("finished", "diverged")  # not run again

KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "run_id": (str,),
    "status": (str,),
    "error": (str, type(None)),  # why it failed or diverged, in one sentence
    "config": (dict,),  # `identity.of` the resolved one
    "data": (dict, type(None)),  # fingerprint, sizes, notes
    "validation": (dict, type(None)),  # at the best epoch: accuracy, macro_f1, loss, epoch (from 1)
    "test": (dict, type(None)),  # accuracy, macro_f1, loss, with the weights of that epoch; correct: see `pack_correct`
    "history": (list,),  # one entry per epoch
    "passes_per_step": (int, float, type(None)),  # forward-backward passes per optimizer step and micro-batch
    "skipped": (int, type(None)),  # perturbations skipped because the norm was zero or not finite
    "steps": (int, type(None)),  # optimizer steps
    "seconds_per_step": (int, float, type(None)),  # mean training time of an optimizer step, without evaluation
    "cpu_seconds_per_step": (int, float, type(None)),  # the same in CPU time of the process
    "seconds": (int, float, type(None)),  # training and evaluation, summed over all resumptions
    "peak_memory_mb": (int, float, type(None)),  # GPU: allocated by torch; CPU: see PeakMemory
    "parameters": (int, type(None)),
    "commit": (dict, type(None)),  # hash, dirty; code and method: digests of the code that trains (see `code`)
    "versions": (dict,),
    "hardware": (dict,),
}
# Entry points of the code of every run; the rest is imported by these or named in the config.
TRAINS = ("dropattack.runs.build", "dropattack.data.loader", "dropattack.training.loop", "dropattack.training.evaluate",
          "dropattack.training.device")  # fmt: skip
_CUT = "is not a complete JSON record (truncated?)"


def record_path(config: Mapping[str, Any]) -> Path:
    """Return the path of this run's record: `<output>/records/<dataset>-<model>-<reg>-s<seed>-<run_id>.json`."""
    return Path(config["paths"]["output"]) / "records" / f"{identity.name(config, identity.run_id(config))}.json"


def blank(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new record holding only config and environment, with all keys."""
    empty: dict[str, Any] = dict.fromkeys(KEYS)
    commit = provenance.commit()
    return {
        **empty, "schema": SCHEMA, "run_id": identity.run_id(config), "status": "failed", "config": identity.of(config),
        "history": [], "commit": commit and {**commit, **code(config)}, "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }  # fmt: skip


def code(config: Mapping[str, Any]) -> dict[str, str]:
    """Return digests of the modules that this run uses, as on disk: `code`, and `method` for its regularizer.

    They hash syntax trees, so comments, layout and docstrings do not count (see `source`). The data set's own module is
    excluded, because the fingerprint of its examples says more.
    """
    tokenizer = (config["model"].get("tokenizer") or {}).get("_target_")
    shared = [*TRAINS, str(config["model"].get("_target_")), *([str(tokenizer)] if tokenizer else [])]
    return {"code": source.digest(source.modules_of(shared)),
            "method": source.digest(source.modules_of(_targets(config["reg"])))}  # fmt: skip


def _targets(reg: Mapping[str, Any]) -> list[str]:
    return [str(options.get("_target_")) for options in (reg, *attacked.methods(reg).values())]


def failure(config: Mapping[str, Any], error: Exception) -> str:
    """Return the error that ended a run as text for its record."""
    return provenance.scrubbed(f"{type(error).__name__}: {error}", dict(identity.folders(config)))[:2000]


def pack_correct(correct: Sequence[bool]) -> str:
    """Return whether each test row was answered correctly as text: one bit per row, compressed, in base64."""
    bits = sum(bool(right) << place for place, right in enumerate(correct))
    return base64.b64encode(zlib.compress(bits.to_bytes(-(-len(correct) // 8), "little"), 9)).decode()


def unpack_correct(packed: str, rows: int) -> list[bool]:
    """Return for each of `rows` test rows whether it was answered correctly, from the text of `pack_correct`.

    Raises:
        ValueError: the text is damaged, or holds another number of rows.
    """
    size = -(-rows // 8)
    try:
        whole = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"test.correct is damaged: {error}") from error
    bits = int.from_bytes(whole, "little")
    if len(whole) != size or bits >> rows:
        raise ValueError(f"test.correct does not hold {rows} rows")
    return [bool(bits >> place & 1) for place in range(rows)]


def write(path: Path, record: Mapping[str, Any]) -> Path:
    """Validate a record and write it atomically: a reader sees either the old file or the new one.

    Returns:
        `path`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    text = dumps(record, indent=1) + "\n"
    try:
        # A lone surrogate, as in the name of a file that is not UTF-8, is written as a JSON escape.
        write_atomically(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise UserError(disk_problem(path, error)) from error
    return path


def dumps(record: Mapping[str, Any], indent: int | None = None) -> str:
    """Return a record as JSON, on one line without `indent`. NaN and infinity become null.

    Raises:
        ValueError: it is not a record.
    """
    problem = _problem(record)
    if problem:
        raise ValueError(f"not a record: {problem}")
    separators = None if indent else (",", ":")
    return json.dumps(_finite(record), indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)


def read(path: Path) -> dict[str, Any]:
    """Return the record in a file.

    Raises:
        UserError: there is no such file, it is cut short or no JSON, has another schema version, or lacks keys.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no record {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8
        raise UserError(f"{path} {_CUT}: {error}; remove it and run again") from error


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse a record from JSON; `where` names it in errors, which are those of `read`."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} {_CUT}: {error}; remove it and run again") from error
    problem = _problem(record)
    if problem:
        raise UserError(f"{where} is not a record of this version: {problem}")
    return record


def done(path: Path) -> dict[str, Any] | None:
    """Return the record of a run that is done (`finished` or `diverged`), else None."""
    with suppress(UserError):
        found = read(path)
        return found if found["status"] in DONE else None
    return None


def is_done(path: Path) -> str | None:
    """Return the status of a run that is done, else None."""
    found = done(path)
    return None if found is None else found["status"]


def state(path: Path) -> str:
    """Return one of `STATUSES`, or `missing` if there is no readable record."""
    try:
        return read(path)["status"]
    except UserError:
        return "missing"


def note_error(path: Path, sentence: str) -> None:
    """Write the reason why a run has no record beside the record's path, for the process that started the sweep."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".error").write_text(sentence + "\n", encoding="utf-8", errors="backslashreplace")


def forget_error(path: Path) -> None:
    """Remove the file of `note_error`, because the run starts again."""
    with suppress(OSError):
        path.with_suffix(".error").unlink()


def why(path: Path) -> str:
    """Return the latest reason why a run has no finished record."""
    with suppress(OSError):
        return path.with_suffix(".error").read_text(encoding="utf-8").strip()
    if not path.exists():
        return "no record was written"
    try:
        return str(read(path)["error"])
    except UserError as error:
        return str(error)


def _problem(record: Any) -> str | None:
    if not isinstance(record, Mapping):
        return "it is not a mapping"
    if record.get("schema") != SCHEMA:
        return f"its schema is {record.get('schema')!r}, but this version reads {SCHEMA}"
    missing = [key for key in KEYS if key not in record]
    if missing:
        return f"it lacks {', '.join(missing)}"
    for key, types in KEYS.items():
        if not isinstance(record[key], types) or (isinstance(record[key], bool) and bool not in types):
            return f"its {key} is a {type(record[key]).__name__}"
    if record["status"] not in STATUSES:
        return f"its status is {record['status']!r}, which is not one of {', '.join(STATUSES)}"
    if record["status"] == "finished" and not (record["test"] and record["validation"]):
        return "it is finished but has no test or validation result"
    return None


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None (losses of a diverged run)."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
