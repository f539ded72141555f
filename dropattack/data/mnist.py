"""MNIST (LeCun, Cortes and Burges): handwritten digits, 28 × 28; 60,000 for training, 10,000 for testing."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from dropattack.data.hub import Unavailable, reachable
from dropattack.data.sources import not_found
from dropattack.data.splits import SubsetOptions, finish
from dropattack.data.types import Dataset, ImageSplit, check_choice
from dropattack.errors import UserError

CLASSES = tuple("0123456789")
FOLDER = Path("MNIST", "raw")  # torchvision's layout
PREFIXES = {"train": "train", "test": "t10k"}
MOST_BYTES = 64 << 20  # per unpacked file; the largest has 47,040,016. A packed file can expand to any size.
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz"


def load(
    *,
    root: str | Path,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return MNIST from the IDX files (packed or not) in `root/mnist/MNIST/raw`, downloaded there if they are missing.

    Pixels are uint8 [N, 1, 28, 28].

    Args:
        root: the data folder.
        split: `official`; the DropAttack authors published no split.
        cache: unused; accepted because every data set takes it.
        subset: see `splits.finish`.

    Raises:
        UserError: not found, a bad file, or a bad option.
    """  # noqa: DOC501  not_found makes a UserError
    check_choice("mnist", "split (no author split is known)", split, ("official",))
    folder = Path(root) / "mnist" / FOLDER
    source = "local copy: mnist/MNIST/raw"
    if missing := _missing(folder):
        if len(missing) < 4:
            raise UserError(
                f"Dataset mnist is incomplete: {folder} lacks {', '.join(missing)}. "
                f"Prepare it again with `dropattack data mnist --to {root}`."
            )
        try:
            download(root)
        except Unavailable as error:
            raise not_found("mnist", root, f"{FOLDER}/{{train,t10k}}-*-ubyte.gz", str(error)) from error
        source = "torchvision's mirror"
    train, test = (read_split(folder, prefix) for prefix in PREFIXES.values())
    notes = {"source": source, "split": split}
    return finish(name="mnist", classes=CLASSES, train=train, test=test, notes=notes, **subset)


def download(root: str | Path) -> None:
    """Download MNIST into `root/mnist` with torchvision.

    Raises:
        Unavailable: the download fails.
    """
    if not reachable(MIRROR):
        raise Unavailable("torchvision's mirrors do not answer")
    from torchvision.datasets import MNIST

    try:
        MNIST(str(Path(root) / "mnist"), download=True)
    except Exception as error:  # network, disk and checksum errors of several kinds
        raise Unavailable(f"torchvision could not download it ({error})") from error


def read_split(folder: Path, prefix: str) -> ImageSplit:
    """Return the images, uint8 [N, 1, 28, 28], and the labels of one split.

    Raises:
        UserError: a bad file, which the message names.
    """
    images_path, labels_path = (
        _find(folder, f"{prefix}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    assert images_path is not None
    assert labels_path is not None
    pixels, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(pixels) != len(labels):
        raise UserError(f"{images_path} has {len(pixels)} images but {labels_path} {len(labels)} labels; replace them.")
    if (wrong := np.flatnonzero(labels > 9)).size:
        where = f"{labels_path}, row {wrong[0] + 1}"
        raise UserError(f"{where}: label {labels[wrong[0]]} is not one of 0..9; replace it.")
    return ImageSplit(pixels[:, None], labels.astype(np.int64))


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the values of an IDX file of bytes, gzipped or not: uint8 with `dimensions` axes.

    The format: two zero bytes, type 8 (unsigned byte), the number of axes, one big-endian int32 per axis, the values.

    Raises:
        UserError: not an IDX file of bytes, or too short or too long.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); it may be truncated: replace it.") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} holds more than {MOST_BYTES >> 20} MB, and MNIST's files are smaller; replace it.")
    head = 4 + 4 * dimensions
    if len(data) < head:
        raise UserError(f"{path} is not an IDX file: it ends within its header, after {len(data)} bytes; replace it.")
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(
            f"{path} is not an IDX file of bytes with {dimensions} axes: it begins with {data[:4].hex(' ')}, not "
            f"00 00 08 {dimensions:02x}; replace it."
        )
    shape = tuple(np.frombuffer(data, ">i4", dimensions, 4).tolist())
    if len(data) - head != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{path} holds {len(data) - head} values, but its header says {shape}; it may be truncated: replace it."
        )
    if dimensions == 3 and shape[1:] != (28, 28):
        raise UserError(f"{path} holds images of {shape[1]} × {shape[2]}, but MNIST's are 28 × 28; replace it.")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy()  # `data` is read-only


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _missing(folder: Path) -> list[str]:
    stems = [f"{prefix}-{kind}" for prefix in PREFIXES.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    return [f"{stem}.gz" for stem in stems if _find(folder, stem) is None]
