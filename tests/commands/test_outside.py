"""IMDB runs on rewritten reviews and other sentences: refusals, numbers, the store, and the comparison of methods."""

import json

import numpy as np
import pandas as pd
import pytest

from dropattack.analysis import outside as tables
from dropattack.analysis.records import read_records
from dropattack.commands.main import main
from dropattack.data import outside as sets
from dropattack.runs import outside, record, store
from dropattack.runs.trained import load
from tests.commands.conftest import train
from tests.data.makers import texts, write_split
from tests.data.test_outside import write_outside


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train two methods with two seeds without the rewritten reviews, and one run on all reviews."""
    folder = tmp_path_factory.mktemp("outside")
    for seed, name in enumerate(("train", "test")):
        write_split(folder / "data" / "imdb" / f"{name}.parquet", texts(400, seed=seed, prefix=name))
    write_outside(folder / "data", [f"a {word} film" for word in ("red", "green", "blue", "round")])
    common = f"dataset=imdb model=lstm paths.data={folder / 'data'}"
    cells = [("none", 0), ("none", 1), ("dropattack", 0), ("dropattack", 1)]
    relative = {"none": "", "dropattack": " reg.relative=true reg.epsilon=0.1"}
    made = {f"{reg}{seed}": train(folder, f"{common} reg={reg} seed={seed} dataset.drop_rewritten=true{relative[reg]}")
            for reg, seed in cells}  # fmt: skip
    made["all reviews"] = train(folder, common)
    return made


def test_a_run_that_may_have_seen_the_reviews_is_refused(runs, digits, capsys):
    data = runs["none0"].parents[1] / "data"
    refused = {runs["all reviews"]: "dataset.drop_rewritten=true", digits["none0"]: "is a run on digits"}
    for path, why in refused.items():
        assert main(["evaluate", str(path), "--outside", "--data-folder", str(data)]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert why in said[0]
    edited = record.read(runs["all reviews"])
    edited["config"]["dataset"]["drop_rewritten"] = True  # the notes still say that nothing was dropped
    with pytest.raises(Exception, match="could have contained"):
        outside.check(edited, runs["all reviews"])


def test_the_parts_are_those_of_the_model(runs, capsys):
    path = runs["none0"]
    data = path.parents[1] / "data"
    assert main(["evaluate", str(path), "--outside", "--json", "--data-folder", str(data)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(sets.FILES)
    assert set(found["contrast_test"]) == {"original", "contrast", "pairs"}
    model, one = load(path, data=data), sets.load(data)[3]
    right = {text: bool(model.test(model.reader.texts([text], np.array([label]))).correct)
             for text, label in zip(one.rows.texts, one.rows.labels, strict=True)}  # fmt: skip
    originals = [text for text in right if not text.startswith("not ")]
    pairs = [right[text] and right[f"not {text}"] for text in originals]
    assert found["contrast_test"]["original"] == {"accuracy": np.mean([right[t] for t in originals]), "rows": 4}
    assert found["contrast_test"]["pairs"] == {"accuracy": np.mean(pairs), "rows": 4}


def test_many_runs_become_one_file_and_one_table(runs, tmp_path, capsys):
    folder = runs["none0"].parents[1]
    places = [str(path) for name, path in runs.items() if name != "all reviews"]
    options = ["--data-folder", str(folder / "data"), "--results", str(tmp_path), "--jobs", "1"]
    assert main(["outside", *places, *options, "--no-run"]) == 2
    assert "outside.jsonl is missing" in capsys.readouterr().err
    assert main(["outside", str(folder / "nothing"), *options, "--no-run"]) == 2
    assert "there are no records at" in capsys.readouterr().err
    assert main(["outside", *places, *options]) == 0
    kept = tmp_path / "smoke" / outside.STORE
    before = kept.read_text()
    assert [json.loads(line)["run"] for line in before.splitlines()] == sorted(
        store.key(record.read(path)) for name, path in runs.items() if name != "all reviews"
    )
    assert str(folder) not in before
    table = (tmp_path / "smoke" / "outside" / "imdb-lstm.md").read_text()
    for one in (*tables.MEASURES, *tables.DEV):
        assert f"| {one.label} / lstm" in table
    assert "7 planned, 7 made" in table
    assert main(["outside", *places, *options, "--no-run"]) == 0  # the same bytes from the store alone
    assert (tmp_path / "smoke" / "outside" / "imdb-lstm.md").read_text() == table
    file = outside.path_of(runs["none0"])
    stamp = file.stat().st_mtime_ns
    assert main(["outside", *places, str(runs["all reviews"]), *options]) == 2  # the others are compared all the same
    assert (file.stat().st_mtime_ns, kept.read_text()) == (stamp, before)
    kept.write_text(before[: len(before) // 2])
    with pytest.raises(Exception, match="is damaged"):
        outside.stored(kept)


def test_results_are_added_to_those_of_other_runs(tmp_path):
    path = tmp_path / outside.STORE
    for run, sets_of_run in (("b", {"mr": {}}), ("a", {}), ("a", {"sst2": {}})):
        outside.gather(path, [{"run": run, "sets": sets_of_run}])
    assert {run: one["sets"] for run, one in outside.stored(path).items()} == {"a": {"sst2": {}}, "b": {"mr": {}}}


def test_differences_are_those_of_the_store(runs, tmp_path):
    records = [path for name, path in runs.items() if name != "all reviews"]
    frame, stored = read_records(*records).frame, {}
    right = {"none": (0.25, 0.5), "dropattack": (0.75, 0.5)}
    for path in records:
        found = record.read(path)
        accuracy = right[found["config"]["reg"]["name"]][found["config"]["seed"]]
        part = {
            "rows": 4,
            "accuracy": accuracy,
            "correct": record.pack_correct([row < 4 * accuracy for row in range(4)]),
        }
        parts = dict.fromkeys(("original", "revised", "contrast", "pairs", "all"), part)
        stored[store.key(found)] = {"sets": {name: {"fingerprint": "x", **parts} for name in sets.FILES}}
    compared = tables.compare_outside(tables.measured(frame, stored, tables.MEASURES), tables.MEASURES, tables.PLAN)
    own = compared[compared["method"] == "dropattack"]
    assert list(own["dataset"]) == [one.label for one in tables.MEASURES]
    assert {tuple(d.values) for d in own["difference"]} == {(50.0, 0.0)}
    assert set(own["family"]) == {"primary"}
    assert all(rows.low <= 0.25 <= rows.high for rows in own["rows"])
    frame = tables.measured(frame, stored, tables.MEASURES)
    assert tables.plan_of(frame) is tables.PLAN
    other = frame.assign(variant="another")  # a second setting of the method: no row is the primary one
    assert tables.plan_of(pd.concat([frame, other])).primary is None
    frame = read_records(*records).frame
    first = next(iter(stored.values()))
    first["sets"]["mr"] = {**first["sets"]["mr"], "fingerprint": "y"}
    with pytest.raises(Exception, match="different versions of mr"):
        tables.measured(frame, stored, tables.MEASURES)
