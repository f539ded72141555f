"""predict, evaluate and export: the numbers are those of the run's own test, without the data of the training."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dropattack.commands.evaluate import class_numbers
from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.runs import build, record
from dropattack.runs.trained import load
from tests.commands.conftest import data_of, train
from tests.data.makers import texts

TOLERANCE = {"rel": 1e-5, "abs": 1e-6}


def kept(path: Path) -> np.ndarray:
    """Return the probabilities that the run kept of its test rows."""
    found = record.read(path)
    with np.load(path.parents[1] / "checkpoints" / found["run_id"] / "predictions.npz") as arrays:
        return arrays["probabilities"]


def predicted(capsys) -> np.ndarray:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert line["probability"] == line["probabilities"][line["label"]] == max(line["probabilities"].values())
    return np.array([list(line["probabilities"].values()) for line in lines])


@pytest.fixture
def without_data(monkeypatch):
    monkeypatch.setattr(build, "read_data", lambda config: pytest.fail("the data of the training was read"))


@pytest.fixture
def alone(digits, tmp_path):
    """Copy a run's record and folder to a place of their own."""
    path = digits["none0"]
    run_id = record.read(path)["run_id"]
    shutil.copytree(path.parents[1] / "checkpoints" / run_id, tmp_path / "checkpoints" / run_id)
    (tmp_path / "records").mkdir()
    return Path(shutil.copy(path, tmp_path / "records")), tmp_path / "checkpoints" / run_id


@pytest.mark.parametrize("model", ["lstm", "bert"])
def test_texts_get_the_probabilities_of_the_test(words, model, tmp_path, capsys, monkeypatch):
    test = data_of(words[model]).test
    file = tmp_path / ("texts.csv" if model == "lstm" else "texts.jsonl")
    if model == "lstm":
        write_rows(file, [("n", "text"), *enumerate(test.texts)])
    else:
        file.write_text("".join(json.dumps({"n": 1, "text": text}) + "\n" for text in test.texts))
    monkeypatch.setattr(build, "read_data", lambda config: pytest.fail("the data of the training was read"))
    assert main(["predict", str(words[model]), "--file", str(file), "--json"]) == 0
    assert predicted(capsys) == pytest.approx(kept(words[model]), **TOLERANCE)


