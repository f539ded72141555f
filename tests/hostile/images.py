"""Hostile images: MNIST's IDX files, CIFAR-10's Parquet files and torchvision's pickles."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.makers import encoded_image, idx, image_split, write_cifar10, write_mnist, write_table
from tests.hostile.case import CANARY, Bomb, Case

MNIST, CIFAR10 = ("dataset=mnist", "model=cnn"), ("dataset=cifar10", "model=cnn")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
Make = Callable[[Path], Sequence[str]]


def mnist(name: str, change: Callable[[bytes], bytes], packed: bool = False) -> Make:
    """Write MNIST with one file changed."""

    def make(folder: Path) -> Sequence[str]:
        path = write_mnist(folder / "data", packed=packed) / (name + ".gz" * packed)
        path.write_bytes(change(path.read_bytes()))
        return MNIST

    return make


def unlabelled(folder: Path) -> Sequence[str]:
    (write_mnist(folder / "data", packed=False) / LABELS).unlink()
    return MNIST


def cifar10(column: str, value: Any) -> Make:
    """Write CIFAR-10 with one cell of its first file changed."""

    def make(folder: Path) -> Sequence[str]:
        write_cifar10(folder / "data", count=4)
        split = image_split(4, (3, 32, 32))
        columns = {"image": [good_image()] * 4, "label": split.labels.tolist()}
        columns[column][2] = value
        write_table(folder / "data" / "cifar10" / "train_1_of_5.parquet", columns)
        return CIFAR10

    return make


def good_image(side: int = 32) -> bytes:
    return encoded_image(image_split(1, (3, side, side)).pixels[0].transpose(1, 2, 0))


def gigantic_image() -> bytes:
    """Return a PNG of 100 bytes that claims to have 50,000 × 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def in_layout_of_the_hub(folder: Path) -> Sequence[str]:
    """Return the image as a mapping, like the hub's own Parquet files."""
    write_cifar10(folder / "data", count=4)
    images = [{"bytes": good_image(), "path": None}] * 4
    write_table(folder / "data" / "cifar10" / "train_1_of_5.parquet", {"image": images, "label": [0, 1, 2, 3]})
    return CIFAR10


def another_column(folder: Path) -> Sequence[str]:
    write_cifar10(folder / "data", count=4)
    write_table(folder / "data" / "cifar10" / "train_1_of_5.parquet", {"img": [good_image()], "label": [0]})
    return CIFAR10


def lost_file(folder: Path) -> Sequence[str]:
    write_cifar10(folder / "data", count=4)
    (folder / "data" / "cifar10" / "train_3_of_5.parquet").unlink()
    return CIFAR10


def cut_file(folder: Path) -> Sequence[str]:
    write_cifar10(folder / "data", count=4)
    path = folder / "data" / "cifar10" / "train_3_of_5.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    return CIFAR10


def pickles(folder: Path) -> Sequence[str]:
    """Write torchvision's layout, with pickles that create the canary."""
    place = folder / "data" / "cifar10" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch", "batches.meta"):
        (place / name).write_bytes(pickle.dumps(Bomb(folder / CANARY)))
    return CIFAR10


