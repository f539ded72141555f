"""Portable encoded data sets: everything a run needs from a data set in one small file, without the texts.

Machines without the original files train on the packed form. A run looks it up in `paths.data`/packed by the options of
the data set and the tokenizer, and its record holds the same fingerprint, sizes and notes.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dropattack.data.types import SPLITS, Dataset, DataSpec, Encoded, TensorSplit
from dropattack.errors import UserError

FOLDER = "packed"
PLACES = ("root", "cache")  # options of a data set that are locations, not content


@dataclass(frozen=True)
class Facts:
    """The description of the data in a record: see `dropattack.data.types.Dataset`."""

    name: str
    fingerprint: str
    classes: int
    sizes: dict[str, int]
    notes: dict[str, Any]

    @classmethod
    def of(cls, dataset: Dataset) -> Facts:
        sizes = {name: len(split) for name, split in dataset.splits.items()}
        return cls(dataset.name, dataset.fingerprint, len(dataset.classes), sizes, dict(dataset.notes))


def path_of(root: str | Path, dataset: Mapping[str, Any], tokenizer: Mapping[str, Any] | None) -> Path:
    """Return the path of a data set's packed form in the data folder `root`, given its resolved options."""
    options = {key: value for key, value in dataset.items() if key not in PLACES}
    key = json.dumps({"dataset": options, "tokenizer": tokenizer}, sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(root) / FOLDER / f"{dataset['name']}-{digest}.npz.xz"


def write(path: Path, facts: Facts, encoded: Encoded) -> Path:
    """Pack an encoded text data set: token ids without padding, split into byte planes, compressed.

    Returns:
        `path`.

    Raises:
        ValueError: the data set holds images, whose own files are already compact.
    """
    if encoded.spec.kind != "text" or encoded.spec.separator_id is not None:
        raise ValueError("only single texts are packed: image files are as small as they get")
    arrays: dict[str, np.ndarray] = {}
    for name in SPLITS:
        split: TensorSplit = getattr(encoded, name)
        assert split.lengths is not None
        lengths, ids = split.lengths.numpy(), split.inputs.numpy()
        flat = ids[np.arange(ids.shape[1]) < lengths[:, None]].astype("<u4")
        arrays[f"{name}.ids"] = np.ascontiguousarray(flat.view(np.uint8).reshape(-1, 4).T)
        arrays[f"{name}.lengths"] = lengths.astype("<i4")
        arrays[f"{name}.labels"] = split.labels.numpy().astype("<i4")
    spec = {"vocabulary": list(encoded.spec.vocabulary or ()), "padding_id": encoded.spec.padding_id}
    values = {"facts": facts.__dict__, "spec": spec}
    arrays["values"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # numpy's stubs treat every keyword as allow_pickle
    path.write_bytes(lzma.compress(content.getvalue()))
    return path


@lru_cache(maxsize=2)  # a worker runs many cells on the same data
def read(path: Path) -> tuple[Facts, Encoded]:
    """Return what `write` packed: the same tensors, bit for bit.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as arrays:
            values = json.loads(arrays["values"].tobytes())
            spec, facts = values["spec"], Facts(**values["facts"])
            splits = {name: _split(arrays, name, spec["padding_id"]) for name in SPLITS}
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); pack it again.") from error
    return facts, Encoded(DataSpec("text", facts.classes, tuple(spec["vocabulary"]), spec["padding_id"]), **splits)


def _split(arrays: Any, name: str, padding_id: int) -> TensorSplit:
    flat = np.ascontiguousarray(arrays[f"{name}.ids"].T).view("<u4").ravel().astype(np.int32)
    lengths = arrays[f"{name}.lengths"].astype(np.int64)
    rows = np.split(flat, np.cumsum(lengths)[:-1])
    import torch  # imported here because `path_of` does not need it

    from dropattack.data.encode import padded

    inputs, lengths = padded(rows, padding_id)
    labels = torch.from_numpy(arrays[f"{name}.labels"].astype(np.int64))
    return TensorSplit(torch.from_numpy(inputs), labels, torch.from_numpy(lengths))
