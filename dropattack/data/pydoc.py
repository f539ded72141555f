"""Docstrings of the installed scientific packages: which package wrote them? Real text without any download."""

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
from dropattack.data.types import Dataset, TextSplit, one_of
from dropattack.errors import UserError

PACKAGES = {  # import name: name of the distribution
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
ROWS = 600  # a class
FILE_ROWS = 12  # docstrings of one file: they resemble each other
FILE_BYTES = 80_000  # longer files cost seconds to parse and give no more than FILE_ROWS either
LEAST_WORDS = 8
TEST_SHARE = 0.2
MASK = "maskedpackage"
# A package's name, wherever it stands ("PyTorch"), and the names under which the packages are usually imported.
NAMES = re.compile(
    r"(?:numpy|scipy|pandas|sklearn|scikits?(?:[-_ ]learn)?|(?:py)?torch|matplotlib|pyplot)\w*"
    r"|\b(?:np|sp|pd|plt|mpl)\b",
    re.IGNORECASE,
)
SKIPPED = re.compile(
    r"(^|[/_.])(tests?|testing|conftest|externals?|extern|vendor\w*|_vendor\w*|compat|array_api_\w+)([/_.]|$)"
)
FORMAT = 1  # raise it when the collection below changes


def load(
    *,
    root: str | Path | None = None,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Up to 600 docstrings each of six packages, the packages' names masked. No package is imported.

    Which docstrings: a draw by hash, so that it depends on the installed versions alone (`notes` and the fingerprint
    tell them). Stratified: 20 % test, fixed; of the rest `validation_fraction`.

    Args:
        root: unused; every data set takes it.
        split: `official`; there is no other.
        cache: folder for the collected texts, which take seconds to collect.
        subset: see `splits.finish`.

    Raises:
        UserError: a package is not installed, or a bad option.
    """
    one_of("pydoc", "split", split, ("official",))
    versions = {name: _version(name, distribution) for name, distribution in PACKAGES.items()}
    key = {"format": FORMAT, "versions": versions, "rows": ROWS}
    arrays, values = cached(cache, "pydoc-texts", key, _collect)
    everything = TextSplit(values["texts"], arrays["labels"])
    train, test = carve(everything, round(TEST_SHARE * len(everything)), 0, 10)
    notes: dict[str, Any] = {"source": "docstrings of installed packages", "split": split, "versions": versions}
    return finish(name="pydoc", classes=tuple(PACKAGES), train=train, test=test, notes=notes, **subset)


def _collect() -> Content:
    seen: set[str] = set()  # over all packages: a text that two of them share has no label
    found = []
    for name in PACKAGES:
        own = dict.fromkeys(_docstrings(_folder(name), seen))
        seen.update(own)
        found.append(list(own)[:ROWS])
    rows = min(map(len, found))
    texts = [text for own in found for text in own[:rows]]
    return {"labels": np.repeat(np.arange(len(found), dtype=np.int64), rows)}, {"texts": texts}


def _docstrings(folder: Path, seen: set[str]) -> Iterator[str]:
    """Masked docstrings in the order of their files' hashes, a little more than ROWS."""
    count = 0
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    for path in sorted((path for path in paths if not SKIPPED.search(path)), key=_hash):
        source = (folder / path).read_bytes()
        if len(source) > FILE_BYTES:
            continue
        own = [NAMES.sub(MASK, text) for text in sorted(docstrings(source), key=_hash)[:FILE_ROWS]]
        yield from (text for text in own if text not in seen)
        count += len(own)
        if count > ROWS * 1.2:  # some of them are repeats
            return


def docstrings(source: bytes) -> list[str]:
    """The docstrings of at least LEAST_WORDS words of a file's module, classes, functions and methods."""
    if b'"""' not in source:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            nodes: list[ast.AST] = [ast.parse(source)]
        except (SyntaxError, ValueError):  # a template, or a file for another Python: not ours to judge
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
    spec = importlib.util.find_spec(name)  # a top-level package: found without running it
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