def grey() -> bytes:
    buffer = io.BytesIO()
    from PIL import Image

    Image.fromarray(np.zeros((32, 32), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


LABELS_OF_60 = np.arange(60, dtype=np.uint8) % 10
CASES = (
    Case(
        "IDX of no bytes",
        mnist(IMAGES, lambda data: b""),
        r"train-images-idx3-ubyte is not an IDX file: it ends within its header, after 0 bytes; replace it",
    ),
    Case(
        "IDX with half a header",
        mnist(IMAGES, lambda data: data[:9]),
        r"train-images-idx3-ubyte is not an IDX file: it ends within its header, after 9 bytes; replace it",
    ),
    Case(
        "IDX with half a body",
        mnist(IMAGES, lambda data: data[: len(data) // 2]),
        r"train-images-idx3-ubyte holds 23512 values, but its header says \(60, 28, 28\).*replace it",
    ),
    Case(
        "IDX with a byte too many",
        mnist(IMAGES, lambda data: data + b"\0"),
        r"train-images-idx3-ubyte holds 47041 values, but its header says \(60, 28, 28\).*replace it",
    ),
    Case(
        "IDX with another magic number",
        mnist(IMAGES, lambda data: b"\x89PNG" + data[4:]),
        r"train-images-idx3-ubyte is not an IDX file .*begins with 89 50 4e 47, not 00 00 08 03; replace it",
    ),
    Case(
        "IDX of floats",
        mnist(IMAGES, lambda data: b"\0\0\x0d\x03" + data[4:]),
        r"train-images-idx3-ubyte is not an IDX file .*begins with 00 00 0d 03, not 00 00 08 03; replace it",
    ),
    Case(
        "IDX with one axis too few",
        mnist(IMAGES, lambda data: idx(LABELS_OF_60)),
        r"train-images-idx3-ubyte is not an IDX file .*begins with 00 00 08 01, not 00 00 08 03; replace it",
    ),
    Case(
        "IDX of 32 × 32 pixels",
        mnist(IMAGES, lambda data: idx(np.zeros((60, 32, 32), np.uint8))),
        r"train-images-idx3-ubyte holds images of 32 × 32, but MNIST's are 28 × 28; replace it",
    ),
    Case(
        "IDX with negative axes",
        mnist(IMAGES, lambda data: data[:4] + struct.pack(">3i", -60, -28, 28) + data[16:]),
        r"train-images-idx3-ubyte holds images of -28 × 28, but MNIST's are 28 × 28; replace it",
    ),
    Case(
        "IDX without rows",
        mnist(IMAGES, lambda data: idx(np.zeros((0, 28, 28), np.uint8))),
        r"train-images-idx3-ubyte has 0 images but .*train-labels-idx1-ubyte 60 labels; replace them",
    ),
    Case(
        "IDX with fewer labels than images",
        mnist(LABELS, lambda data: idx(LABELS_OF_60[:50])),
        r"train-images-idx3-ubyte has 60 images but .*train-labels-idx1-ubyte 50 labels; replace them",
    ),
    Case(
        "IDX with a label of 10",
        mnist(LABELS, lambda data: idx(LABELS_OF_60 + 1)),
        r"train-labels-idx1-ubyte, row 10: .*label 10 is not one of 0\.\.9; replace it",
    ),
    Case(
        "IDX without its labels",
        unlabelled,
        r"mnist is incomplete: .*lacks train-labels-idx1-ubyte\.gz.*dropattack data mnist",
    ),
    Case(
        "packed IDX cut short",
        mnist(IMAGES, lambda data: data[:-99], packed=True),
        r"train-images-idx3-ubyte\.gz cannot be read \(Compressed file ended .*replace it",
    ),
    Case(
        "packed IDX with a wrong checksum",
        mnist(IMAGES, lambda data: data[:-8] + bytes(4) + data[-4:], packed=True),
        r"train-images-idx3-ubyte\.gz cannot be read \(CRC check failed.*replace it",
    ),
    Case(
        "IDX that says it is packed",
        mnist(IMAGES, gzip.decompress, packed=True),
        r"train-images-idx3-ubyte\.gz cannot be read \(Not a gzipped file .*replace it",
    ),
    Case(
        "packed IDX of 100 MB in 100 kB",
        mnist(LABELS, lambda data: gzip.compress(bytes(100 << 20), 9), packed=True),
        r"train-labels-idx1-ubyte\.gz holds more than 64 MB.*replace it",
    ),
    Case(
        "WebP cut short",
        cifar10("image", good_image()[:-200]),
        r"train_1_of_5\.parquet, row 3: .*the image cannot be decoded.*replace the file",
    ),
    Case(
        "a file that is not an image",
        cifar10("image", b"GIF89a, or so it says"),
        r"train_1_of_5\.parquet, row 3: .*the image cannot be decoded.*replace the file",
    ),
    Case(
        "an image of no bytes",
        cifar10("image", b""),
        r"train_1_of_5\.parquet, row 3: .*the image cannot be decoded.*replace the file",
    ),
    Case(
        "a null image",
        cifar10("image", None),
        r"train_1_of_5\.parquet, row 3: .*the image cannot be decoded.*replace the file",
    ),
    Case(
        "an image of 8 × 8",
        cifar10("image", good_image(8)),
        r"train_1_of_5\.parquet, row 3: .*the image has shape \(8, 8\) and is RGB, not \(32, 32\).*replace the file",
    ),
    Case(
        "an image in grey",
        cifar10("image", grey()),
        r"train_1_of_5\.parquet, row 3: .*the image has shape \(32, 32\) and is L, not .*RGB; replace the file",
    ),
    Case(
        "an image of 50,000 × 50,000 in 100 bytes",
        cifar10("image", gigantic_image()),
        r"train_1_of_5\.parquet, row 3: .*the image cannot be decoded.*replace the file",
    ),
    Case(
        "images as mappings",
        in_layout_of_the_hub,
        r"train_1_of_5\.parquet, row 1: .*the image is a dict, not the bytes of a file; replace the file",
    ),
    Case(
        "a label of 10",
        cifar10("label", 10),
        r"train_1_of_5\.parquet, row 3: .*label 10 is not one of 0\.\.9; correct it",
    ),
    Case(
        "a null label",
        cifar10("label", None),
        r"train_1_of_5\.parquet, row 3: .*label None is not one of 0\.\.9; correct it",
    ),
    Case(
        "images in another column",
        another_column,
        r"train_1_of_5\.parquet has columns img, label; it needs `image` and `label`",
    ),
    Case(
        "one of six files lost",
        lost_file,
        r"cifar10 is incomplete: .*lacks train_3_of_5\.parquet.*dropattack data cifar10",
    ),
    Case("one of six files cut short", cut_file, r"train_3_of_5\.parquet cannot be read: .*Replace the file"),
    Case(
        "torchvision's pickles with code in them",
        pickles,
        r"cifar10 was not found: .*torchvision could not read it .*dropattack data cifar10",
    ),
)
