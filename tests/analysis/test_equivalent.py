"""Equivalent code: only as declared in a file, only in its context, for both old and new digests."""

import json
from pathlib import Path

import pytest
import yaml

from dropattack.analysis.equivalent import Equivalent, differences
from dropattack.analysis.records import code_of, read_records
from dropattack.errors import UserError
from dropattack.runs import restore, store
from dropattack.runs.experiment import CONF

ROOT = CONF.parent
OLD = {"hash": "h", "dirty": False, "code": "old"}
NEW = {"hash": "i", "dirty": True, "code": "new", "method": "m-none"}  # a digest of files: dirty adds nothing


@pytest.fixture
def mixed(write_run) -> dict[str, Path]:
    """Write three runs of the old code and one of the new, in one context."""
    runs = {f"old{seed}": write_run("none", seed=seed, changes={"commit": OLD}) for seed in range(3)}
    return {**runs, "new": write_run("none", seed=3, changes={"commit": NEW})}


def declared(tmp_path: Path, context: str, **entry) -> Equivalent:
    file = tmp_path / "equivalent.yaml"
    whole = {"context": context, "reg": "none", "code": ["old", "new"], "method": ["old", "m-none"], **entry}
    file.write_text(yaml.safe_dump({"a-run": whole}))
    return Equivalent(file)


def left_out(path: Path, equivalent: Equivalent) -> list[str]:
    return [
        left.path.name for left in read_records(path, equivalent=equivalent).left_out if left.reason == "other code"
    ]


def test_new_run_is_counted_if_its_code_is_declared(mixed, tmp_path):
    context = read_records(mixed["new"]).frame["context"][0]
    folder = mixed["new"].parent
    new = [mixed["new"].name]
    assert left_out(folder, Equivalent(tmp_path / "nothing.yaml")) == new
    assert left_out(folder, declared(tmp_path, context)) == []
    assert left_out(folder, declared(tmp_path, "another")) == new
    assert left_out(folder, declared(tmp_path, context, reg="fgm")) == new
    assert left_out(folder, declared(tmp_path, context, method=["old", "m-other"])) == new
    assert left_out(folder, declared(tmp_path, context, code=["old", "newer"])) == new


def test_methods_of_one_context_have_separate_codes(write_run):
    for seed in range(2):
        write_run("none", seed=seed, changes={"commit": NEW})
        path = write_run("fgm", seed=seed, changes={"commit": {**NEW, "method": "m-fgm"}})
    odd = write_run("fgm", seed=2, changes={"commit": {**NEW, "method": "m-fgm-changed"}})
    found = read_records(path.parent, equivalent=Equivalent(path.parent / "none.yaml"))
    assert len(found.frame) == 4
    assert [left.path for left in found.left_out] == [odd]


def test_equivalence_is_transitive(tmp_path):
    file = tmp_path / "equivalent.yaml"
    one = {"context": "c", "reg": "none", "code": ["a", "b"], "method": ["a", "b"]}
    file.write_text(yaml.safe_dump({"r1": one, "r2": {**one, "code": ["d", "b"]}}))
    found = Equivalent(file)
    assert found.code("c", "a") == found.code("c", "b") == found.code("c", "d") == "a"
    assert found.method("c", "none", "d") == "d"
    assert found.code("e", "b") == "b"


def test_incomplete_entry_is_named(tmp_path):
    file = tmp_path / "equivalent.yaml"
    file.write_text("some-run: {context: c}\n")
    with pytest.raises(UserError, match=r"equivalent\.yaml: some-run needs context"):
        Equivalent(file)


def test_one_bit_is_a_difference_and_time_is_not(mixed):
    one = json.loads(mixed["old0"].read_text()) | {"history": [{"epoch": 1, "seconds": 2.0, "train": {"loss": 0.1}}]}
    assert differences(one, {**one, "seconds": 99.0, "commit": NEW}) == []
    assert differences(one, {**one, "history": [{**one["history"][0], "seconds": 3.0}]}) == []
    moved = [{**one["history"][0], "train": {"loss": 0.1 + 2**-56}}]
    assert differences(one, {**one, "history": moved}) == ["history[0].train.loss"]
    assert differences(one, {**one, "history": []}) == ["history.length", "history[0].epoch", "history[0].train.loss"]
    assert differences(one, {**one, "steps": 1}) == ["steps"]
    rows = {**one, "test": {"correct": "a"}}
    assert differences(rows, {**one, "test": {"correct": "b"}}) == ["test.correct"]
    assert differences(rows, {**one, "test": {}}) == [], "the first records lack it"


def test_older_record_has_one_digest_for_both_and_marks_changes():
    assert code_of({"commit": OLD}) == ("old", "old")
    assert code_of({"commit": {**OLD, "dirty": True}}) == ("old+changes", "old+changes")
    assert code_of({"commit": NEW}) == ("new", "m-none")
    assert code_of({"commit": None}) == ("unknown code", "unknown code")


def test_a_run_is_repeated_with_the_kernels_of_its_scale(tmp_path):
    kept = store.read(ROOT / "results" / "midi" / store.RECORDS).values()
    one = next(found for found in kept if found["hardware"].get("kernels") == "portable")
    assert restore.complete(one["config"], output=tmp_path)["trainer"]["kernels"] == "portable"
