"""A user's own data: labels of any kind, the splits that are made, sizes, and pairs."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from dropattack.commands import inputs
from dropattack.data import glue, hf, imagefolder, sets, tables
from dropattack.data.encode import encode
from dropattack.data.labels import in_order, names_of
from dropattack.data.text import PretrainedTokenizer
from dropattack.errors import UserError
from dropattack.runs.reader import Reader
from tests.data.makers import encoded_image, texts, write_table

ROWS = texts(60)
WORD = ["no", "yes"]


def table(folder: Path, name: str = "own.csv", rows=ROWS, **columns) -> str:
    made = {"text": rows.texts, "label": [WORD[label] for label in rows.labels], **columns}
    path = folder / name
    if name.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(made, row, strict=True))) for row in zip(*made.values(), strict=True)]
        path.write_text("\n".join(lines))
    elif name.endswith(".tsv"):
        lines = ["\t".join(map(str, row)) for row in zip(*made.values(), strict=True)]
        path.write_text("\n".join(["\t".join(made), *lines]))
    else:
        write_table(path, made)
    return str(path)


@pytest.mark.parametrize(
    ("values", "names", "order"),
    [
        (["b", " a ", "b"], ["b", "a", "b"], ("a", "b")),
        ([10, 2, -1], ["10", "2", "-1"], ("-1", "2", "10")),
        (["10", "2", "02"], ["10", "2", "2"], ("2", "10")),
        ([1.0, 2.0, 1], ["1", "2", "1"], ("1", "2")),
        (["1.0", "2", "2.0"], ["1", "2", "2"], ("1", "2")),
        ([True, False], ["true", "false"], ("false", "true")),
        (["True", "FALSE"], ["true", "false"], ("false", "true")),
        (list(np.array([3, 4], np.int8)), ["3", "4"], ("3", "4")),
        (["1", "v1.5"], ["1", "v1.5"], ("1", "v1.5")),
        (["none", "NA"], ["none", "NA"], ("NA", "none")),
        (["12345678901234567890", "12345678901234567891"],) * 2 + (("12345678901234567890", "12345678901234567891"),),
    ],
)
def test_labels_of_any_kind(values, names, order):
    assert names_of(values, "here") == names
    assert in_order(names) == order


@pytest.mark.parametrize(
    "values", [["a", None], ["a", float("nan")], ["a", " "], ["a", ["b"]], [0.5, 1.5], ["0.5", "1"]]
)
def test_labels_that_are_none(values):
    with pytest.raises(UserError, match=r"row [12]: "):
        names_of(values, "here")


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz", "own.tsv", "own.jsonl", "own.parquet"])
def test_every_format_holds_the_same_data(name, tmp_path):
    made = tables.load(root=tmp_path, path=table(tmp_path, name))
    wanted = tables.load(root=tmp_path, path=table(tmp_path, "other.parquet"))
    assert made.fingerprint == wanted.fingerprint
    assert made.classes == ("no", "yes") == tuple(made.notes["labels"])
    assert [len(split) for split in made.splits.values()] == [44, 4, 12]
    assert sorted(text for split in made.splits.values() for text in split.texts) == sorted(ROWS.texts)
    truth = dict(zip(ROWS.texts, ROWS.labels, strict=True))
    for split in made.splits.values():
        assert split.labels.tolist() == [truth[text] for text in split.texts]
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2


def test_a_label_with_an_underscore_is_a_word():
    assert names_of(["1_0", "10", "1"], "t") == ["1_0", "10", "1"]


@pytest.mark.parametrize("name", ["own.csv", "own.tsv"])
@pytest.mark.parametrize(("first", "last"), [('"Wow, what a film', '"Never again'), ('"Well', 'he said "no" to it')])
def test_rows_between_open_quotes_are_not_one_row(name, first, last, tmp_path):
    separator = {".csv": ",", ".tsv": "\t"}[Path(name).suffix]
    rows = [[f"film {number}", str(number % 2)] for number in range(30)]
    rows[5][0], rows[9][0] = first, last
    (tmp_path / name).write_text("\n".join(map(separator.join, [["text", "label"], *rows])) + "\n")
    for read in (lambda: tables.load(root=tmp_path, path=name), lambda: inputs.read_table(tmp_path / name)):
        with pytest.raises(UserError, match=r"own\.[ct]sv.* a quote is left open .*write a quote within"):
            read()


def test_semicolons_are_named(tmp_path):
    (tmp_path / "own.csv").write_text("text;label\ngood;1\nbad;0\n")
    with pytest.raises(UserError, match="separated by semicolons; save it with commas"):
        tables.load(root=tmp_path, path="own.csv")


def test_quoted_texts_may_have_lines(tmp_path):
    lines = [f'"He said ""no"",\nfilm {number}",{number % 2}' for number in range(30)]
    (tmp_path / "own.csv").write_text("\r\n".join(["text,label", *lines]) + "\r\n", newline="")
    made = tables.load(root=tmp_path, path="own.csv")
    assert sum(map(len, made.splits.values())) == 30
    assert made.train.texts[0].startswith('He said "no",\nfilm')
    assert len(inputs.read_table(tmp_path / "own.csv")["text"]) == 30


def test_the_split_depends_on_its_own_seed_alone(tmp_path):
    path = table(tmp_path)
    first, again, other = (tables.load(root=tmp_path, path=path, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.notes["splits"] == {
        "train": "the rest", "test": "0.2 of the rows, by label, split seed 0",
        "validation": "0.1 of the rows left for training, by label, split seed 0",
    }  # fmt: skip


def test_given_splits_are_kept(tmp_path):
    path = table(tmp_path)
    test, validation = texts(10, seed=1, prefix="t").take(np.arange(1, 10)), texts(7, seed=2, prefix="v")
    assert test.labels[0] != ROWS.labels[0], "labels do not follow their order in a file"
    options = {
        "test_path": table(tmp_path, "test.csv", test),
        "validation_path": table(tmp_path, "val.tsv", validation),
    }
    made = tables.load(root=tmp_path, path=path, **options)
    assert [part.texts for part in made.splits.values()] == [ROWS.texts, validation.texts, test.texts]
    for part, rows in zip(made.splits.values(), (ROWS, validation, test), strict=True):
        assert part.labels.tolist() == rows.labels.tolist()
    without = tables.load(root=tmp_path, path=path, test_path=options["test_path"])
    assert [len(part) for part in without.splits.values()] == [54, 6, 9]


def test_labels_are_spelled_alike_in_all_files(tmp_path):
    mixed, numbers = [["1.0", "2.0", "none"][row % 3] for row in range(len(ROWS))], ["1.0", "2.0"] * 5
    rows = texts(10, seed=1, prefix="t")
    paths = [table(tmp_path, label=mixed), table(tmp_path, "test.csv", rows, label=numbers)]
    made = tables.load(root=tmp_path, path=paths[0], test_path=paths[1])
    assert made.classes == ("1.0", "2.0", "none")
    assert made.test.labels.tolist() == [0, 1] * 5


def test_a_column_may_name_the_splits(tmp_path):
    named = ["train"] * 40 + ["Dev"] * 8 + ["test"] * 12
    made = tables.load(root=tmp_path, path=table(tmp_path, split=named))
    assert [part.texts for part in made.splits.values()] == [ROWS.texts[:40], ROWS.texts[40:48], ROWS.texts[48:]]
    ignored = tables.load(root=tmp_path, path=table(tmp_path, split=named), split_column=None)
    assert len(ignored.train) == 44
    renamed = tables.load(root=tmp_path, path=table(tmp_path, part=named), split_column="part")
    assert renamed.fingerprint == made.fingerprint
    with pytest.raises(UserError, match="names others"):
        tables.load(root=tmp_path, path=table(tmp_path, split=named), test_path=table(tmp_path, "test.csv"))


def test_small_sets_give_what_they_have(tmp_path):
    rows = texts(9)
    made = tables.load(root=tmp_path, path=table(tmp_path, rows=rows), train_rows=64, validation_rows=32, test_rows=32)
    assert [len(part) for part in made.splits.values()] == [5, 2, 2]
    assert all(set(part.labels) == {0, 1} for part in made.splits.values())


def test_a_rare_label_stays_in_train(tmp_path):
    labels = [*(["a", "b"] * 29), "c", "c"]
    made = tables.load(root=tmp_path, path=table(tmp_path, label=labels))
    assert made.notes["labels_in_train_only"] == ["c"]
    assert [int((part.labels == 2).sum()) for part in made.splits.values()] == [2, 0, 0]


def test_pairs_are_encoded_as_the_tokenizer_does(tmp_path):
    """And the segments that the model derives from the separator are the tokenizer's own."""
    import torch

    from dropattack.models.encoders import segments

    others = texts(60, seed=5).texts
    made = tables.load(root=tmp_path, path=table(tmp_path, other=others), text_pair_column="other")
    alone = tables.load(root=tmp_path, path=table(tmp_path))
    assert made.fingerprint != alone.fingerprint
    tokenizer = PretrainedTokenizer(name=None, max_length=24, vocabulary_size=200)
    encoded, backend = encode(made, tokenizer), tokenizer.fit(made).backend
    for ids, length, first, second in zip(
        encoded.test.inputs, encoded.test.lengths, made.test.texts, made.test.pairs, strict=True
    ):
        wanted = backend.encode(first, second)
        assert ids[:length].tolist() == wanted.ids
        assert segments(ids[None, :length].long(), encoded.spec.separator_id)[0].tolist() == wanted.type_ids
    assert max(encoded.train.lengths) == 24
    assert torch.equal(encode(made, tokenizer, cache=tmp_path).train.inputs, encoded.train.inputs)
    assert encode(made, tokenizer, cache=tmp_path).spec == encoded.spec  # as cached
    assert encode(alone, tokenizer).spec.separator_id is None


