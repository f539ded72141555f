"""Small synthetic data in the real layouts."""

import gzip
import io
import itertools
import struct

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet  # noqa: F401  used as pa.parquet

from dropattack.data.encode import padded
from dropattack.data.types import Dataset, ImageSplit, TensorSplit, TextSplit

WORDS = ["red", "green", "blue", "round", "square", "heavy", "light", "fast", "slow", "odd", "even", "near", "far"]


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def texts(count, classes=2, seed=0, prefix=""):
    """Return `count` distinct texts with balanced labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    made = [f"{prefix}{i} " + " ".join(rng.choice(WORDS, rng.integers(1, 30))) for i in range(count)]
    return TextSplit(made, labels)


def dataset(count=40, classes=2):
    """Return a text data set of 3 · count rows."""
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset("toy", names, *(texts(count, classes, seed, f"s{seed}n") for seed in range(3)))


def image_split(count=20, shape=(3, 8, 8), classes=10, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageSplit(pixels, np.arange(count, dtype=np.int64) % classes)


def token_split(lengths, seed=0):
    """Return rows of the given lengths; the first token of row i is i + 1, which identifies the row."""
    import torch

    ids = [[row + 1, *[7] * (length - 1)] for row, length in enumerate(lengths)]
    matrix, sizes = padded(ids, 0)
    labels = torch.arange(len(ids)) % 2
    return TensorSplit(torch.from_numpy(matrix), labels, torch.from_numpy(sizes))


def write_table(path, columns):
    """Write Parquet, CSV or gzipped CSV, according to the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, compression="zstd")
        return path
    buffer = io.BytesIO()
    pa.csv.write_csv(table, buffer)
    path.write_bytes(gzip.compress(buffer.getvalue()) if path.suffix == ".gz" else buffer.getvalue())
    return path


def write_split(path, split, **extra):
    return write_table(path, {"text": split.texts, "label": split.labels, **extra})


def idx(array):
    """Return the bytes of an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def write_mnist(root, train=60, test=20, packed=True):
    folder = root / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        split = image_split(count, (1, 28, 28), seed=count)
        for kind, array in (("images-idx3", split.pixels[:, 0]), ("labels-idx1", split.labels.astype(np.uint8))):
            data, name = idx(array), f"{prefix}-{kind}-ubyte"
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return folder


def encoded_image(pixels, kind="WEBP"):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def write_cifar10(root, count=20):
    """Write six files of `count` images; return the pixels of the first, uint8 [count, 3, 32, 32]."""
    first = None
    for seed, name in enumerate([*(f"train_{part}_of_5" for part in range(1, 6)), "test"]):
        split = image_split(count, (3, 32, 32), seed=seed)
        first = split.pixels if first is None else first
        images = [encoded_image(image.transpose(1, 2, 0)) for image in split.pixels]
        exact = [row > 0 for row in range(count)]
        write_table(root / "cifar10" / f"{name}.parquet", {"image": images, "label": split.labels, "exact": exact})
    return first


def padding_share(loader, epoch=0):
    """Return the share of the epoch's tokens that are padding, in 0..1."""
    lengths = [loader.split.lengths.numpy()[rows] for rows in loader.rows(epoch)]
    return 1 - sum(batch.sum() for batch in lengths) / sum(batch.max() * len(batch) for batch in lengths)
