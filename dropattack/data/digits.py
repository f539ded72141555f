"""The handwritten digits of scikit-learn: 1,797 real 8 × 8 images that ship with the package, for demonstrations."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from dropattack.data.splits import SubsetOptions, carve, finish
from dropattack.data.types import Dataset, ImageSplit, check_choice
from dropattack.errors import UserError

CLASSES = tuple("0123456789")
TEST_ROWS, VALIDATION_ROWS = 400, 300


def load(
    *,
    root: str | Path | None = None,
    split: str = "official",
    cache: str | Path | None = None,
    **subset: Unpack[SubsetOptions],
) -> Dataset:
    """Return the UCI digits (Alpaydin and Kaynak 1998) that ship with scikit-learn; every version has the same file.

    Pixels are uint8 [N, 1, 8, 8]: the file's 0..16 times 15, so 0..240, close to the 0..255 of other images. The split
    is our own, stratified and fixed: 1,097 / 300 / 400 (the validation share can be set).

    Args:
        root: unused, like `cache`; accepted because every data set takes them.
        split: `official`, the only one.
        cache: unused.
        subset: see `splits.finish`.

    Raises:
        UserError: a bad option, or a damaged file.
    """
    check_choice("digits", "split", split, ("official",))
    images, labels = _shipped()
    everything = ImageSplit((images * 15).astype(np.uint8)[:, None], labels.astype(np.int64))
    train, test = carve(everything, TEST_ROWS, 0, 10)  # the test split does not depend on the split seed
    subset.setdefault("validation_fraction", VALIDATION_ROWS / len(train))
    notes = {"source": "scikit-learn's load_digits", "split": split, "pixels": "0..16 times 15"}
    return finish(name="digits", classes=CLASSES, train=train, test=test, notes=notes, **subset)


def _shipped() -> tuple[np.ndarray, np.ndarray]:
    """Return (images [N, 8, 8] in 0..16, labels [N]). Importing scikit-learn would take longer than the training."""
    spec = importlib.util.find_spec("sklearn")  # finding a top-level package does not import it
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if file is not None and file.is_file():
        try:
            rows = np.loadtxt(file, delimiter=",")
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"scikit-learn's {file.name} is damaged ({error}); install scikit-learn again") from error
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    from sklearn.datasets import load_digits  # a version that stores the file elsewhere

    bunch = load_digits()
    return bunch.images, bunch.target