def test_data_sets_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no"])})
    rows = {"text": ROWS.texts, "label": ROWS.labels.tolist()}
    whole = datasets.Dataset.from_dict(rows, features=features)
    unlabelled = datasets.Dataset.from_dict({**rows, "label": [-1] * 60}, features=features)
    datasets.DatasetDict(train=whole, test=unlabelled).save_to_disk(tmp_path / "own")
    made = hf.load(root=tmp_path, path="own")  # found in the data folder
    assert made.classes == ("yes", "no"), "in the order of the ClassLabel"
    assert made.notes["splits_left_out"] == ["test"]
    assert made.train.texts == tables.load(root=tmp_path, path=table(tmp_path)).train.texts
    with pytest.raises(UserError, match="no column 'review'; its columns are text, label"):
        hf.load(root=tmp_path, path="own", text_column="review")


def test_the_order_of_classes_is_that_of_the_training_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {}
    for split, names, rows in (("train", ["b", "a", "c"], ROWS), ("test", ["a", "b"], texts(9, seed=1, prefix="t"))):
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        labels = [row % len(names) for row in range(len(rows))]
        parts[split] = datasets.Dataset.from_dict({"text": rows.texts, "label": labels}, features=features)
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "own")
    made = hf.load(root=tmp_path, path="own")
    assert made.classes == ("b", "a", "c")
    assert made.test.labels.tolist() == [1 - row % 2 for row in range(9)]


