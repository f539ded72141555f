"""Pack data for a machine without it: the data files that some tables' cells need, and the wheels it lacks.

The pack consists of parts of limited size; each is a folder to be copied over the previous ones, with `data/` in the
layout of `DROPATTACK_DATA`, and `wheels/`. Texts are packed as token ids, word vectors as the rows used, images as is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dropattack.data import packed, vectors
from dropattack.errors import UserError
from dropattack.gpu.cells import Overrides
from dropattack.runs import build, experiment
from dropattack.runs.config import compose

MIB = 1 << 20
IMAGES = {"mnist": "mnist/MNIST/raw/*-ubyte*", "cifar10": "cifar10/*.parquet"}


def pack(cells: Iterable[Overrides], *, to: Path, limit: int, wheels: Iterable[str] = ()) -> list[tuple[Path, int]]:
    """Pack what the cells need below `to`, in folders `part1`, `part2`, … of at most `limit` bytes.

    Args:
        cells: overrides of runs, most important first; the first part holds what the first cells need.
        to: folder of the parts.
        limit: maximum size of a part in bytes.
        wheels: requirements whose wheels are packed too, without their dependencies.

    Returns:
        Each part's folder and its size in bytes.

    Raises:
        UserError: data is missing, or a file is larger than `limit`.
    """
    staged = to / "staged"
    shutil.rmtree(to, ignore_errors=True)
    staged.mkdir(parents=True)
    files = [*_wheels(wheels, staged / "wheels"), *_data(cells, staged / "data")]
    parts: list[list[Path]] = [[]]
    room = limit
    for file in dict.fromkeys(files):
        size = file.stat().st_size
        if size > limit:
            raise UserError(f"{file} is {size / MIB:.1f} MiB but a part is limited to {limit / MIB:.1f}: raise --limit")
        if size > room:
            parts.append([])
            room = limit
        parts[-1].append(file)
        room -= size
    made = []
    for number, part in enumerate(parts, 1):
        folder = to / f"part{number}"
        for file in part:
            place = folder / file.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
        made.append((folder, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())))
    shutil.rmtree(staged)
    return made


def _wheels(requirements: Iterable[str], folder: Path) -> list[Path]:
    wanted = list(requirements)
    if not wanted:
        return []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *wanted]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"cannot build the wheels of {', '.join(wanted)}: see pip's output above")
    return sorted(folder.glob("*.whl"))


def _data(cells: Iterable[Overrides], to: Path) -> list[Path]:
    """Copy the cells' data below `to`, each file once, and return the files in the order in which cells need them."""
    made: list[Path] = []
    words: set[str] = set()
    source: Path | None = None
    known: set[Any] = set()
    for config in _distinct(cells):
        dataset, root = config["dataset"], Path(config["paths"]["data"])
        if dataset["kind"] == "image":
            made += _copied(root, IMAGES.get(dataset["name"], ""), to)
            continue
        path = packed.path_of(to, dataset, config["model"].get("tokenizer"))
        if path in known:
            continue
        known.add(path)
        facts, encoded = build.load_data(config)
        made.append(packed.write(path, facts, encoded))
        if config["model"].get("vectors"):
            source = vectors.find_vectors(config["model"]["vectors"], root)
            words |= set(encoded.spec.vocabulary or ())
    if source is not None:
        made.append(_vectors(source, words, to / vectors.GLOVE_FILES[0]))
    return made


def _distinct(cells: Iterable[Overrides]) -> Iterable[Mapping[str, Any]]:
    """Yield one resolved config per data set, tokenizer and vectors."""
    seen = set()
    for cell in cells:
        config = experiment.resolve(compose(experiment.CONF, list(cell)))
        key = repr((config["dataset"], config["model"].get("tokenizer"), config["model"].get("vectors")))
        if key not in seen:
            seen.add(key)
            yield config


def _copied(root: Path, pattern: str, to: Path) -> list[Path]:
    if not pattern:  # made from installed packages
        return []
    files = sorted(root.glob(pattern))
    if not files:
        raise UserError(f"no {pattern} in {root}: set DROPATTACK_DATA")
    copies = []
    for file in files:
        place = to / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(file, place)))
    return copies


def _vectors(source: Path, words: set[str], to: Path) -> Path:
    """Write the vectors of `words` losslessly, grouping bytes by significance so that they compress."""
    import pyarrow as pa
    import pyarrow.parquet

    ordered = sorted(words)
    values, found = vectors.load_vectors(source, ordered)
    rows = np.flatnonzero(found.numpy())
    flat = pa.array(values.numpy()[rows].ravel())
    table = pa.table(
        {
            "word": [ordered[row] for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(flat, values.shape[1]),
        }
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(
        table, to, compression="zstd", compression_level=19, use_dictionary=False,
        column_encoding={"vector.list.element": "BYTE_STREAM_SPLIT", "word": "PLAIN"},
    )  # fmt: skip
    return to
