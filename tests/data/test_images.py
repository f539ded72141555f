"""MNIST and CIFAR-10 from small files in their layouts, bad files, and the digits, which need no files."""

import gzip

import numpy as np
import pytest

from dropattack.data import cifar10, digits, mnist, pydoc
from dropattack.errors import UserError
from tests.data.makers import encoded_image, idx, image_split, write_cifar10, write_mnist, write_table


@pytest.mark.parametrize("packed", [True, False])
def test_mnist(tmp_path, packed):
    write_mnist(tmp_path, packed=packed)
    made = mnist.load(root=tmp_path)
    assert [split.pixels.shape for split in made.splits.values()] == [(54, 1, 28, 28), (6, 1, 28, 28), (20, 1, 28, 28)]
    expected = image_split(20, (1, 28, 28), seed=20)
    assert np.array_equal(made.test.pixels, expected.pixels)
    assert np.array_equal(made.test.labels, expected.labels)


IMAGES = np.zeros((20, 28, 28), np.uint8)
BAD_IDX = [
    (gzip.compress(idx(IMAGES))[:-20], "truncated"),
    (gzip.compress(idx(IMAGES)[:-1]), "15679 values.*truncated"),
    (gzip.compress(idx(IMAGES) + b"x"), "15681 values"),
    (gzip.compress(b"\x00\x00\x0d" + idx(IMAGES)[3:]), "not an IDX file.*00 00 0d 03"),
    (gzip.compress(idx(IMAGES[0])), "3 axes"),
    (gzip.compress(idx(np.zeros((20, 14, 14), np.uint8))), "14 × 14"),
    (gzip.compress(idx(IMAGES[:19])), "19 images but .*20 labels"),
    (b"", "not an IDX file|cannot be read"),
    (b"<html>not found</html>", "cannot be read"),
]


@pytest.mark.parametrize(("data", "said"), BAD_IDX, ids=[said for _, said in BAD_IDX])
def test_mnist_bad_file_is_named(tmp_path, data, said):
    (write_mnist(tmp_path) / "t10k-images-idx3-ubyte.gz").write_bytes(data)
    with pytest.raises(UserError, match=f"t10k-images-idx3-ubyte.gz.*({said})"):
        mnist.load(root=tmp_path)


def test_mnist_bad_label_is_named(tmp_path):
    labels = np.zeros(20, np.uint8)
    labels[3] = 10
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(UserError, match=r"t10k-labels.*row 4: .*label 10"):
        mnist.load(root=tmp_path)


def test_cifar10(tmp_path):
    first = write_cifar10(tmp_path)
    cache = tmp_path / "cache"
    made, again = (cifar10.load(root=tmp_path, cache=cache, validation_fraction=0.2) for _ in range(2))
    assert [len(split) for split in made.splits.values()] == [80, 20, 20]
    assert made.train.pixels.shape[1:] == (3, 32, 32)
    assert any(np.array_equal(made.train.pixels[0], image) for image in first)
    assert (made.notes["train_images_approximate"], made.notes["test_images_approximate"]) == (5, 1)
    assert made.fingerprint == again.fingerprint == cifar10.load(root=tmp_path, validation_fraction=0.2).fingerprint
    assert len(list(cache.iterdir())) == 2


def test_cifar10_cache_follows_the_files(tmp_path):
    write_cifar10(tmp_path, 10)
    before = cifar10.load(root=tmp_path, cache=tmp_path / "cache")
    dark = [encoded_image(np.full((32, 32, 3), shade, np.uint8), "PNG") for shade in range(10)]
    write_table(tmp_path / "cifar10" / "test.parquet", {"image": dark, "label": list(range(10))})
    after = cifar10.load(root=tmp_path, cache=tmp_path / "cache")
    assert before.test.pixels.max() >= 10
    assert after.test.pixels.max() < 10


GOOD = encoded_image(image_split(1, (32, 32, 3)).pixels[0])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": [GOOD, GOOD[: len(GOOD) // 2]], "label": [0, 1]}, "row 2: .*cannot be decoded"),
        ({"image": [GOOD, b""], "label": [0, 1]}, "row 2: .*cannot be decoded"),
        ({"image": [GOOD, None], "label": [0, 1]}, "row 2: .*cannot be decoded"),
        ({"image": [GOOD, encoded_image(np.zeros((8, 8, 3), np.uint8))], "label": [0, 1]}, "row 2: .*shape"),
        ({"image": [GOOD, GOOD], "label": [0, 10]}, "row 2: .*label 10"),
        ({"image": [GOOD, GOOD], "label": [None, 1]}, "row 1: .*label None"),
        ({"picture": [GOOD]}, "columns picture; it needs `image` and `label`"),
    ],
)
def test_cifar10_bad_row_is_named(tmp_path, columns, said):
    write_cifar10(tmp_path, 2)
    write_table(tmp_path / "cifar10" / "train_3_of_5.parquet", columns)
    with pytest.raises(UserError, match=rf"train_3_of_5\.parquet.*{said}"):
        cifar10.load(root=tmp_path)


def test_cifar10_truncated_file_is_named(tmp_path):
    write_cifar10(tmp_path, 2)
    path = tmp_path / "cifar10" / "train_2_of_5.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"train_2_of_5\.parquet cannot be read"):
        cifar10.load(root=tmp_path)


@pytest.mark.parametrize("module", [mnist, cifar10])
def test_missing_images(tmp_path, module):
    name = module.__name__.rsplit(".", 1)[-1]
    with pytest.raises(UserError, match=f"Dataset {name} was not found.*{tmp_path}.*dropattack data {name} --to"):
        module.load(root=tmp_path)


def test_incomplete_copies(tmp_path):
    (write_mnist(tmp_path) / "train-labels-idx1-ubyte.gz").unlink()
    write_cifar10(tmp_path, 2)
    (tmp_path / "cifar10" / "train_4_of_5.parquet").unlink()
    with pytest.raises(UserError, match=r"incomplete.*train-labels"):
        mnist.load(root=tmp_path)
    with pytest.raises(UserError, match=r"incomplete.*train_4_of_5"):
        cifar10.load(root=tmp_path)


@pytest.mark.parametrize("module", [mnist, cifar10, digits, pydoc])
def test_no_author_split(tmp_path, module):
    with pytest.raises(UserError, match=r"split.*=author is unknown"):
        module.load(root=tmp_path, split="author")


def test_digits():
    made = digits.load()
    assert [len(split) for split in made.splits.values()] == [1097, 300, 400]
    assert made.train.pixels.shape == (1097, 1, 8, 8)
    assert made.train.pixels.max() == 240
    for split in made.splits.values():
        assert np.bincount(split.labels).min() > len(split) / 10 - 4
    assert digits.load(seed=1).test.labels.tolist() == made.test.labels.tolist()
    assert made.fingerprint == digits.load(validation_fraction=0.21475).fingerprint  # conf/dataset/digits.yaml
