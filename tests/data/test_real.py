"""The real data sets: sizes and labels as their providers state them. Skipped without a copy."""

import numpy as np
import pytest

from dropattack.data import agnews, cifar10, imdb, mnist, outside, pheme
from dropattack.data.encode import encode
from dropattack.data.loader import Loader
from dropattack.data.sources import read_table
from dropattack.data.text import WordTokenizer
from dropattack.runs import build, experiment
from dropattack.runs.config import compose
from tests.data.makers import padding_share


def sizes(made):
    return [len(split) for split in made.splits.values()]


def counts(split):
    return np.bincount(split.labels).tolist()


def test_imdb(real_data):
    made = imdb.load(root=real_data)
    assert sizes(made) == [22_500, 2_500, 25_000]
    assert [counts(split) for split in made.splits.values()] == [[11_250] * 2, [1_250] * 2, [12_500] * 2]
    assert made.notes["test_texts_in_train"] == 123


@pytest.mark.slow  # the splits of the authors, on small files: test_tables.py
def test_author_splits(real_data):
    author = imdb.load(root=real_data, split="author", seed=0)
    assert sizes(author) == [40_000, 5_000, 5_000]
    assert counts(author.test) == [2_500, 2_500]
    author = agnews.load(root=real_data, split="author")
    assert sizes(author) == [62_297 - 9_995, 10_000, 7_600]
    assert counts(author.validation) == [2_527, 2_522, 2_471, 2_480]
    author = pheme.load(root=real_data, split="author")
    assert sizes(author) == [5_145, 637, 643]
    assert counts(author.test) == [400, 243]


@pytest.mark.slow  # on small files: test_tables.py
def test_imdb_without_leaks(real_data):
    made = imdb.load(root=real_data, drop_leaks=True)
    assert len(made.test) == 25_000
    assert not set(made.test.texts) & set(made.train.texts + made.validation.texts)


@pytest.mark.parametrize("split", ["official", pytest.param("author", marks=pytest.mark.slow)])
def test_imdb_without_the_reviews_that_are_rewritten(real_data, split):
    """Compare with the provider's list of rows, which the loader does not read."""
    made = imdb.load(root=real_data, split=split, drop_rewritten=True)
    assert made.notes["rewritten_dropped"] == {"train": 2_458, **({"test": 7} if split == "author" else {})}
    assert sizes(made) == ([20_288, 2_254, 25_000] if split == "official" else [37_535, 5_000, 5_000])
    seen = {*made.train.texts, *made.validation.texts, *(made.test.texts if split == "author" else ())}
    paired = [one for one in outside.load(real_data) if one.partners is not None]
    assert len(paired) == 4
    assert not seen & {text for one in paired for text in one.rows.texts}
    train, named = read_table(real_data / "imdb" / "train.parquet", 2, ("id",))
    listed = set()
    for name, splits in outside.PAIRED.items():
        for part in splits:
            _, extra = read_table(real_data / name / f"{part}.parquet", 2, ("imdb",))
            listed |= {row for cell in extra["imdb"] for row in cell.split()}
    rows = [f"train/{('neg', 'pos')[label]}/{number}" for label, number in zip(train.labels, named["id"], strict=True)]
    gone = {text for row, text in zip(rows, train.texts, strict=True) if row in listed}
    assert sum(row in listed for row in rows) == 2_458
    assert not seen & gone


def test_agnews(real_data):
    made = agnews.load(root=real_data)
    assert len(made.train) + len(made.validation) == 62_297
    assert counts(made.test) == [1_900] * 4
    assert made.notes["train_rows_of_official"] == "62,297 of 120,000"


def test_pheme(real_data):
    made = pheme.load(root=real_data)
    assert sizes(made) == [5_145, 637, 643]
    assert [counts(split) for split in made.splits.values()] == [[3_214, 1_931], [409, 228], [400, 243]]
    assert len(pheme.load(root=real_data, drop_source_only=True).train) == 5_145 - 913


def test_pheme_cleaning_reproduces_the_copy(real_data):
    """Check the source tweet of every thread that was rebuilt from the tweets as posted."""
    import pyarrow.parquet

    from dropattack.data.pheme_archive import clean

    rows = pyarrow.parquet.read_table(real_data / "pheme" / "train.parquet").to_pylist()
    rebuilt = [row for row in rows if row["form"] in ("rebuilt", "source_only")]
    assert len(rebuilt) == 2_985 + 913
    assert all(clean(row["source_text"]) == row["text"].split(" | ")[0] for row in rebuilt)


def test_mnist(real_data):
    made = mnist.load(root=real_data)
    assert sizes(made) == [54_000, 6_000, 10_000]
    assert counts(made.test) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert made.train.pixels.shape[1:] == (1, 28, 28)


@pytest.mark.slow
def test_cifar10(real_data, tmp_path):
    made = cifar10.load(root=real_data, cache=tmp_path)
    assert sizes(made) == [45_000, 5_000, 10_000]
    assert counts(made.test) == [1_000] * 10
    assert counts(made.train) == [4_500] * 10
    assert (made.notes["train_images_approximate"], made.notes["test_images_approximate"]) == (77, 20)
    assert made.test.pixels.mean() == pytest.approx(121.52911, abs=1e-5)
    assert cifar10.load(root=real_data, cache=tmp_path).fingerprint == made.fingerprint


@pytest.mark.slow
def test_imdb_batches_have_little_padding(real_data):
    made = imdb.load(root=real_data)
    encoded = encode(made, WordTokenizer())
    assert padding_share(Loader(encoded.train, batch_size=128)) < 0.1
    assert padding_share(Loader(encoded.test, batch_size=256, shuffle=False)) < 0.01
    assert len(encoded.spec.vocabulary) > 70_000


def test_imdb_mini_batches_have_little_padding(real_data):
    made = imdb.load(root=real_data, train_rows=4_000, validation_rows=10, test_rows=10)
    encoded = encode(made, WordTokenizer())
    assert padding_share(Loader(encoded.train, batch_size=32)) < 0.1
    assert padding_share(Loader(encoded.train, batch_size=128)) < 0.1


@pytest.mark.parametrize("scale", ["mini", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("dataset", "model"),
    [pytest.param("imdb", "lstm", marks=pytest.mark.slow), ("pheme", "bigru"), ("agnews", "bigru2")],
)
def test_training_batches_have_under_a_tenth_of_padding(real_data, tmp_path, dataset, model, scale):
    """With the tokenizer, rows and batch size of a run, in any epoch."""
    overrides = [f"dataset={dataset}", f"model={model}", f"scale={scale}", f"dataset.root={real_data}"]
    config = experiment.resolve(compose(experiment.CONF, [*overrides, f"paths.output={tmp_path}"]))
    _, encoded = build.load_data(config)
    loader = Loader(encoded.train, batch_size=config["trainer"]["batch_size"], seed=config["seed"])
    shares = [padding_share(loader, epoch) for epoch in range(3)]
    assert max(shares) < 0.1, shares
