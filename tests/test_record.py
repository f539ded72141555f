"""Records survive kills, report what is wrong with them, reveal no folders, and have one identity each."""

import copy
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dropattack import jsonl, provenance
from dropattack.errors import UserError
from dropattack.runs import identity, record

CONFIG = {
    "seed": 3,
    "rerun": False,
    "paths": {"output": "outputs", "data": "/srv/data"},
    "dataset": {"name": "imdb", "root": "/srv/data", "cache": "outputs/cache"},
    "model": {"name": "lstm", "hidden_size": 16, "recipe": {"epochs": 2}},
    "reg": {"name": "fgm", "epsilon": 1.0},
    "scale": {"name": "smoke"},
    "trainer": {"epochs": 2, "device": "auto", "threads": None, "progress": "auto", "checkpoint": {"every_epochs": 1},
                "eval_batch_size": 8},
    "tracker": {"name": "none"},
}  # fmt: skip


def changed(key: str, value) -> dict:
    config = copy.deepcopy(CONFIG)
    *path, leaf = key.split(".")
    node = config
    for part in path:
        node = node[part]
    node[leaf] = value
    return config


def finished() -> dict:
    metrics = {"accuracy": 0.5, "macro_f1": 0.5, "loss": float("nan")}
    return {**record.blank(CONFIG), "status": "finished", "validation": {**metrics, "epoch": 1}, "test": metrics}


def test_round_trip(tmp_path):
    path = tmp_path / "records" / "r.json"
    record.write(path, finished())
    loaded = record.read(path)
    assert loaded["run_id"] == identity.run_id(CONFIG)
    assert loaded["test"]["loss"] is None  # JSON has no NaN
    assert list(loaded) == list(record.KEYS)
    assert record.is_done(path) == "finished"
    assert [file.name for file in path.parent.iterdir()] == ["r.json"]


def test_path_of_a_record():
    assert record.record_path(CONFIG) == Path(f"outputs/records/imdb-lstm-fgm-s3-{identity.run_id(CONFIG)}.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracker.name", "wandb"), ("rerun", True), ("trainer.device", "cpu"),
        ("trainer.threads", 1), ("trainer.progress", "none"), ("trainer.checkpoint", {"every_epochs": 0}),
        ("trainer.eval_batch_size", 64), ("model.recipe", {"epochs": 9}),
    ],
)  # fmt: skip
def test_identity_stays(key, value):
    assert identity.run_id(changed(key, value)) == identity.run_id(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 4), ("trainer.epochs", 3), ("reg.epsilon", 1.5), ("model.hidden_size", 17), ("scale.name", "full")],
)
def test_identity_changes(key, value):
    assert identity.run_id(changed(key, value)) != identity.run_id(CONFIG)


def test_identity_does_not_depend_on_folders():
    moved = copy.deepcopy(CONFIG)
    moved["paths"] = {"output": "/moved", "data": "elsewhere"}
    moved["dataset"] |= {"root": "elsewhere", "cache": "/moved/cache"}
    assert identity.of(moved) == identity.of(CONFIG)
    assert identity.of(CONFIG)["dataset"]["root"] == "<data>"


RESULTS = Path(__file__).resolve().parents[1] / "results"


def test_a_column_called_like_a_folder_keeps_its_name():
    dataset = {**CONFIG["dataset"], "text_column": "data", "label_column": "outputs"}
    kept = identity.of({**CONFIG, "dataset": dataset, "paths": {"data": "data", "output": "outputs"}})
    assert (kept["dataset"]["text_column"], kept["dataset"]["label_column"]) == ("data", "outputs")


def test_an_output_folder_may_be_called_like_a_data_set():
    same = {**CONFIG, "dataset": {"name": "digits", "root": "digits/own"}, "model": {"name": "cnn", "cell": "lstm"}}
    for folder in ("digits", "cnn", "lstm", "outputs"):
        config = {**same, "paths": {"data": "data", "output": folder}}
        kept = identity.of(config)
        assert (kept["dataset"]["name"], kept["model"]) == ("digits", {"name": "cnn", "cell": "lstm"})
    roots = [identity.of({**same, "paths": {"data": "data", "output": folder}})["dataset"]["root"]
             for folder in ("digits", "outputs")]  # fmt: skip
    assert roots == ["<output>/own", "digits/own"], "a place below it is one"


def test_committed_records_keep_their_identity():
    """Also with the options that their method has got since, at the values that leave it as it was."""
    committed = [json.loads(text) for path in RESULTS.glob("*/records.jsonl") for _, text in jsonl.lines(path)]
    assert len(committed) > 500
    options = {path: value for path, (value, _) in identity.NEUTRAL.items()}
    neutral = {path.removeprefix("reg."): value for path, value in options.items() if path.startswith("reg.")}
    trainer = {path.removeprefix("trainer."): v for path, v in options.items() if path.startswith("trainer.")}
    of_some = {
        ("dataset", ("imdb",)): {"drop_rewritten": False},
        ("dataset", ("imdb", "pheme", "agnews", "mnist", "cifar10", "digits", "pydoc")): {"subset_seed": None},
        ("model", ("bert",)): {"trainable_layers": None, "content": None},
        ("model", ("lstm", "bigru", "bigru2")): {"pooling": "last"},
    }
    named = {f"{group}.{key}": value for (group, _), own in of_some.items() for key, value in own.items()}
    assert {**{f"reg.{key}": v for key, v in neutral.items()}, **{f"trainer.{key}": v for key, v in trainer.items()},
            **named} == options  # fmt: skip
    methods = {
        path.stem: set(config.get("reg", config))
        for path in (RESULTS.parent / "conf" / "reg").glob("*.yaml")
        if (config := OmegaConf.load(path))
    }
    got = set()
    for made in committed:
        assert identity.run_id(made["config"]) == made["run_id"], made["run_id"]
        reg = made["config"]["reg"]
        new = (methods.get(reg["name"], set()) - set(reg)) & set(neutral)  # a composition has no file
        later = {
            **made["config"], "reg": {**reg, **{name: neutral[name] for name in new}},
            "trainer": {**trainer, **made["config"]["trainer"]},
        }  # fmt: skip
        for (group, choices), own in of_some.items():
            if later[group]["name"] in choices:
                later[group] = {**own, **later[group]}
                for key in own:
                    assert identity.run_id({**later, group: {**later[group], key: 2}}) != made["run_id"]
                    got.add(f"{group}.{key}")
        assert identity.run_id(later) == made["run_id"], made["run_id"]
        for name in new:
            changed = {**later["reg"], name: "linf" if name == "norm" else 2}
            assert identity.run_id({**later, "reg": changed}) != made["run_id"]
        got |= new
    for name in trainer:
        assert identity.run_id({**later, "trainer": {**later["trainer"], name: 0.5}}) != made["run_id"], name
    assert got == {*neutral, *named}, "an option that no record's method has got is no option to be left out"


