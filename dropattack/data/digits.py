"""Handwritten digits of scikit-learn: 1,797 real 8 × 8 images that come with the package, for demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from dropattack.data.splits import SubsetOptions, carve, finish
from dropattack.data.types import Dataset, ImageSplit, one_of

CLASSES = tuple("0123456789")
TEST_ROWS, VALIDATION_ROWS = 400, 300


def load(
    *,
    root: str | Path | None = None,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """The UCI digits (Alpaydin and Kaynak 1998) as scikit-learn ships them: no download, one file for all versions.

    Pixels are uint8 [N, 1, 8, 8]: the file's 0..16 times 15, so that 0..240 reads as other images' 0..255. The split is
    ours, stratified and fixed: 1,097 / 300 / 400 (the validation share can be set).

    Args:
        root, cache: unused; every data set takes them.
        split: `official`; there is no other.
        subset: see `splits.finish`.

    Raises:
        UserError: a bad option.
    """
    from sklearn.datasets import load_digits

    one_of("digits", "split", split, ("official",))
    bunch = load_digits()
    pixels = (bunch.images * 15).astype(np.uint8)[:, None]
    everything = ImageSplit(pixels, bunch.target.astype(np.int64))
    train, test = carve(everything, TEST_ROWS, 0, 10)  # one test split, whatever the split seed
    subset.setdefault("validation_fraction", VALIDATION_ROWS / len(train))
    notes = {"source": "scikit-learn's load_digits", "split": split, "pixels": "0..16 times 15"}
    return finish(name="digits", classes=CLASSES, train=train, test=test, notes=notes, **subset)
