"""A user's own images in torchvision's layout: one folder per class, and optionally one per split around them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from dropattack.data.cache import Content, cached
from dropattack.data.content import digest, locate
from dropattack.data.own import SPLIT_NAMES, OwnSplit, finish_own
from dropattack.data.splits import SubsetOptions
from dropattack.data.types import Dataset, ImageSplit, check_choice
from dropattack.errors import UserError

MODES = {"rgb": "RGB", "grey": "L"}  # ours → Pillow's


def load(
    *,
    root: str | Path,
    path: str | None = None,
    size: int = 32,
    mode: str = "rgb",
    test_fraction: float = 0.2,
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return the images in `path/{train,val,test}/class/*`, or in `path/class/*`; splits that are missing are carved.

    Pixels are uint8 [N, 3 or 1, size, size]: every image is resized (bilinear, antialiased) without keeping its aspect.

    Args:
        root: the data folder, where relative paths are looked for too.
        path: the folder.
        size: pixels per side.
        mode: `rgb`, or `grey` for one channel.
        test_fraction: the share of the images that becomes the test split, if there is none.
        cache: folder for the decoded images.
        subset: see `own.finish_own`.

    Raises:
        UserError: no folder, an empty one, an image that cannot be decoded, or too few images or classes.
    """
    check_choice("imagefolder", "mode", mode, tuple(MODES))
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"Dataset imagefolder: size={size} must be a whole number of pixels, at least 1.")
    if path is None:
        raise UserError("dataset=imagefolder needs your folder of images: set dataset.path=DIR.")
    folder = locate(path, root)
    if not folder.is_dir():
        raise UserError(f"There is no folder {path}; set dataset.path to a folder with one folder of images per class.")
    parts = {}
    for split, place in _places(folder).items():
        files = _files(place)
        key = {"content": digest(root, place), "size": size, "mode": mode}
        arrays, _ = cached(cache, f"imagefolder-{split}-pixels", key, partial(_decoded, files, size, mode))
        names = [name for _, name in files]
        parts[split] = OwnSplit(ImageSplit(arrays["pixels"], np.zeros(len(files), dtype=np.int64)), names, str(place))
    notes: dict[str, Any] = {"source": f"images: {folder.name}", "resized": f"{size} × {size}, {mode}"}
    return finish_own("imagefolder", parts, notes, test_fraction=test_fraction, **subset)


def _places(folder: Path) -> dict[str, Path]:
    """Return the folder of each split; `folder` itself is train if it has no folder of that name."""
    named = {SPLIT_NAMES[place.name.lower()]: place for place in sorted(folder.iterdir())
             if place.is_dir() and place.name.lower() in SPLIT_NAMES}  # fmt: skip
    return named if "train" in named else {"train": folder}


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Return the path and class of each image, in torchvision's order: sorted by class, then by path."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        classes, index = find_classes(str(folder))
        samples = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS)
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{folder} is not a folder of images ({reason}); it needs one folder per class, with images in each."
        ) from error
    return [(Path(file), classes[label]) for file, label in samples]


def _decoded(files: list[tuple[Path, str]], size: int, mode: str) -> Content:
    from PIL import Image

    channels = len(Image.new(MODES[mode], (1, 1)).getbands())
    pixels = np.empty((len(files), size, size, channels), np.uint8)
    for row, (file, _) in enumerate(files):
        try:
            with Image.open(file) as image:
                # JPEG decodes at a fraction of the size where that is enough; other formats ignore it.
                image.draft(MODES[mode], (2 * size, 2 * size))
                small = image.convert(MODES[mode]).resize((size, size), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(small).reshape(size, size, channels)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} cannot be decoded as an image; replace or remove the file.") from error
    return {"pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}, {}
