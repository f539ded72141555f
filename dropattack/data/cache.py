"""A disk cache for arrays that are slow to build, keyed by a hash of their inputs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dropattack.files import system_errors

log = logging.getLogger(__name__)
Content = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays, and JSON values


def cached(folder: str | Path | None, name: str, key: Mapping[str, Any], build: Callable[[], Content]) -> Content:
    """Return the result of `build()`, read from `folder` if it was cached there under the same `key`.

    One safetensors file holds the arrays and, in its header, the JSON values and a sha256 over both. It is written to
    a temporary file and moved into place, so several processes may build at once. A file that does not match its
    sha256 is rebuilt; a folder that cannot be written only causes a warning.

    Args:
        folder: the cache folder; None disables caching.
        name: a readable prefix of the file's name.
        key: JSON values that determine the content.
        build: returns the arrays and JSON values to cache.
    """
    if folder is None:
        return build()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    plain = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:60]  # the name must not act as a path
    path = Path(folder) / f"{plain}-{digest[:20]}.safetensors"
    if path.exists():
        try:
            return _read(path)
        except Exception as error:  # a damaged file can raise anything
            log.warning("the cached %s is damaged (%s); building it again", path, error)
    arrays, values = build()
    try:
        _write(path, arrays, values)
    except OSError as error:
        log.warning("%s cannot be cached: %s", path, error)
    return arrays, values


def _digest(arrays: Mapping[str, np.ndarray], values: str) -> str:
    digest = hashlib.sha256(values.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path) -> Content:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
    if header["sha256"] != _digest(arrays, header["values"]):
        raise ValueError("its sha256 differs")
    return arrays, json.loads(header["values"])


def _write(path: Path, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    text = json.dumps(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with system_errors():
            save_file(arrays, temporary, metadata={"values": text, "sha256": _digest(arrays, text)})
        os.chmod(temporary, 0o644)  # mkstemp makes files readable by their owner only
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