def test_pairs_get_the_numbers_of_the_test(tmp_path, capsys):
    """The columns have the names of the training's table, and both texts of a pair are read."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    first, second, table = texts(80, seed=1), texts(80, seed=2), tmp_path / "pairs.csv"
    write_rows(table, [("one", "two", "mark"), *zip(first.texts, second.texts, first.labels, strict=True)])
    named = "dataset.text_column=one dataset.text_pair_column=two dataset.label_column=mark"
    path = str(train(tmp_path, f"dataset=csv dataset.path={table} {named} model=bert"))
    test = data_of(Path(path)).test
    write_rows(table, [("mark", "two", "one"), *zip(test.labels, test.pairs, test.texts, strict=True)])
    assert main(["predict", path, "--file", str(table), "--json"]) == 0
    assert predicted(capsys) == pytest.approx(kept(Path(path)), **TOLERANCE)
    assert main(["evaluate", path, "--data", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(
        record.read(Path(path))["test"]["loss"], **TOLERANCE
    )
    assert main(["predict", path, "a text", "--pair", "another"]) == 0
    assert capsys.readouterr().out.endswith("\ta text\tanother\n")
    assert main(["export", path, str(tmp_path / "hf")]) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    one, two = ["red [SEP] car", "a"], ["a blue car", "b"]
    with torch.no_grad():
        theirs = model(**tokenizer(one, two, return_tensors="pt", padding=True)).logits.softmax(-1)
    ours = load(Path(path))
    torch.testing.assert_close(theirs, ours.test(ours.reader.texts(one, pairs=two)).probabilities)
    table.write_text("one,one,two\nx,y,z\n")
    capsys.readouterr()
    assert main(["predict", path, "--file", str(table)]) == 2
    assert "several columns 'one'" in capsys.readouterr().err
    for arguments, said in (["x"], "reads pairs of texts"), (["x", "y", "--pair", "z"], "2 texts and 1 second texts"):
        assert main(["predict", path, *arguments]) == 2
        assert said in capsys.readouterr().err


def write_rows(path: Path, rows: list) -> None:
    with open(path, "w", newline="") as out:
        csv.writer(out).writerows(rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "Return\n\nan \u2028 array\n"),
        ("t.txt", "Return\r\n\r\nan \u2028 array"),
        ("t.csv", "text\nReturn\n\nan \u2028 array\n"),
        ("t.csv", "n,text\n1,Return\n\n2,an \u2028 array\n"),
        ("t.tsv", "\ntext\nReturn\n\nan \u2028 array"),
    ],
)
def test_each_line_gets_a_prediction(words, name, content, tmp_path, capsys):
    (tmp_path / name).write_bytes(content.encode())
    assert main(["predict", str(words["lstm"]), "--file", str(tmp_path / name), "--json"]) == 0
    *lines, end = capsys.readouterr().out.split("\n")
    assert end == ""
    assert [json.loads(line)["input"] for line in lines] == ["Return", "", "an \u2028 array"]


def test_evaluate_skips_blank_lines_as_the_training_does(words, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,label\nReturn,0\n\nan array,1\n\n")
    assert main(["evaluate", str(words["lstm"]), "--data", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.endswith("rows      2\n")


def test_images_get_the_probabilities_of_the_test(digits, tmp_path, capsys, without_data, monkeypatch):
    monkeypatch.undo()
    for row, pixels in enumerate(data_of(digits["none0"]).test.pixels):
        Image.fromarray(pixels[0]).save(tmp_path / f"{row:03}.png")
    assert main(["predict", str(digits["none0"]), "--images", str(tmp_path), "--json"]) == 0
    assert predicted(capsys) == pytest.approx(kept(digits["none0"]), **TOLERANCE)
    monkeypatch.chdir(tmp_path)  # a long path would be shortened
    large = Path("large.jpg")
    Image.new("RGB", (31, 17), "white").save(large)
    assert main(["predict", str(digits["none0"]), "--images", str(large)]) == 0
    label, probability, name = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (label in "0123456789", 0 < float(probability) <= 1, name) == (True, True, str(large))


def test_a_run_is_found_by_its_id(words, capsys):
    found = record.read(words["lstm"])
    arguments = ["Return an array.", "--runs", str(words["lstm"].parents[1])]
    for name in (found["run_id"], words["lstm"].stem):
        assert main(["predict", name, *arguments]) == 0
        assert capsys.readouterr().out.endswith("\tReturn an array.\n")
    assert main(["predict", "0123456789ab", *arguments]) == 2
    assert "and no run of that id in" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_reads_its_data(alone, digits, tmp_path):
    path, folder = alone
    (folder / "reader.json").unlink()
    assert load(path).reader == load(digits["none0"]).reader


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_has_the_numbers_of_the_record(digits, split, capsys):
    assert main(["evaluate", str(digits["fgm2"]), "--split", split, "--json"]) == 0
    found, of_record = json.loads(capsys.readouterr().out), record.read(digits["fgm2"])[split]
    for key in ("accuracy", "macro_f1", "loss"):
        assert found[key] == pytest.approx(of_record[key], **TOLERANCE)


def test_a_file_has_the_numbers_of_the_record(words, tmp_path, capsys, without_data, monkeypatch):
    monkeypatch.undo()
    data, file = data_of(words["lstm"]), tmp_path / "test.csv"
    of_record = record.read(words["lstm"])["test"]
    expected = [f"{key:<9} {of_record[key]:.4f}" for key in ("accuracy", "macro_f1", "loss")]
    names = [data.classes[label] for label in data.test.labels]
    for labels in (names, data.test.labels):
        write_rows(file, [("label", "text"), *zip(labels, data.test.texts, strict=True)])
        assert main(["evaluate", str(words["lstm"]), "--data", str(file)]) == 0
        assert capsys.readouterr().out.splitlines() == [*expected, f"rows      {len(names)}"]
    frame = pd.DataFrame({"label": np.asarray(data.test.labels, float), "text": data.test.texts})
    frame.to_parquet(tmp_path / "test.parquet")  # 1.0 is class 1, as in training
    assert main(["evaluate", str(words["lstm"]), "--data", str(tmp_path / "test.parquet")]) == 0
    assert capsys.readouterr().out.splitlines() == [*expected, f"rows      {len(names)}"]


STARS, WORDS, BOOLEANS = ("1", "2", "3"), ("bad", "good"), ("false", "true")


@pytest.mark.parametrize(
    ("given", "classes", "read"),
    [
        (["3", "1", "2"], STARS, [2, 0, 1]),
        ([3.0, 1.0, np.int64(2)], STARS, [2, 0, 1]),
        (["01", "3"], STARS, [0, 2]),
        (["0", "0"], STARS, [0, 0]),
        (["good", " bad "], WORDS, [1, 0]),
        (["1", "0"], WORDS, [1, 0]),
        ([1.0, 0.0], WORDS, [1, 0]),
        ([True, False], BOOLEANS, [1, 0]),
        (["TRUE", "false"], BOOLEANS, [1, 0]),
        ([1, 0], BOOLEANS, [1, 0]),
        (["2", "1"], ("0", "1", "2"), [2, 1]),
    ],
)
def test_labels_are_names_or_numbers_of_classes(given, classes, read):
    assert class_numbers(Path("t.csv"), given, classes, "label") == read


@pytest.mark.parametrize(
    ("given", "classes", "row", "cell"),
    [
        (["1", "0", "2"], STARS, 2, "'0'"),
        (["0", "1", "2"], STARS, 1, "'0'"),
        ([2.0, 0.0], STARS, 2, "0.0"),
        (["good", "0"], WORDS, 2, "'0'"),
        (["0", "good"], WORDS, 1, "'0'"),
        (["0", "fine"], WORDS, 2, "'fine'"),
        (["0", "2"], WORDS, 2, "'2'"),
        (["0", "-1"], WORDS, 2, "'-1'"),
    ],
)
def test_a_label_that_is_no_class_is_named(given, classes, row, cell):
    with pytest.raises(UserError, match=rf"^t\.csv, row {row}: {cell} is not a class; classes: .* by name, or in all"):
        class_numbers(Path("t.csv"), given, classes, "label")


def test_an_exported_bert_gives_the_same_logits(words, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path, folder, texts = words["bert"], tmp_path / "hf", ["Return the mean of an array.", "Plot"]
    assert main(["export", str(path), str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    ours = load(path)
    split = ours.reader.texts(texts)
    assert torch.equal(batch["input_ids"], split.inputs.long())
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    torch.testing.assert_close(logits.softmax(-1), ours.test(split).probabilities)
    assert tuple(model.config.id2label.values()) == data_of(path).classes
    assert main(["export", str(path), str(folder)]) == 2
    assert "name a new one" in capsys.readouterr().err
    again = train(tmp_path, f"dataset=imdb paths.data={path.parents[1] / 'data'} model=hf model.pretrained={folder}")
    assert main(["export", str(again), str(tmp_path / "second")]) == 0  # which compares the logits


def mistakes(digits, words, folder: Path) -> list[tuple[list[str], str]]:
    (folder / "no.csv").write_text("a,b\n1,2\n")
    (folder / "none.jsonl").write_text('{"text": "x"}\n{"text": null}')
    (folder / "label.csv").write_text("text,label\nx,nothing\n")
    (folder / "missing.csv").write_text("text,label\nx,negative\ny,\n")
    (folder / "short.csv").write_text("text,label\nx\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "semicolons.csv").write_text("text;label\nx;1\n")
    (folder / "not.png").write_text("text")
    image, text = str(digits["none0"]), str(words["lstm"])
    return [
        (["predict", text], "name either texts"),
        (["predict", text, "--images", f"{folder}/not.png"], "this model classifies texts, not images"),
        (["predict", image, "x"], "this model classifies images"),
        (["predict", image, "--images", f"{folder}/not.png"], "not.png cannot be read as an image"),
        (["predict", image, "--images", str(folder / "nothing")], "there is no file"),
        (["predict", text, "--file", f"{folder}/empty.txt"], "has no text"),
        (["predict", text, "--file", f"{folder}/no.csv"], "has no column 'text'; its columns are a, b"),
        (["predict", text, "--file", f"{folder}/semicolons.csv"], "no column 'text'; its columns are text;label"),
        (["predict", text, "x", "--pair", "y"], "this model reads one text per row"),
        (["predict", text, "--file", f"{folder}/no.xlsx"], "no.xlsx: write the texts as a table (.csv, .tsv, .jsonl"),
        (["predict", text, "--file", f"{folder}/no.jsonl"], "cannot read"),
        (["predict", text, "--file", f"{folder}/none.jsonl"], "row 2: the text is missing"),
        (["predict", text, "x", "--device", "cuda"], "--device=cuda is not available"),
        (["predict", f"{folder}/a.json", "x"], "there is no record"),
        (["evaluate", text, "--data", f"{folder}/no.csv"], "has no column 'text'"),
        (["evaluate", text, "--data", f"{folder}/label.csv"], "row 1: 'nothing' is not a class; classes: "),
        (["evaluate", text, "--data", f"{folder}/missing.csv"], "column label, row 2: the label is missing"),
        (["evaluate", text, "--data", f"{folder}/short.csv"], "row 1: 1 cells, but there are 2 columns"),
        (
            ["export", text, f"{folder}/hf"],
            "only model=bert and model=hf have a Hugging Face form, and this is model=lstm",
        ),
    ]


def test_mistakes_give_one_sentence(digits, words, tmp_path, capsys):
    for arguments, said in mistakes(digits, words, tmp_path):
        assert main(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert said in err


def test_a_run_without_weights_gives_one_sentence(alone, capsys):
    path, folder = alone
    (folder / "best.safetensors").unlink()
    assert main(["predict", str(path), "--images", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: its weights are not in ")
    (folder / "reader.json").write_text("{")
    assert main(["evaluate", str(path)]) == 2
