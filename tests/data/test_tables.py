"""IMDB, AG News and PHEME from small files in their layouts; bad files; and the hub as fallback."""

import gzip
from contextlib import suppress

import datasets
import numpy as np
import pytest

from dropattack.data import agnews, hub, imdb, pheme
from dropattack.data.sources import read_table
from dropattack.errors import UserError
from tests.data.makers import joined, texts, write_split, write_table


def write_imdb(root, train=60, test=60, suffix=".parquet"):
    write_split(root / "imdb" / f"train{suffix}", texts(train, prefix="r"))
    write_split(root / "imdb" / f"test{suffix}", texts(test, prefix="t"))


def write_agnews(root, marked=True):
    train = texts(80, 4, prefix="r")
    held_out = np.arange(80) < 10
    extra = {"in_author_val": held_out} if marked else {}
    write_split(root / "agnews" / "train.parquet", train, **extra)
    write_split(root / "agnews" / "test.parquet", texts(40, 4, prefix="t"))
    glued = train.take(np.flatnonzero(held_out))
    glued.texts[:] = [text.replace(" ", "", 1).upper() for text in glued.texts]
    write_split(root / "agnews" / "author_val_ag1.csv.gz", glued)
    write_split(root / "agnews" / "author_test_ag1.csv.gz", texts(40, 4, prefix="t"))


def write_pheme(root):
    for stem, rows in (("train", 40), ("val", 10), ("test", 12)):
        form = ["source_only" if row % 4 == 0 else "rebuilt" for row in range(rows)]
        write_split(root / "pheme" / f"{stem}.parquet", texts(rows, prefix=stem), form=form)
    for part, rows in (("dev", 10), ("test", 12)):
        write_split(root / "pheme" / f"author_pheme2018_{part}.csv.gz", texts(rows, prefix=f"author {part} "))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_imdb_official(tmp_path, suffix):
    write_imdb(tmp_path, suffix=suffix)
    made = imdb.load(root=tmp_path)
    assert [len(split) for split in made.splits.values()] == [54, 6, 60]
    assert made.test.texts == texts(60, prefix="t").texts
    assert str(tmp_path) not in str(made.notes)  # notes go into published records


def test_csv_keeps_quotes_line_breaks_and_words_like_null(tmp_path):
    rows = ['say "no", twice', "two\nlines", "nan", "007", "NULL", "été 火"]
    path = write_table(tmp_path / "t.csv", {"text": rows, "label": [0] * 6})
    assert read_table(path, 2)[0].texts == rows


def test_imdb_author_pools_both_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb, "AUTHOR_ROWS", 20)
    write_imdb(tmp_path)
    made, again = (imdb.load(root=tmp_path, split="author") for _ in range(2))
    assert [len(split) for split in made.splits.values()] == [80, 20, 20]
    assert sorted(joined(split.texts for split in made.splits.values())) == sorted(
        texts(60, prefix="r").texts + texts(60, prefix="t").texts
    )
    assert made.fingerprint == again.fingerprint
    assert "not published" in made.notes["author"]


def test_imdb_leaks_are_counted_and_dropped_on_demand(tmp_path):
    train, test = texts(60, prefix="r"), texts(60, prefix="t")
    test.texts[7] = train.texts[9]
    write_split(tmp_path / "imdb" / "train.parquet", train)
    write_split(tmp_path / "imdb" / "test.parquet", test)
    assert imdb.load(root=tmp_path).notes["test_texts_in_train"] == 1
    clean = imdb.load(root=tmp_path, drop_leaks=True)
    assert sum(clean.notes["leaks_dropped"].values()) == 1
    assert len(clean.train) + len(clean.validation) == 59


@pytest.mark.parametrize("marked", [True, False])
def test_agnews_author_leaves_its_validation_rows_out(tmp_path, marked):
    write_agnews(tmp_path, marked)
    made = agnews.load(root=tmp_path, split="author")
    assert [len(split) for split in made.splits.values()] == [70, 10, 40]
    assert made.notes["left_out_as_author_validation"] == 10
    assert made.notes["train_rows_of_author"] == "70 of 110,000"
    assert agnews.load(root=tmp_path).notes["train_rows_of_official"] == "80 of 120,000"


def test_agnews_author_files_are_named_when_missing(tmp_path):
    write_agnews(tmp_path)
    (tmp_path / "agnews" / "author_val_ag1.csv.gz").unlink()
    with pytest.raises(UserError, match=r"author_val_ag1\.csv\.gz.*github"):
        agnews.load(root=tmp_path, split="author")


def test_pheme(tmp_path):
    write_pheme(tmp_path)
    made = pheme.load(root=tmp_path)
    assert [len(split) for split in made.splits.values()] == [40, 10, 12]
    author = pheme.load(root=tmp_path, split="author")
    assert author.test.texts[0].startswith("author")
    assert author.train.texts == made.train.texts
    dropped = pheme.load(root=tmp_path, drop_source_only=True)
    assert (len(dropped.train), len(dropped.test), dropped.notes["source_only_dropped"]) == (30, 12, 10)


