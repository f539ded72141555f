"""Checks of whole data sets: missing classes, identical examples, leaks, contradicting labels."""

import numpy as np
import pytest

from dropattack.data import sets
from dropattack.data.splits import finish
from dropattack.data.types import ImageSplit, TensorSplit, TextSplit
from dropattack.errors import UserError
from tests.data.makers import image_split, texts


def made(train, test, validation=None, classes=2, **options):
    names = tuple(f"c{label}" for label in range(classes))
    return finish(name="toy", classes=names, train=train, test=test, validation=validation, notes={}, **options)


def labelled(split, labels):
    return type(split)(split.texts if isinstance(split, TextSplit) else split.pixels, np.asarray(labels, np.int64))


WHOLE = {"train": texts(40, prefix="a"), "test": texts(20, prefix="b"), "validation": texts(20, prefix="c")}
IMAGES = {"train": image_split(40, classes=2), "test": image_split(20, classes=2, seed=1),
          "validation": image_split(20, classes=2, seed=2)}  # fmt: skip


@pytest.mark.parametrize("whole", [WHOLE, IMAGES], ids=["texts", "images"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_missing_classes_are_named(whole, split):
    made(**whole)
    for label in (0, 1):
        alone = labelled(whole[split], np.full(len(whole[split]), label))
        with pytest.raises(
            UserError, match=rf"split {split}: none of its .* rows has label {1 - label} \(c{1 - label}\)"
        ):
            made(**{**whole, split: alone})


def test_labels_that_begin_at_one_are_named():
    shifted = texts(30, classes=3, prefix="a")
    with pytest.raises(UserError, match=r"none of its .* rows has label 0 \(c0\)"):
        made(labelled(shifted, shifted.labels + 1), texts(20, classes=4, prefix="b"), classes=4)


def test_a_subset_of_one_class_is_refused():
    with pytest.raises(UserError, match="split test: all 2 rows have label"):
        made(**{**WHOLE, "test": labelled(WHOLE["test"], [1] + [0] * 19)}, test_rows=2)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_identical_examples_are_refused(split):
    labels = WHOLE[split].labels
    with pytest.raises(UserError, match=f"split {split}: all .* examples are the same"):
        made(**{**WHOLE, split: TextSplit(["the same"] * len(labels), labels)})
    blank = ImageSplit(np.zeros_like(IMAGES[split].pixels), IMAGES[split].labels)
    with pytest.raises(UserError, match=f"split {split}: all .* examples are the same"):
        made(**{**IMAGES, split: blank})


@pytest.mark.parametrize(("one", "other"), [("validation", "test"), ("test", "train"), ("validation", "train")])
@pytest.mark.parametrize("whole", [WHOLE, IMAGES], ids=["texts", "images"])
def test_a_split_contained_in_another_is_refused(whole, one, other):
    with pytest.raises(UserError, match=f"every example of {one} also occurs in {other}"):
        made(**{**whole, one: whole[other].take(np.arange(len(whole[other]) // 2))})


@pytest.mark.parametrize(("whole", "kind"), [(WHOLE, "texts"), (IMAGES, "images")], ids=["texts", "images"])
def test_leaks_and_contradictions_are_counted_and_leaks_can_be_dropped(whole, kind):
    def together(first, second, labels=None):
        part = second.take(np.arange(3))
        labels = part.labels if labels is None else labels
        if kind == "texts":
            return TextSplit(first.texts + part.texts, np.concatenate([first.labels, labels]))
        return ImageSplit(np.concatenate([first.pixels, part.pixels]), np.concatenate([first.labels, labels]))

    leaking = {**whole, "train": together(whole["train"], whole["test"], 1 - whole["test"].labels[:3])}
    leaking["validation"] = together(whole["validation"], whole["train"])
    notes = made(**leaking).notes
    assert notes[f"test_{kind}_in_train"] == 3
    assert notes[f"validation_{kind}_in_train"] == 3
    assert notes[f"{kind}_with_several_labels"] == 3
    said = sets.warnings("toy", {"test": 20}, notes)
    assert any("3 of 20" in sentence and "drop_leaks" in sentence for sentence in said)
    assert any("more than one label" in sentence for sentence in said)
    clean = made(**leaking, drop_leaks=True)
    assert clean.notes[f"test_{kind}_in_train"] == clean.notes[f"validation_{kind}_in_train"] == 0
    assert clean.notes["leaks_dropped"] == {"train": 6, "validation": 0}
    assert len(clean.test) == 20
    assert sets.warnings("toy", {"test": 20}, clean.notes) == []


def test_dropping_leaks_may_not_empty_a_split():
    with pytest.raises(UserError, match="drop_leaks leaves no row in validation"):
        made(WHOLE["train"], WHOLE["test"], WHOLE["test"], drop_leaks=True)


def test_constant_channels_are_not_divided_by_zero():
    import torch

    pixels = torch.zeros(4, 2, 3, 3, dtype=torch.uint8)
    pixels[:2, 0] = 200
    mean, std = TensorSplit(pixels, torch.zeros(4, dtype=torch.int64)).pixel_statistics
    assert std[1] == 1.0
    assert mean[1] == 0.0
    assert std[0] > 0
