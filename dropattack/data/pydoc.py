"""Docstrings of the installed scientific packages, classified by package: real text without a download."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.cache import Content, cached
from dropattack.data.splits import SubsetOptions, carve, finish
from dropattack.data.types import Dataset, TextSplit, check_choice
from dropattack.errors import UserError

PACKAGES = {  # import name: distribution name
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
ROWS = 600  # per class
FILE_ROWS = 12  # per file, because docstrings of one file resemble each other
FILE_BYTES = 80_000  # longer files take seconds to parse and also give only FILE_ROWS docstrings
LEAST_WORDS = 8
TEST_SHARE = 0.2
MASK = "maskedpackage"
# A package's name, also within a word ("PyTorch"), and the usual import aliases.
NAMES = re.compile(
    r"(?:numpy|scipy|pandas|sklearn|scikits?(?:[-_ ]learn)?|(?:py)?torch|matplotlib|pyplot)\w*"
    r"|\b(?:np|sp|pd|plt|mpl)\b",
    re.IGNORECASE,
)
SKIPPED = re.compile(
    r"(^|[/_.])(tests?|testing|conftest|externals?|extern|vendor\w*|_vendor\w*|compat|array_api_\w+)([/_.]|$)"
)
FORMAT = 1  # increase when the collection below changes


def load(
    *,
    root: str | Path | None = None,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return up to 600 docstrings of each of six packages, with the packages' names masked. Import none of them.

    Docstrings are drawn by hash, so the draw depends only on the installed versions (see `notes` and the fingerprint).
    The split is stratified: a fixed 20 % test, and `validation_fraction` of the rest.

    Args:
        root: unused; accepted because every data set takes it.
        split: `official`, the only one.
        cache: folder for the texts, which take seconds to collect.
        subset: see `splits.finish`.

    Raises:
        UserError: a package is not installed, or a bad option.
    """
    check_choice("pydoc", "split", split, ("official",))
    versions = {name: _version(name, distribution) for name, distribution in PACKAGES.items()}
    key = {"format": FORMAT, "versions": versions, "rows": ROWS}
    arrays, values = cached(cache, "pydoc-texts", key, _collect)
    everything = TextSplit(values["texts"], arrays["labels"])
    train, test = carve(everything, round(TEST_SHARE * len(everything)), 0, 10)
    notes: dict[str, Any] = {"source": "docstrings of installed packages", "split": split, "versions": versions}
    return finish(name="pydoc", classes=tuple(PACKAGES), train=train, test=test, notes=notes, **subset)


def _collect() -> Content:
    seen: set[str] = set()  # over all packages: a text that two of them share has no label of its own
    found = []
    for name in PACKAGES:
        own = dict.fromkeys(_docstrings(_folder(name), seen))
        seen.update(own)
        found.append(list(own)[:ROWS])
    rows = min(map(len, found))
    texts = [text for own in found for text in own[:rows]]
    return {"labels": np.repeat(np.arange(len(found), dtype=np.int64), rows)}, {"texts": texts}


def _docstrings(folder: Path, seen: set[str]) -> Iterator[str]:
    """Yield slightly more than ROWS masked docstrings, in the order of their files' hashes."""
    count = 0
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    for path in sorted((path for path in paths if not SKIPPED.search(path)), key=_hash):
        source = (folder / path).read_bytes()
        if len(source) > FILE_BYTES:
            continue
        own = [NAMES.sub(MASK, text) for text in sorted(docstrings(source), key=_hash)[:FILE_ROWS]]
        yield from (text for text in own if text not in seen)
        count += len(own)
        if count > ROWS * 1.2:  # some are duplicates
            return


def docstrings(source: bytes) -> list[str]:
    """Return the docstrings of a file's module, classes, functions and methods that have at least LEAST_WORDS words."""
    if b'"""' not in source:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escape sequences in the packages' strings
        try:
            nodes: list[ast.AST] = [ast.parse(source)]
        except (SyntaxError, ValueError):  # a template, or a file for another version of Python
            return []
    found = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(ast.get_docstring(node) or "")
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                nodes += node.body
    return [text for text in found if len(text.split()) >= LEAST_WORDS]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # finding a top-level package does not import it
    if spec is None or spec.origin is None:
        raise _not_installed(name)
    return Path(spec.origin).parent


def _version(name: str, distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise _not_installed(name) from error


def _not_installed(name: str) -> UserError:
    return UserError(
        f"Dataset pydoc reads the sources of {name}, which is not installed: `pip install {PACKAGES[name]}`."
    )