def image_folder(folder: Path, count: int = 10, blue: int = 0) -> None:
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((20, 30, 3), (10 * number, 100 * label, blue), np.uint8)
            (folder / name / f"{number}.png").write_bytes(encoded_image(pixels, "PNG"))


def test_folders_of_images(tmp_path):
    image_folder(tmp_path / "own")
    made = imagefolder.load(root=tmp_path, path="own", size=8, cache=tmp_path / "cache")
    assert made.classes == ("cats", "dogs")
    assert [split.pixels.shape for split in made.splits.values()] == [(14, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)]
    for split in made.splits.values():
        assert (split.pixels[:, 1, 0, 0] == 100 * split.labels).all(), "each image has its own label"
    assert imagefolder.load(root=tmp_path, path="own", size=8, cache=tmp_path / "cache").fingerprint == made.fingerprint
    grey = imagefolder.load(root=tmp_path, path="own", size=4, mode="grey", cache=tmp_path / "cache")
    assert grey.train.pixels.shape == (14, 1, 4, 4)


def test_hidden_files_and_folders_are_no_images(tmp_path):
    image_folder(tmp_path / "own")
    plain = imagefolder.load(root=tmp_path, path="own", size=8, cache=tmp_path / "cache")
    image = (tmp_path / "own" / "cats" / "1.png").read_bytes()
    (tmp_path / "own" / ".checkpoints").mkdir()
    for place in (".checkpoints/a.png", "cats/.b.png"):
        (tmp_path / "own" / place).write_bytes(image)
    made = imagefolder.load(root=tmp_path, path="own", size=8, cache=tmp_path / "cache")
    assert (made.classes, made.fingerprint) == (plain.classes, plain.fingerprint)
    with pytest.raises(UserError, match=r"not a folder of images|no folder of images"):
        imagefolder.load(root=tmp_path / "own", path=".checkpoints", size=8)


def test_folders_of_images_with_splits(tmp_path):
    for blue, (split, count) in enumerate((("train", 8), ("val", 3), ("test", 4))):
        image_folder(tmp_path / "own" / split, count, blue)
    made = imagefolder.load(root=tmp_path, path=str(tmp_path / "own"), size=8)
    assert [len(split) for split in made.splits.values()] == [16, 6, 8]