def test_pheme_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"Dataset pheme.*6392078.*dropattack data pheme --archive"):
        pheme.load(root=tmp_path)


@pytest.mark.parametrize("module", [imdb, agnews, pheme])
def test_unknown_split(tmp_path, module):
    with pytest.raises(UserError, match=r"split=mine.*official, author"):
        module.load(root=tmp_path, split="mine")


BAD_ROWS = [
    ({"text": ["a", "b"]}, "no column label; its columns are text"),
    ({"label": [0, 1]}, "no column text"),
    ({"text": ["a", "b"], "label": [0, None]}, "row 2: .*label None"),
    ({"text": ["a", "b"], "label": [0, 2]}, "row 2: .*label 2"),
    ({"text": ["a", "b"], "label": [-1, 1]}, "row 1: .*label -1"),
    ({"text": ["a", "b"], "label": [0.0, 1.5]}, "row 1: .*label 0.0|row 2: .*label 1.5"),
    ({"text": ["a", "b"], "label": ["0", "neg"]}, "label '"),
    ({"text": ["a", " \n"], "label": [0, 1]}, "row 2: .*empty"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
@pytest.mark.parametrize(("columns", "said"), BAD_ROWS)
def test_bad_rows_name_file_and_row(tmp_path, columns, said, suffix):
    path = write_table(tmp_path / f"table{suffix}", columns)
    with pytest.raises(UserError, match=said) as caught:
        read_table(path, 2)
    assert str(path) in str(caught.value)


def test_null_text(tmp_path):
    path = write_table(tmp_path / "t.parquet", {"text": ["a", None], "label": [0, 1]})
    with pytest.raises(UserError, match=r"row 2: .*empty"):
        read_table(path, 2)


def test_no_rows(tmp_path):
    path = write_table(tmp_path / "t.parquet", {"text": np.array([], str), "label": np.array([], np.int64)})
    with pytest.raises(UserError, match=r"no rows"):
        read_table(path, 2)


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_truncated_file(tmp_path, suffix, share):
    path = write_split(tmp_path / f"train{suffix}", texts(200))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"train.*(cannot be read|no rows)"):
        read_table(path, 2)


@pytest.mark.parametrize("tail", [b'"cut of', b"b", b"b,1,2\n", b'"open quote, 1\n'])
def test_torn_csv(tmp_path, tail):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text,label\na,0\n" + tail)
    with pytest.raises(UserError, match=r"t\.csv"):
        read_table(path, 2)


def test_not_utf8(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\ncaf\xe9,0\n"))
    with pytest.raises(UserError, match=r"t\.csv\.gz"):
        read_table(path, 2)


def test_an_incomplete_copy_is_an_error_not_a_download(tmp_path):
    write_imdb(tmp_path)
    (tmp_path / "imdb" / "test.parquet").unlink()
    with pytest.raises(UserError, match=r"incomplete.*train\.parquet but no test\.parquet"):
        imdb.load(root=tmp_path)


@pytest.mark.parametrize(("module", "name"), [(imdb, "stanfordnlp/imdb"), (agnews, "fancyzhx/ag_news")])
def test_hub_is_asked_when_there_is_no_copy(tmp_path, monkeypatch, module, name):
    asked = []

    def load_dataset(repository, split):
        asked.append((repository, split))
        rows = texts(60, len(module.CLASSES), prefix=split)
        return datasets.Dataset.from_dict({"text": rows.texts, "label": rows.labels})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    made = module.load(root=tmp_path)
    assert asked == [(name, "train"), (name, "test")]
    assert len(made.test) == 60
    assert name in made.notes["source"]


def test_hub_with_a_bad_row(tmp_path, monkeypatch):
    rows = {"text": ["a", "b"], "label": [0, -1]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_dict(rows))
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    with pytest.raises(UserError, match=r"stanfordnlp/imdb \(train\), row 2: .*label -1"):
        imdb.load(root=tmp_path)


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("odd"), None])
def test_no_copy_and_no_hub_is_one_error(tmp_path, monkeypatch, error):
    if error:
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: (_ for _ in ()).throw(error))
        monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        imdb.load(root=tmp_path)
    said = str(caught.value)
    assert said.startswith("Dataset imdb was not found")
    assert str(tmp_path / "imdb") in said
    assert "stanfordnlp/imdb" in said
    assert f"dropattack data imdb --to {tmp_path}" in said


def test_offline_mode_ends_with_the_call():
    import datasets.config
    from huggingface_hub import constants

    from dropattack.data.hub import offline_unless_reachable

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    with suppress(RuntimeError), offline_unless_reachable():
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
        raise RuntimeError
    assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