def test_no_home_folder_in_a_record():
    config = changed("model.vectors", str(Path.home() / "glove.txt"))
    assert identity.of(config)["model"]["vectors"] == "~/glove.txt"
    assert str(Path.home()) not in json.dumps(record.blank(config))


@pytest.mark.parametrize("key", ["vectors", "tokenizer"])
def test_files_of_the_users_own_count_by_their_content(key, tmp_path):
    def known(place: str, content: str) -> dict[str, Any]:
        path = str(tmp_path / place)
        config = changed("model.vectors", path) if key == "vectors" else changed("model.tokenizer", {"name": path})
        return {**config, key: content}

    one, moved, other = known("here", "abc"), known("there", "abc"), known("here", "def")
    assert identity.run_id(one) == identity.run_id(moved) != identity.run_id(other)
    assert str(tmp_path) not in json.dumps(identity.of(one))
    assert identity.run_id(identity.of(one)) == identity.run_id(one)
    assert identity.run_id(changed("model.vectors", "glove")) != identity.run_id(one)


def test_only_fixed_fields_of_the_machine():
    assert set(provenance.hardware()) == {"system", "machine", "cpu", "cores", "jobs"}
    assert os.uname().nodename not in json.dumps(record.blank(CONFIG))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "truncated"),
        (lambda text: "[]", "not a mapping"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema is 99"),
        (lambda text: text.replace('"history"', '"histories"'), "lacks history"),
        (lambda text: text.replace('"status": "finished"', '"status": "perfect"'), "status is 'perfect'"),
        (lambda text: text.replace('"versions": {', '"versions": 3, "other": {'), "versions is a int"),
    ],
)
def test_an_invalid_record_is_named(tmp_path, spoil, message):
    path = record.write(tmp_path / "r.json", finished())
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        record.read(path)
    assert str(path) in str(error.value)
    assert record.is_done(path) is None


def test_no_record(tmp_path):
    with pytest.raises(UserError, match="no record"):
        record.read(tmp_path / "none.json")
    assert record.is_done(tmp_path / "none.json") is None


def test_a_failed_run_is_not_done(tmp_path):
    path = record.write(tmp_path / "r.json", {**record.blank(CONFIG), "error": "RuntimeError: no"})
    assert record.read(path)["status"] == "failed"
    assert record.is_done(path) is None


@pytest.mark.parametrize("key", ["test", "validation"])
def test_finished_without_a_result_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="no test or validation"):
        record.write(tmp_path / "r.json", {**finished(), key: None})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_keeps_the_old_record(tmp_path, monkeypatch):
    path = record.write(tmp_path / "r.json", finished())
    before = path.read_text()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"no space left.*paths\.output"):
        record.write(path, {**finished(), "seconds": 1.0})
    assert path.read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_reader_sees_the_old_record_or_the_whole_new_one(tmp_path):
    """A file that is replaced stays as it was for whoever has it open; one that is written to does not."""
    path = record.write(tmp_path / "r.json", finished())
    before = path.read_text()
    with path.open() as opened:
        record.write(path, {**finished(), "seconds": 1.0})
        assert opened.read() == before
    assert path.read_text() != before


def test_commit_is_this_projects_or_none(monkeypatch):
    monkeypatch.delenv("DROPATTACK_COMMIT")
    found = provenance.commit()
    assert found is None or (len(found["hash"]) == 40 and isinstance(found["dirty"], bool))


def test_the_latest_error_explains_a_missing_record(tmp_path):
    path = tmp_path / "records" / "a.json"
    assert record.why(path) == "no record was written"
    record.note_error(path, "there is no data")
    assert record.why(path) == "there is no data"
    path.write_text("{")
    record.note_error(path, "still none")
    assert record.why(path) == "still none"
    record.forget_error(path)
    assert "not a complete JSON record" in record.why(path)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_rows_that_were_right_survive_packing(correct):
    text = record.pack_correct(correct)
    assert text.isascii()
    assert record.unpack_correct(text, len(correct)) == correct
    with pytest.raises(ValueError, match="does not hold"):
        record.unpack_correct(text, len(correct) + 8)


@pytest.mark.parametrize("text", ["", "?", "AAAA", "eJwDAAAAAAE=x"])
def test_unreadable_rows_are_refused(text):
    with pytest.raises(ValueError, match=r"test\.correct (is damaged|does not hold)"):
        record.unpack_correct(text, 3)


def test_packed_rows_are_small():
    assert len(record.pack_correct([True] * 25_000)) < 100
    assert len(record.pack_correct([i % 7 > 0 for i in range(25_000)])) < 25_000 / 8 * 4 / 3 + 100
