"""CIFAR-10 (Krizhevsky 2009): 32 × 32 colour photographs of ten classes; 50,000 for training, 10,000 for testing."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.cache import Content, cached
from dropattack.data.hub import Unavailable, reachable
from dropattack.data.sources import not_found
from dropattack.data.splits import SubsetOptions, finish
from dropattack.data.types import Dataset, ImageSplit, check_choice
from dropattack.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": [f"train_{part}_of_5.parquet" for part in range(1, 6)], "test": ["test.parquet"]}
PICKLES = "cifar-10-batches-py"  # torchvision's layout
MIRROR = "https://www.cs.toronto.edu/~kriz/cifar.html"


def load(
    *,
    root: str | Path,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return CIFAR-10 from `root/cifar10` (Parquet files or torchvision's files), downloaded there if it is missing.

    Pixels are uint8 [N, 3, 32, 32]. `notes` counts the images that a Parquet file marks as not `exact`.

    Args:
        root: the data folder.
        split: `official`; the DropAttack authors published no split.
        cache: folder for the decoded images.
        subset: see `splits.finish`.

    Raises:
        UserError: not found, a bad file or image, or a bad option.
    """  # noqa: DOC501  not_found makes a UserError
    check_choice("cifar10", "split (no author split is known)", split, ("official",))
    folder = Path(root) / "cifar10"
    paths = {part: [folder / name for name in names] for part, names in FILES.items()}
    missing = [path.name for part in paths.values() for path in part if not path.is_file()]
    notes: dict[str, Any] = {"split": split}
    if not missing:
        train, test = (_parquet(paths[part], cache, part, notes) for part in FILES)
        notes["source"] = "local copy: cifar10/*.parquet"
    elif len(missing) < 6:
        raise UserError(
            f"Dataset cifar10 is incomplete: {folder} lacks {', '.join(missing)}. "
            f"Prepare it again with `dropattack data cifar10 --to {root}`."
        )
    else:
        try:
            train, test = from_torchvision(root)
        except Unavailable as error:
            looked = f"train_{{1..5}}_of_5.parquet, test.parquet or intact {PICKLES}"
            raise not_found("cifar10", root, looked, str(error)) from error
        notes["source"] = f"torchvision: cifar10/{PICKLES}"
    return finish(name="cifar10", classes=CLASSES, train=train, test=test, notes=notes, **subset)


def _parquet(paths: list[Path], cache: str | Path | None, part: str, notes: dict[str, Any]) -> ImageSplit:
    key = {"files": [_file_hash(path) for path in paths]}
    arrays, values = cached(cache, f"cifar10-{part}-pixels", key, lambda: _decode_files(paths))
    if values["approximate"]:
        notes[f"{part}_images_approximate"] = values["approximate"]
    return ImageSplit(arrays["pixels"], arrays["labels"])


def _decode_files(paths: list[Path]) -> Content:
    import pyarrow as pa
    import pyarrow.parquet

    pixels, labels, approximate = [], [], 0
    for path in paths:
        try:
            table = pa.parquet.read_table(path)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{path} cannot be read: {reason}. Replace the file: it may be truncated.") from error
        names = table.column_names
        if not names.count("image") == names.count("label") == 1:
            raise UserError(f"{path} has columns {', '.join(names)}; it needs `image` and `label`, once.")
        if names.count("exact") == 1:
            approximate += table["exact"].to_pylist().count(False)
        for row, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
            if type(label) is not int or not 0 <= label < len(CLASSES):
                raise UserError(f"{path}, row {row + 1}: label {label!r} is not one of 0..9; correct it.")
            labels.append(label)
            pixels.append(decode(image, f"{path}, row {row + 1}"))
        if not table.num_rows:
            raise UserError(f"{path} has no rows; replace the file.")
    # Contiguous, like arrays read from the cache: a fresh build must return the same as a cached one.
    array = np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))
    return {"pixels": array, "labels": np.array(labels, dtype=np.int64)}, {"approximate": approximate}


def decode(data: bytes | None, where: str) -> np.ndarray:
    """Return an image decoded to uint8 [32, 32, 3]; error messages begin with `where`.

    Raises:
        UserError: the image is damaged, or not 32 × 32 RGB.
    """
    from PIL import Image

    if not isinstance(data, bytes | None):
        raise UserError(f"{where}: the image is a {type(data).__name__}, not the bytes of a file; replace the file.")
    try:
        # Naming the formats keeps Pillow from trying all of them, which takes half of the time.
        with Image.open(io.BytesIO(data or b""), formats=("WEBP", "PNG")) as image:
            # Check before decoding: a hundred bytes can claim to be a gigabyte of pixels.
            if image.size != (32, 32) or image.mode != "RGB":
                shape = f"{(image.height, image.width)} and is {image.mode}"
                raise UserError(f"{where}: the image has shape {shape}, not (32, 32) and RGB; replace the file.")
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: the image cannot be decoded; it may be truncated: replace the file.") from error


def from_torchvision(root: str | Path) -> tuple[ImageSplit, ImageSplit]:
    """Return (train, test) from torchvision, which checks each file's MD5; download to `root/cifar10` if needed.

    Raises:
        Unavailable: the data can be neither read nor downloaded.
    """
    folder = Path(root) / "cifar10"
    present = (folder / PICKLES).is_dir()
    if not present and not reachable(MIRROR):
        raise Unavailable("torchvision's mirror does not answer")
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(folder), train=train, download=not present) for train in (True, False)]
    except Exception as error:  # network, disk and checksum errors of several kinds
        raise Unavailable(f"torchvision could not {'read' if present else 'download'} it ({error})") from error
    train, test = (
        ImageSplit(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.array(part.targets, dtype=np.int64))
        for part in parts
    )
    return train, test


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
