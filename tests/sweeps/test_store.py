"""One store of records per scale: each run once, tables that list their runs, and no partial writes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dropattack import files, jsonl
from dropattack.analysis.records import read_records
from dropattack.errors import UserError
from dropattack.runs import record, store
from tests.hostile.records import finished


def run(seed: int, commit: str | None = "a" * 40, accuracy: float = 0.5) -> dict[str, Any]:
    made = finished(seed=seed)
    made["commit"] = None if commit is None else {"hash": commit, "dirty": False, "code": "c"}
    made["test"] = {"accuracy": accuracy, "macro_f1": accuracy, "loss": 1.0}
    return made


def test_two_tables_share_a_run_and_each_run_has_one_line(tmp_path):
    one, other = tmp_path / "mini" / "one", tmp_path / "mini" / "other"
    store.keep(one, [run(1), run(0)])
    store.keep(other, [run(1), run(2)])
    lines = (tmp_path / "mini" / "records.jsonl").read_text().splitlines()
    assert lines == [record.dumps(run(seed)) for seed in (0, 1, 2)]
    assert store.read(tmp_path / "mini" / "records.jsonl") == {store.key(run(seed)): run(seed) for seed in (0, 1, 2)}
    assert list(read_records(one).frame["seed"]) == [0, 1]
    assert list(read_records(other).frame["seed"]) == [1, 2]


def test_unused_runs_are_removed_and_shared_ones_stay(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    store.keep(one, [run(0), run(1)])
    store.keep(other, [run(1)])
    assert store.keep(one, [run(2)]) == sorted(store.key(run(seed)) for seed in (0, 1))
    assert set(store.read(tmp_path / "records.jsonl")) == {store.key(run(seed)) for seed in (1, 2)}
    assert store.keep(one, [run(2)]) == []


def test_each_table_keeps_its_own_measurement_of_a_run(tmp_path):
    store.keep(tmp_path / "old", [run(0, "a" * 40) | {"seconds": 1.0}])
    store.keep(tmp_path / "new", [run(0, "b" * 40) | {"seconds": 2.0}])
    store.keep(tmp_path / "none", [run(0, None)])
    assert list(read_records(tmp_path / "old").frame["seconds"]) == [1.0]
    assert list(read_records(tmp_path / "new").frame["seconds"]) == [2.0]
    commits = [store.runs_of(tmp_path / name)[0].partition(" ")[2] for name in ("old", "new", "none")]
    assert commits == ["a" * 10, "b" * 10, "-"]


def test_missing_and_damaged_records_are_left_out_by_name(tmp_path):
    store.keep(tmp_path / "t", [run(0), run(1)])
    path = tmp_path / "records.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:100]}\n")
    found = read_records(tmp_path / "t")
    assert list(found.frame["seed"]) == [0]
    assert {left.reason for left in found.left_out} == {"truncated", "missing"}
    assert any("line 2" in str(left) for left in found.left_out)
    with pytest.raises(UserError, match=r"records\.jsonl, line 2 is not a complete JSON record"):
        store.keep(tmp_path / "t", [run(0)])
    assert path.read_text() == f"{first}\n{second[:100]}\n"  # an unreadable store is not overwritten


def test_line_separators_within_strings_do_not_end_a_record(tmp_path):
    odd = run(0)
    odd["data"]["notes"] = {"author": "one\u2028two\x85three"}
    store.keep(tmp_path / "t", [odd])
    assert store.read(tmp_path / "records.jsonl") == {store.key(odd): odd}


@pytest.mark.parametrize("broken", ["records.jsonl", "runs.txt"])
def test_a_write_that_fails_leaves_both_files_readable(tmp_path, monkeypatch, broken):
    store.keep(tmp_path / "t", [run(0)])
    before = store.runs_of(tmp_path / "t")

    def full(path: Path, data: bytes) -> None:
        if path.name == broken:
            raise OSError(28, "No space left on device")
        files.write_atomically(path, data)

    with monkeypatch.context() as patch:
        for module in (jsonl, store):
            patch.setattr(module, "write_atomically", full)
        with pytest.raises(UserError, match="no space left"):
            store.keep(tmp_path / "t", [run(1)])
    assert store.runs_of(tmp_path / "t") == before
    assert list(read_records(tmp_path / "t").frame["seed"]) == [0]


def test_tables_that_are_made_at_the_same_time_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: store.keep(tmp_path / f"t{seed}", [run(seed)]), range(24)))
    assert len(store.read(tmp_path / "records.jsonl")) == 24


def test_places_of_a_table_are_the_output_of_its_runs(tmp_path):
    store.keep(tmp_path / "t", [run(0), run(1)])
    stems = [name.partition(" ")[0] for name in store.runs_of(tmp_path / "t")]
    assert store.places([tmp_path / "t"], tmp_path / "out") == [tmp_path / "out/records" / f"{s}.json" for s in stems]
    assert store.places([tmp_path / "t"], tmp_path / "out", "*-s1-*") == [tmp_path / "out/records" / f"{stems[1]}.json"]
    with pytest.raises(UserError, match="--runs"):
        store.places([tmp_path / "t"], None)
    with pytest.raises(UserError, match="there are no records"):
        store.places([tmp_path / "t"], tmp_path / "out", "nothing")