def test_what_a_folder_of_images_leaves_out_is_said(tmp_path):
    for blue, split in enumerate(("train", "val", "holdout")):
        image_folder(tmp_path / "own" / split, 10, 80 * blue)
    (tmp_path / "own" / "val" / "cats" / "x.gif").write_bytes(b"")
    (tmp_path / "own" / "val" / "cats" / ".DS_Store").write_bytes(b"")
    made = imagefolder.load(root=tmp_path, path="own", size=8)
    assert (made.notes["splits_left_out"], made.notes["files_left_out"]) == (["holdout"], 1)
    said = sets.warnings(made.name, {"test": 1}, {**made.notes, "test_images_in_train": 0})
    assert ["holdout left out" in said[0], "1 files left out" in said[1]] == [True, True]
    image_folder(tmp_path / "own" / "validation", 2)
    with pytest.raises(UserError, match="two folders for validation, val and validation: rename one"):
        imagefolder.load(root=tmp_path, path="own", size=8)


def test_two_splits_for_one_are_refused(tmp_path):
    rows = datasets.Dataset.from_dict({"text": [f"t {row}" for row in range(9)], "label": [0, 1, 2] * 3})
    datasets.DatasetDict({"train": rows, "validation": rows, "dev": rows}).save_to_disk(str(tmp_path / "own"))
    with pytest.raises(UserError, match="two splits for validation, one of them dev"):
        hf.load(root=tmp_path, path="own")


@pytest.mark.parametrize("names", [["True", "False"], ["02", "01"], ["1.0", "2.0"], ["b", " a "]])
def test_the_names_of_class_labels_stay_as_they_are(names, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": [f"t {row}" for row in range(40)], "label": [0, 1] * 20}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "own"))
    made = hf.load(root=tmp_path, path="own")
    assert made.classes == tuple(names)
    for split in made.splits.values():
        assert [int(text.split()[1]) % 2 for text in split.texts] == split.labels.tolist()


def test_images_are_turned_upright_and_deep_ones_refused(tmp_path):
    upright = Image.fromarray(np.repeat(np.uint8([[0, 255], [0, 255]]), 8, 0).repeat(8, 1))
    turned, turn = upright.rotate(90), upright.getexif()
    turn[0x0112] = 6  # shown after a quarter turn to the right
    turned.save(tmp_path / "turned.png", exif=turn)
    upright.save(tmp_path / "upright.png")
    one, other = (imagefolder.pixels_of(tmp_path / f"{name}.png", 1, 4, 4) for name in ("upright", "turned"))
    assert (one == other).all()
    for place in ("a", "b"):
        (tmp_path / "deep" / place).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "deep" / place / "0.png")
    with pytest.raises(UserError, match=r"0\.png has more than 8 bits per pixel .* convert it to 8 bits"):
        imagefolder.load(root=tmp_path, path="deep", size=4)


def test_a_prediction_reads_an_image_as_the_training_did(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    for start, name in ((0, "a"), (20, "b")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(5):
            large = Image.fromarray(np.roll(pixels, start + 4 * number, 0)).resize((600, 400))
            large.save(tmp_path / "own" / name / f"{number}.jpg")
    made = imagefolder.load(root=tmp_path, path="own", size=16)
    reader = Reader("image", made.classes, image_shape=(3, 16, 16))
    read = reader.images(sorted((tmp_path / "own" / "a").iterdir())).inputs.numpy()
    trained = np.concatenate([split.pixels for split in made.splits.values()])
    assert all(any((one == other).all() for other in trained) for one in read)


def test_glue_on_disk(tmp_path):
    rows = {"sentence1": ROWS.texts, "sentence2": texts(60, seed=3).texts, "label": ROWS.labels}
    for split in ("train", "validation"):
        moved = {**rows, "sentence1": [f"{split} {text}" for text in ROWS.texts]}
        write_table(tmp_path / "glue" / "rte" / f"{split}.parquet", moved)
    made = glue.load(root=tmp_path, task="rte", train_rows=1000)
    assert [len(part) for part in made.splits.values()] == [54, 6, 60]
    assert made.test.pairs == rows["sentence2"]
    assert made.classes == ("entailment", "not_entailment")
    with pytest.raises(UserError, match=r"Dataset glue/mrpc was not found: no train\.parquet nor validation\.parquet"):
        glue.load(root=tmp_path, task="mrpc")


@pytest.mark.parametrize(
    ("task", "sizes"), [("rte", [2241, 249, 277]), ("mrpc", [3301, 367, 408]), ("cola", [7696, 855, 1043])]
)
def test_glue(task, sizes, real_data):
    if not (real_data / "glue").is_dir():
        pytest.skip("real data: GLUE")
    made = glue.load(root=real_data, task=task)
    assert [len(part) for part in made.splits.values()] == sizes
    assert (made.train.pairs is None) == (task == "cola")
