"""Sets outside IMDB on which a sentiment classifier of IMDB reviews is tested, and which reviews they rewrite.

`imdb_counterfactual` (Kaushik et al., ICLR 2020) and `imdb_contrast` (Gardner et al., Findings of EMNLP 2020) pair a
review with a minimally changed version that has the opposite label. The reviews come from IMDB's official training
split, so a model must have been trained without them: see `rewritten`. `mr` (Pang and Lee 2005) and `sst2` (Socher et
al. 2013) are sentences from other reviews: transfer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dropattack.data.sources import read_table
from dropattack.data.types import TextSplit
from dropattack.errors import UserError

CLASSES = ("negative", "positive")
ORIGINAL = "original"
PAIRED = {"imdb_counterfactual": ("train", "dev", "test"), "imdb_contrast": ("dev", "test")}
# The sets that are evaluated, and their files in the data folder.
FILES = {
    "counterfactual_dev": "imdb_counterfactual/dev.parquet",
    "counterfactual_test": "imdb_counterfactual/test.parquet",
    "contrast_dev": "imdb_contrast/dev.parquet",
    "contrast_test": "imdb_contrast/test.parquet",
    "mr": "sentences/mr.parquet",
    "sst2": "sentences/sst2_sentences/test.parquet",
}
_NOT_LETTERS = bytes(byte for byte in range(256) if not ord("a") <= byte <= ord("z"))


@dataclass(frozen=True)
class OutsideSet:
    """Texts with a label each.

    Attributes:
        name: a key of `FILES`.
        rows: the texts and labels, in the order of the file.
        kinds: of each row, `original`, `revised` or `contrast`; None if the texts are not paired.
        partners: rows of (original, changed version) of each pair, int64 [pairs, 2]; None if they are not paired.
    """

    name: str
    rows: TextSplit
    kinds: tuple[str, ...] | None = None
    partners: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """The sha256 over the texts, labels and pairs."""
        parts = [*self.rows.texts, self.rows.labels.tolist(), self.kinds]
        parts.append(None if self.partners is None else self.partners.tolist())
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def load(root: str | Path) -> list[OutsideSet]:
    """Return the sets of `FILES` from the data folder `root`.

    Raises:
        UserError: a file is missing or damaged, or a pair is incomplete.
    """
    return [_read(name, _found(root, file)) for name, file in FILES.items()]


def _found(root: str | Path, file: str) -> Path:
    path = Path(root) / file
    if not path.is_file():
        raise UserError(
            f"{path} is missing: prepare it with `dropattack data {_command(file)}`, or set DROPATTACK_DATA to a "
            "folder that holds the rewritten and transfer sets."
        )
    return path


def _command(file: str) -> str:
    """Return the name that `dropattack data` has for a file of `FILES`."""
    folder, _, rest = file.partition("/")
    return folder if folder in PAIRED else rest.partition("/")[0].removesuffix(".parquet")


def _read(name: str, path: Path) -> OutsideSet:
    paired = path.parent.name in PAIRED
    rows, columns = read_table(path, len(CLASSES), ("kind", "pair") if paired else ())
    if not paired:
        return OutsideSet(name, rows)
    if missing := [column for column in ("kind", "pair") if column not in columns]:
        raise UserError(f"{path} has no column {missing[0]}; replace the file.")
    places: dict[int, dict[bool, int]] = {}
    for row, (kind, pair) in enumerate(zip(columns["kind"], columns["pair"], strict=True)):
        places.setdefault(pair, {})[kind == ORIGINAL] = row
    if 2 * len(places) != len(rows) or any(len(pair) != 2 for pair in places.values()):
        raise UserError(f"{path}: every pair must have one original and one changed text; replace the file.")
    partners = np.array([(pair[True], pair[False]) for pair in places.values()], dtype=np.int64)
    return OutsideSet(name, rows, tuple(columns["kind"]), partners)


@lru_cache(maxsize=1)  # a worker runs many cells on the same data
def rewritten(root: str | Path) -> frozenset[bytes]:
    """Return the `letters` of all texts of the paired sets, originals and changed versions, in every split.

    Raises:
        UserError: a file is missing or damaged.
    """
    paths = [Path(root) / name / f"{split}.parquet" for name, splits in PAIRED.items() for split in splits]
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(
            f"Dataset imdb: drop_rewritten=true needs {missing[0]}, which is missing: prepare it with `dropattack data "
            f"{missing[0].parent.name}`, or take dataset.drop_rewritten=false."
        )
    return frozenset(letters(text) for path in paths for text in read_table(path, len(CLASSES))[0].texts)


def letters(text: str) -> bytes:
    """Return the letters a to z of a text in lower case: equal for copies that differ in spaces, marks or digits."""
    return text.encode("utf-8", "surrogatepass").lower().translate(None, _NOT_LETTERS)


def absent(texts: Iterable[str], known: frozenset[bytes]) -> np.ndarray:
    """Return the rows whose letters are not among `known`: int64 [≤ N]."""
    return np.array([row for row, text in enumerate(texts) if letters(text) not in known], dtype=np.int64)
