"""Data sets before tokenisation (`Dataset`) and after it (`Encoded`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dropattack.errors import UserError

if TYPE_CHECKING:  # reading a data set, or finding it missing, needs no torch
    from torch import Tensor

Kind = Literal["text", "image"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Texts, or pairs of texts, with one label each."""

    texts: list[str]
    labels: np.ndarray  # int64 [N]
    pairs: list[str] | None = None  # the second text of each row

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> TextSplit:
        """Return the given rows, in the given order."""
        pairs = None if self.pairs is None else [self.pairs[row] for row in rows]
        return TextSplit([self.texts[row] for row in rows], self.labels[rows], pairs)


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images with one label each."""

    pixels: np.ndarray  # uint8 [N, C, H, W]
    labels: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> ImageSplit:
        """Return the given rows, in the given order."""
        return ImageSplit(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one kind, checked on construction.

    `notes` (JSON values) go into the run's record: the source of the data and how it differs from the official release.

    Raises:
        UserError: an empty split, a label that is not a class, or a blank text.
    """

    name: str
    classes: tuple[str, ...]
    train: TextSplit | ImageSplit
    validation: TextSplit | ImageSplit
    test: TextSplit | ImageSplit
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in SPLITS:
            _check(self.name, split, getattr(self, split), len(self.classes))
        shapes = {None if isinstance(s, TextSplit) else s.pixels.shape[1:] for s in self.splits.values()}
        if len(shapes) > 1:
            raise UserError(f"Dataset {self.name}: its splits hold different kinds or sizes of examples ({shapes}).")

    @property
    def kind(self) -> Kind:
        return "text" if isinstance(self.train, TextSplit) else "image"

    @property
    def splits(self) -> dict[str, TextSplit | ImageSplit]:
        return {split: getattr(self, split) for split in SPLITS}

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over the classes, and over the examples and labels of all splits in order."""
        digest = hashlib.sha256(repr((self.kind, self.classes)).encode())
        for name, split in self.splits.items():
            digest.update(f"{name} {len(split)}".encode())
            if isinstance(split, TextSplit):
                for text in (*split.texts, *(split.pairs or ())):
                    data = text.encode("utf-8", "surrogatepass")
                    digest.update(len(data).to_bytes(8, "little"))  # otherwise "ab","c" would equal "a","bc"
                    digest.update(data)
            else:
                digest.update(repr(split.pixels.shape).encode())
                digest.update(np.ascontiguousarray(split.pixels).data)
            digest.update(np.ascontiguousarray(split.labels, dtype="<i8").data)
        return digest.hexdigest()


def _check(name: str, split_name: str, split: TextSplit | ImageSplit, classes: int) -> None:
    where = f"Dataset {name}, split {split_name}"
    count = len(split.texts) if isinstance(split, TextSplit) else len(split.pixels)
    if count == 0:
        raise UserError(f"{where}: no rows; check the split's file, or ask for more rows.")
    if split.labels.dtype != np.int64 or split.labels.shape != (count,):
        raise UserError(
            f"{where}: {count} examples but labels of type {split.labels.dtype} and shape {split.labels.shape}; "
            f"expected int64 [{count}]."
        )
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(wrong):
        raise UserError(
            f"{where}, row {wrong[0]} (the first is 0): label {split.labels[wrong[0]]} is not one of 0..{classes - 1}; "
            "correct it in the data."
        )
    if isinstance(split, TextSplit):
        for row, text in enumerate(split.texts):
            if not text or text.isspace():
                raise UserError(f"{where}, row {row} (the first is 0): the text is empty; fill it or remove the row.")
    elif split.pixels.dtype != np.uint8 or split.pixels.ndim != 4:
        raise UserError(
            f"{where}: pixels of type {split.pixels.dtype} and shape {split.pixels.shape}; expected uint8 [N, C, H, W]."
        )


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """One split as tensors on the CPU."""

    inputs: Tensor  # text: int32 [N, T], padded; images: uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    lengths: Tensor | None = None  # text: int64 [N], tokens per row, at least 1; images: None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> TensorSplit:
        """Return the given rows, in the given order."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return TensorSplit(self.inputs[rows], self.labels[rows], lengths)

    @cached_property
    def pixel_statistics(self) -> PixelStatistics | None:
        """Mean and standard deviation per channel, in 0..1; std is 1 for a constant channel. None for text."""
        import torch

        if self.lengths is not None:
            return None
        counts = [torch.bincount(channel.flatten(), minlength=256).double() for channel in self.inputs.transpose(0, 1)]
        levels = torch.arange(256, dtype=torch.float64) / 255
        means = [(count * levels).sum() / count.sum() for count in counts]
        variances = [(count * (levels - m) ** 2).sum() / count.sum() for count, m in zip(counts, means, strict=True)]
        return PixelStatistics(
            tuple(float(mean) for mean in means), tuple(float(variance.sqrt()) or 1.0 for variance in variances)
        )


class PixelStatistics(NamedTuple):
    """Mean and standard deviation of pixels in 0..1, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataSpec:
    """The properties of the data that a model needs."""

    kind: Kind
    classes: int
    vocabulary: tuple[str, ...] | None = None  # text: the token of each id
    padding_id: int | None = None
    image_shape: tuple[int, int, int] | None = None  # images: C, H, W
    separator_id: int | None = None  # pairs of texts: the token that ends the first, if its vocabulary numbers segments


@dataclass(frozen=True, eq=False)
class Encoded:
    """A data set as tensors."""

    spec: DataSpec
    train: TensorSplit
    validation: TensorSplit
    test: TensorSplit


def check_choice(dataset: str, option: str, value: object, choices: Sequence[str]) -> None:
    """Check that `value` is one of `choices`.

    Raises:
        UserError: it is not; the message lists the choices.
    """
    if value not in choices:
        raise UserError(f"Dataset {dataset}: {option}={value} is unknown; choose one of {', '.join(choices)}.")
