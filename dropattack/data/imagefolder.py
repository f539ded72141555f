"""A user's own images in torchvision's layout: one folder per class, and optionally one per split around them."""

from __future__ import annotations

import os
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

CHANNELS = {"rgb": 3, "grey": 1}
DECODER = 2  # increase when the same files give other pixels


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

    Pixels are uint8 [N, 3 or 1, size, size]: every image is turned upright, as EXIF says, and resized (bilinear,
    antialiased) without keeping its aspect.

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
    check_choice("imagefolder", "mode", mode, tuple(CHANNELS))
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"Dataset imagefolder: size={size} must be a whole number of pixels, at least 1.")
    if path is None:
        raise UserError("dataset=imagefolder needs your folder of images: set dataset.path=DIR.")
    folder = locate(path, root)
    if not folder.is_dir():
        raise UserError(f"There is no folder {path}; set dataset.path to a folder with one folder of images per class.")
    parts, places = {}, _places(folder)
    left_out = [] if places["train"] == folder else [
        place.name for place in sorted(folder.iterdir()) if place.is_dir() and place not in places.values()
    ]  # fmt: skip
    others = 0
    for split, place in places.items():
        files = _files(place)
        others += _count_others(place)
        key = {"content": digest(root, place), "size": size, "mode": mode, "decoder": DECODER}
        arrays, _ = cached(cache, f"imagefolder-{split}-pixels", key, partial(_decoded, files, size, mode))
        names = [name for _, name in files]
        parts[split] = OwnSplit(ImageSplit(arrays["pixels"], np.zeros(len(files), dtype=np.int64)), names, str(place))
    notes: dict[str, Any] = {"source": f"images: {folder.name}", "resized": f"{size} × {size}, {mode}"}
    if left_out:
        notes["splits_left_out"] = left_out
    if others:
        notes["files_left_out"] = others
    return finish_own("imagefolder", parts, notes, test_fraction=test_fraction, **subset)


def _places(folder: Path) -> dict[str, Path]:
    """Return the folder of each split; `folder` itself is train if it has no folder of that name."""
    named: dict[str, Path] = {}
    for place in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(place.name.lower()) if place.is_dir() else None
        if split is not None and split in named:
            raise UserError(f"{folder} has two folders for {split}, {named[split].name} and {place.name}: rename one.")
        if split is not None:
            named[split] = place
    return named if "train" in named else {"train": folder}


def _count_others(folder: Path) -> int:
    """Return the number of files in the folders of classes that are not read: they have another suffix."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = (Path(name) for place in folder.iterdir() if place.is_dir()
             for _, _, files in os.walk(place, followlinks=True) for name in files)  # fmt: skip
    return sum(not file.name.startswith(".") and file.suffix.lower() not in IMG_EXTENSIONS for file in found)


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Return the path and class of each image, in torchvision's order: sorted by class, then by path."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        classes = [name for name in find_classes(str(folder))[0] if not name.startswith(".")]
        index = {name: label for label, name in enumerate(classes)}
        samples = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS) if classes else []
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{folder} is not a folder of images ({reason}); it needs one folder per class, with images in each."
        ) from error
    found = [(Path(file), classes[label]) for file, label in samples]
    shown = [(file, name) for file, name in found if not _is_hidden(file.relative_to(folder))]
    if not shown:
        raise UserError(f"{folder} has no folder of images that is not hidden; it needs one folder per class.")
    return shown


def _is_hidden(path: Path) -> bool:
    """Return whether a file or a folder around it is hidden: thumbnails, checkpoints of a notebook."""
    return any(part.startswith(".") for part in path.parts)


def _decoded(files: list[tuple[Path, str]], size: int, mode: str) -> Content:
    channels = CHANNELS[mode]
    pixels = np.empty((len(files), channels, size, size), np.uint8)
    for row, (file, _) in enumerate(files):
        try:
            pixels[row] = pixels_of(file, channels, size, size)
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{file} cannot be decoded as an image; replace or remove the file.") from error
    return {"pixels": pixels}, {}


def pixels_of(file: Path, channels: int, height: int, width: int) -> np.ndarray:
    """Return an image as a model reads it, in training and in prediction: uint8 [1 (grey) or 3 (colour), H, W].

    Raises:
        UserError: its pixels have more than 8 bits, and which of their values are black and white is not known.
        OSError: the file cannot be read as an image, as with ValueError and SyntaxError.
        ValueError: the same.
    """
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":  # I;16, I and F: Pillow cuts them off at 255, and nearly all is white
                raise UserError(
                    f"{file} has more than 8 bits per pixel (Pillow's mode {image.mode}): convert it to 8 bits, with "
                    "the values that are to be black and white."
                )
            # JPEG decodes at a fraction of the size where that is enough; other formats ignore it.
            image.draft(mode, (2 * max(height, width), 2 * max(height, width)))
            small = ImageOps.exif_transpose(image).convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    return np.ascontiguousarray(np.asarray(small).reshape(height, width, channels).transpose(2, 0, 1))
