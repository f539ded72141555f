"""Checkpoints: the full state of a run, so that it can resume exactly; a kill at any time leaves a valid one.

Tensors go into safetensors files, everything else into JSON, so loading executes no code. A checkpoint is a folder:

    <output>/checkpoints/<run_id>/step-00000120-1/  state.json (with the sizes and sha256 of the others)
                                                    tensors.safetensors (weights, optimizer, generators, …)
                                                    best.safetensors (weights of the best epoch, if there is one)

It is written under a temporary name, synced to disk, renamed, and read back; only then are older ones removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dropattack.errors import one_line
from dropattack.files import sync_folder, system_errors, write_atomically

FORMAT = 1
Tensors = dict[str, Tensor]
# The exceptions that damaged files cause in the readers.
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


class MisfitError(ValueError):
    """The checkpoint is valid but belongs to another run."""


@dataclass
class Snapshot:
    """The state of a run between two optimizer steps.

    `state` is made of dicts, lists, tuples, scalars and tensors; `best` holds the weights of the best epoch so far.
    """

    step: int
    state: dict[str, Any]
    best: Tensors = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, in `folder`. The first `save` creates the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._best_saved: tuple[object, Path] | None = None  # (epoch, file) of the best weights

    def save(self, snapshot: Snapshot, *, best_version: object = None) -> Path:
        """Write a checkpoint, read it back, and remove the older ones.

        `best_version` identifies the best weights (the epoch): while it stays the same, their file is linked instead
        of written again.

        Returns:
            The checkpoint's folder.

        Raises:
            OSError: the disk is full or fails; the older checkpoints remain.
        """
        tensors: Tensors = {}
        tree = _flatten(snapshot.state, "", tensors)
        final = self._next(snapshot.step)
        temporary = self.folder / f".{final.name}.{os.getpid()}"
        try:
            temporary.mkdir(parents=True)
            _save_tensors(tensors, temporary / "tensors.safetensors")
            if snapshot.best:
                self._save_best(snapshot.best, best_version, temporary / "best.safetensors")
            files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            body = json.dumps({"format": FORMAT, "step": snapshot.step, "files": files, "state": tree})
            digest = hashlib.sha256(body.encode()).hexdigest()
            write_atomically(temporary / "state.json", f"{digest}\n{body}\n".encode())
            os.rename(temporary, final)
            sync_folder(self.folder)
            _read_state(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if snapshot.best:
            self._best_saved = (best_version, final / "best.safetensors")
        for other in self.folder.iterdir():
            if other != final and re.match(r"\.?(old-)?step-\d", other.name):
                _remove(other)
        return final

    def load(self) -> Snapshot | None:
        """Return the newest valid checkpoint, or None. Report and skip broken ones on stderr."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                content = _read_state(folder)
                tensors = load_file(folder / "tensors.safetensors")
                best = load_file(folder / "best.safetensors") if "best.safetensors" in content["files"] else {}
                return Snapshot(content["step"], _unflatten(content["state"], tensors), best)
            except BROKEN as error:
                print(one_line(f"the checkpoint {folder} is broken ({error}): passed over"), file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove all checkpoints, but not the best weights of a finished run."""
        for other in self.folder.glob("*step-*"):
            _remove(other)

    def keep(self, best: Tensors, description: Mapping[str, Any], predictions: Mapping[str, Tensor]) -> Path:
        """Save what a finished run leaves: `best.safetensors`, `best.json` beside it, and `predictions.npz`.

        Returns:
            The path of `best.safetensors`.

        Raises:
            OSError: the disk is full or fails; existing files remain.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".best.*"):  # from a run that was killed at this point
            leftover.unlink()
        temporary = self.folder / f".best.{os.getpid()}"
        try:
            _save_tensors(best, temporary)
            os.replace(temporary, self.folder / "best.safetensors")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        packed = io.BytesIO()
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in predictions.items()}
        np.savez_compressed(packed, **arrays)
        write_atomically(self.folder / "predictions.npz", packed.getvalue())
        write_atomically(self.folder / "best.json", (json.dumps(description, indent=1) + "\n").encode())
        return self.folder / "best.safetensors"

    def _next(self, step: int) -> Path:
        """Return an unused name for a checkpoint: a signal after an epoch's end saves the same step again."""
        serial = 1
        while (final := self.folder / f"step-{step:08d}-{serial}").exists():
            serial += 1
        return final

    def _save_best(self, best: Tensors, version: object, path: Path) -> None:
        if self._best_saved is not None and self._best_saved[0] == version:
            with suppress(OSError):  # the file system has no hard links, or the old file is gone
                os.link(self._best_saved[1], path)
                return
        _save_tensors(best, path)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    seen: set[int] = set()
    separate: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = (
            tensor.clone() if storage in seen else tensor
        )  # the format has no shared storages (tied weights)
        seen.add(storage)
    with system_errors():
        save_file(separate, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _read_state(folder: Path) -> dict[str, Any]:
    """Read and verify a checkpoint's state.json and the files it names."""
    digest, _, body = (folder / "state.json").read_text(encoding="utf-8").rstrip("\n").partition("\n")
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise ValueError("state.json is cut short or was changed")
    content = json.loads(body)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it has another format; this version reads {FORMAT}")
    for name, expected in content["files"].items():
        if _fingerprint(folder / name) != expected:
            raise ValueError(f"{name} is cut short or was changed")
    return content


def _remove(folder: Path) -> None:
    """Remove a checkpoint. Rename it first, so that a kill in between cannot leave half of one."""
    doomed = folder.with_name(f".old-{folder.name.lstrip('.')}")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(OSError):
        os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _flatten(value: Any, name: str, tensors: Tensors) -> Any:
    """Return a tree as JSON values, with its tensors moved to `tensors` and replaced by their names.

    Tuples and non-string keys, which occur in an optimizer's state but not in JSON, are marked.

    Raises:
        TypeError: a value that is not a dict, list, tuple, scalar or tensor.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _flatten(item, f"{name}/{key}", tensors) for key, item in value.items()}
        return {"$items": [[key, _flatten(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be stored in a checkpoint")


def _unflatten(tree: Any, tensors: Tensors) -> Any:
    if isinstance(tree, list):
        return [_unflatten(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]]
    if "$tuple" in tree:
        return tuple(_unflatten(item, tensors) for item in tree["$tuple"])
    if "$items" in tree:
        return {key: _unflatten(item, tensors) for key, item in tree["$items"]}
    return {key: _unflatten(item, tensors) for key, item in tree.items()}


def parameters_only(state: Mapping[str, Any]) -> Tensors:
    """Copy a state dict's tensors to CPU memory, so that later steps do not change them."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items() if torch.is_tensor(value)}
