"""Test finished IMDB runs on sets outside IMDB: one JSON file per run, and one line per run in a scale's store.

`<scale>/outside.jsonl` is sorted by run, as `records.jsonl` is, so that changing one run changes one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropattack import jsonl, provenance
from dropattack.data.outside import ORIGINAL, OutsideSet
from dropattack.errors import UserError
from dropattack.files import disk_problem, write_atomically
from dropattack.runs import record, store

if TYPE_CHECKING:
    from dropattack.runs.trained import Trained

STORE, FOLDER, SCHEMA = "outside.jsonl", "outside", 1
DATASET = "imdb"
ALL, PAIRS = "all", "pairs"  # parts of a set, besides the kinds of its texts


def check(found: Mapping[str, Any], path: Path) -> None:
    """Check that the training of a run cannot have contained a review that these sets rewrite.

    Args:
        found: the run's record.
        path: the record's file, which error messages name.

    Raises:
        UserError: it is a run on other data, or one that was trained on all reviews.
    """
    options = found["config"]["dataset"]
    if options["name"] != DATASET:
        raise UserError(f"{path} is a run on {options['name']}: only runs on {DATASET} are tested on these sets")
    dropped = (found["data"] or {}).get("notes", {}).get("rewritten_dropped")
    if options.get("drop_rewritten") is not True or not dropped:
        raise UserError(
            f"{path}: its training could have contained reviews that these sets rewrite; train again with "
            "dataset.drop_rewritten=true"
        )


def measure(model: Trained, sets: Sequence[OutsideSet]) -> dict[str, dict[str, Any]]:
    """Return the fingerprint of each set, and the rows of each of its parts that the model gets right.

    Sets without pairs have one part, `all`. The others have the originals, their changed versions, and `pairs`: a pair
    is right if both of its texts are.
    """
    made: dict[str, dict[str, Any]] = {}
    for one in sets:
        correct = model.test(model.reader.texts(one.rows.texts, one.rows.labels)).correct.numpy()
        parts = {ALL: correct}
        if one.partners is not None and one.kinds is not None:
            original, changed = one.partners.T
            parts = {ORIGINAL: correct[original], one.kinds[changed[0]]: correct[changed],
                     PAIRS: correct[original] & correct[changed]}  # fmt: skip
        made[one.name] = {"fingerprint": one.fingerprint, **{
            part: {"rows": len(right), "accuracy": float(right.mean()), "correct": record.pack_correct(right.tolist())}
            for part, right in parts.items()
        }}  # fmt: skip
    return made


def path_of(path: Path, output: Path | None = None) -> Path:
    """Return the file of a run's results: `<output>/outside/<name>.json`, given its record and its output folder."""
    return (path.resolve().parents[1] if output is None else output) / FOLDER / f"{path.stem}.json"


def is_done(file: Path, found: Mapping[str, Any], sets: Sequence[OutsideSet]) -> bool:
    """Return whether `file` holds the results of this run on these sets."""
    if not file.exists():
        return False
    content = read(file)
    known = {name: one.get("fingerprint") for name, one in content["sets"].items()}
    return content["run"] == store.key(found) and known == {one.name: one.fingerprint for one in sets}


def write(file: Path, found: Mapping[str, Any], sets: Mapping[str, Any]) -> Path:
    """Write the results of `measure` for the run with the record `found`.

    Returns:
        `file`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    content = {"schema": SCHEMA, "run": store.key(found), "run_id": found["run_id"],
               "commit": provenance.commit(), "sets": sets}  # fmt: skip
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(disk_problem(file, error)) from error
    return file


def read(file: Path) -> dict[str, Any]:
    """Return the content of a file of `write`.

    Raises:
        UserError: it is missing, damaged, or another kind of file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a file of outside results ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "sets" not in content:
        raise UserError(f"{file} is not a file of outside results of this version")
    return content


def gather(path: Path, found: Iterable[Mapping[str, Any]]) -> None:
    """Add the contents of results files to the store `path`, instead of earlier ones of the same runs.

    Raises:
        UserError: the store is damaged or cannot be written.
    """
    with jsonl.changing(path):
        kept = {**stored(path), **{_run(one): one for one in found}}
        jsonl.write(path, {run: jsonl.line(one) for run, one in kept.items()})


def stored(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a store by run (see `store.key`); none if there is no such file.

    Raises:
        UserError: a line is damaged.
    """
    return jsonl.read(path, _run, "remove it and evaluate again")


def _run(one: Mapping[str, Any]) -> str:
    dict(one["sets"])
    return str(one["run"])


def results_of(
    path: Path, sets: Sequence[OutsideSet], *, data: Path, output: Path | None, device: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a run's record and its results on the sets.

    Raises:
        UserError: the training could have contained what is tested, or as in `trained.load`.
    """
    from dropattack.runs.trained import load

    found = record.read(path)
    check(found, path)
    return found, measure(load(path, data=data, output=output, device=device), sets)
