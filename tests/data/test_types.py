"""A data set is checked on construction, and its fingerprint covers its content."""

import numpy as np
import pytest

from dropattack.data.types import Dataset, ImageSplit, TextSplit
from dropattack.errors import UserError
from tests.data.makers import dataset, image_split, texts


def test_kinds_and_fingerprints():
    text = dataset()
    image = Dataset("toy", tuple("0123456789"), image_split(), image_split(seed=1), image_split(seed=2))
    assert (text.kind, image.kind) == ("text", "image")
    assert text.fingerprint == dataset().fingerprint != image.fingerprint


@pytest.mark.parametrize("change", ["text", "label", "boundary", "split", "class"])
def test_fingerprint_sees_every_change(change):
    before = dataset()
    train, validation, classes = before.train, before.validation, before.classes
    if change == "text":
        train = TextSplit([*train.texts[:-1], "other"], train.labels)
    elif change == "label":
        train = TextSplit(train.texts, 1 - train.labels)
    elif change == "boundary":  # the same characters, cut elsewhere
        first, second, *rest = train.texts
        train = TextSplit([first + second[:1], second[1:], *rest], train.labels)
    elif change == "split":
        train, validation = validation, train
    else:
        classes = ("class 1", "class 0")
    assert Dataset("toy", classes, train, validation, before.test).fingerprint != before.fingerprint


def broken(**labels_or_texts):
    split = texts(6)
    labels = split.labels.copy()
    if "label" in labels_or_texts:
        labels[4] = labels_or_texts["label"]
    if "text" in labels_or_texts:
        split.texts[4] = labels_or_texts["text"]
    return TextSplit(split.texts, labels)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (broken(label=2), "split validation, row 4 .*label 2"),
        (broken(label=-1), "row 4 .*label -1"),
        (broken(text=""), "row 4 .*empty"),
        (broken(text=" \n\t"), "row 4 .*empty"),
        (TextSplit([], np.zeros(0, np.int64)), "no rows"),
        (TextSplit(["a"], np.zeros(2, np.int64)), "1 examples but labels"),
        (TextSplit(["a"], np.zeros(1)), "float64"),
        (image_split(), "different kinds|label"),
        (ImageSplit(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)), r"uint8 \[N, C, H, W\]"),
    ],
)
def test_bad_split(split, said):
    with pytest.raises(UserError, match=f"(?s)Dataset toy.*({said})"):
        Dataset("toy", ("a", "b"), texts(6), split, texts(6))
