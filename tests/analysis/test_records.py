import json
import math

import pytest

from dropattack.analysis.along import by_context, with_number
from dropattack.analysis.compare import compare
from dropattack.analysis.data_efficiency import data_efficiency
from dropattack.analysis.figures import accuracy_panel
from dropattack.analysis.records import read_records
from dropattack.analysis.settings import differences, distinguishing, flatten
from dropattack.analysis.tables import comparison_table
from dropattack.runs import record
from dropattack.statistics import Plan


def reasons(records) -> dict[str, str]:
    return {left.path.name: left.reason for left in records.left_out}


def test_every_finished_run_is_one_row(runs):
    records = read_records(runs)
    assert len(records.frame) == 24
    assert records.left_out == ()
    row = records.frame.query("method == 'dropattack' and dataset == 'digits' and seed == 1").iloc[0]
    assert row["passes"] == 3
    assert row["settings"]["reg.epsilon"] == 5.0
    assert row["scale"] == "mini"


def test_seeds_share_a_variant_and_methods_share_a_context(runs):
    frame = read_records(runs).frame
    assert frame.groupby(["dataset", "method"])["variant"].nunique().eq(1).all()
    assert frame.groupby("dataset")["context"].nunique().eq(1).all()
    assert frame["context"].nunique() == 2


def test_other_training_settings_are_another_context(write_run, tmp_path):
    write_run("none", fraction=1.0)
    write_run("none", fraction=0.5)
    assert read_records(tmp_path).frame["context"].nunique() == 2


def test_longer_training_is_a_method_of_the_context_it_is_compared_in(write_run, tmp_path):
    write_run("none", epochs=3)
    write_run("longer", epochs=9, plain={"epochs": 3})
    write_run("longer", epochs=6, plain={"epochs": 3})
    frame = read_records(tmp_path).frame
    assert frame["context"].nunique() == 1
    assert frame["variant"].nunique() == 3


@pytest.mark.parametrize("option", [
    {"label_smoothing": 0.1}, {"average": "ema"}, {"average": "swa", "average_start": 0.5}, {"mixup": 0.2},
])  # fmt: skip
def test_what_a_baseline_sets_in_the_trainer_belongs_to_the_method(write_run, tmp_path, option):
    write_run("none")
    write_run("other", trainer=option)
    write_run("none", seed=1, trainer={"label_smoothing": 0.0, "average": "none", "mixup": 0.0})
    frame = read_records(tmp_path).frame
    assert frame["context"].nunique() == 1
    assert frame.groupby("method")["variant"].nunique().eq(1).all()


@pytest.mark.parametrize(("hardware", "seconds"), [
    ({"device": "cuda", "jobs": 1}, 0.3), ({"device": "cuda", "jobs": 8}, None), ({"device": "cuda"}, None),
    ({"device": "cpu", "jobs": 2}, 0.1),
])  # fmt: skip
def test_wall_clock_counts_only_where_the_run_was_alone(write_run, tmp_path, hardware, seconds):
    write_run("none", changes={"hardware": hardware, "seconds_per_step": 0.3, "cpu_seconds_per_step": 0.1})
    (found,) = read_records(tmp_path).frame["step_seconds"]
    assert found == seconds or (seconds is None and math.isnan(found))


def test_other_data_of_the_same_name_is_another_context(write_run, tmp_path):
    write_run("none", seed=0)
    write_run("none", seed=1, changes={"data": {"fingerprint": "other rows", "train": 100}})
    assert read_records(tmp_path).frame["context"].nunique() == 2


@pytest.mark.parametrize(("drawn_by", "contexts"), [([0, 1], 1), ([7, 7], 1), ([1, 1], 1), ([0, 7], 2)])
def test_seeds_that_draw_their_own_rows_share_a_context(write_run, tmp_path, drawn_by, contexts):
    for seed, draw in enumerate(drawn_by):
        data = {"fingerprint": f"rows of {draw}", "train": 100, "notes": {"drawn_from": "all rows"}}
        write_run("none", seed=seed, subset_seed=draw, changes={"data": data})
    assert read_records(tmp_path).frame["context"].nunique() == contexts


@pytest.mark.parametrize(("mine", "others", "contexts"), [
    ({"reg._target_": "mine.M", "plugins.mine": "a"}, {}, 1),
    ({"reg._target_": "mine.M", "plugins.mine": "a"}, {"plugins.mine": "a"}, 1),  # named, but not used
    ({"reg.fgm._target_": "mine.M", "plugins.mine": "a"}, {}, 1),
    ({"reg._target_": "mine.M", "model._target_": "mine.N", "plugins.mine": "a"}, {"model._target_": "mine.N"}, 2),
    ({"model._target_": "mine.sub.N", "plugins.mine.sub": "a"}, {"model._target_": "mine.sub.N"}, 2),
])  # fmt: skip
def test_a_plug_in_of_a_method_is_no_context(write_run, tmp_path, mine, others, contexts):
    for method, settings in (("mine", mine), ("none", others)):
        found = record.read(write_run(method))
        config = found["config"]
        for key, value in settings.items():
            *groups, last = [key.partition(".")[0], key.partition(".")[2]] if "plugins" in key else key.split(".")
            inner = config
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[last] = value
        record.write(tmp_path / f"{method}.json", {**found, "config": config})
    frame = read_records(tmp_path / "mine.json", tmp_path / "none.json").frame
    assert frame["context"].nunique() == contexts
    assert frame.groupby("method")["variant"].nunique().eq(1).all()


def test_the_code_of_a_methods_plug_in_is_a_setting_of_the_method(write_run, tmp_path):
    for seed, digest in enumerate("ab"):
        found = record.read(write_run("mine", seed=seed, _target_="mine.M"))
        config = {**found["config"], "plugins": {"mine": digest}}
        found["commit"]["method"] = digest
        record.write(tmp_path / f"{seed}.json", {**found, "config": config})
    records = read_records(tmp_path / "0.json", tmp_path / "1.json")
    assert records.frame["variant"].nunique() == 2
    assert records.left_out == (), "each version is a row of its own"


@pytest.mark.parametrize(("contents", "contexts"), [(["c", "c"], 1), (["c", "d"], 2), ([None, None], 2)])
def test_the_place_of_a_users_own_data_is_no_context(write_run, tmp_path, contents, contexts):
    for path, content, method in zip(["a.csv", "else/b.csv"], contents, ["none", "fgm"], strict=True):
        found = record.read(write_run(method, dataset="csv"))
        options = {**found["config"]["dataset"], "path": path, "content": content}
        record.write(tmp_path / f"{method}.json", {**found, "config": {**found["config"], "dataset": options}})
    frame = read_records(tmp_path / "none.json", tmp_path / "fgm.json").frame
    assert frame["context"].nunique() == contexts


def test_a_value_that_records_leave_out_is_a_number_too(write_run, tmp_path):
    for value in (0.0, 0.1):
        write_run("none", trainer={"label_smoothing": value})
    for every in (1, 2):
        write_run("fgm", every=every)
    frame = read_records(tmp_path).frame
    assert sorted(with_number(frame, "trainer.label_smoothing")["x"]) == [0.0, 0.0, 0.0, 0.1]
    assert sorted(with_number(frame, "reg.every")["x"]) == [1, 2]
    assert with_number(frame, "trainer.mixup").empty
    assert sorted(with_number(frame, "dataset.fraction")["x"]) == [1.0] * 4


def test_a_curve_does_not_mix_settings(write_run, tmp_path):
    for fraction in (0.5, 1.0):
        write_run("none", fraction=fraction)
        for epsilon in (0.1, 0.3):
            write_run("fgm", fraction=fraction, epsilon=epsilon)
    frame = read_records(tmp_path).frame
    _, keys = accuracy_panel(with_number(frame, "dataset.fraction"), "dataset.fraction", "digits")
    assert [(key.label, key.dash) for key in keys] == [("none", 0), ("fgm (epsilon=0.1)", 0), ("fgm (epsilon=0.3)", 1)]
    shown = with_number(frame, "reg.epsilon")
    assert [key.label for key in accuracy_panel(shown, "reg.epsilon", "digits")[1]] == ["fgm"]


def test_a_curve_does_not_mix_contexts(write_run, tmp_path):
    """The rate follows from the number of epochs, as in a recipe; the batch size does not."""
    for epochs, rate in ((1, 0.1), (3, 0.3)):
        for batch in (4, 32):
            for method in ("none", "fgm"):
                trainer = {"batch_size": batch, "decay": rate}
                write_run(method, epochs=epochs, accuracy=0.01 * (10 * epochs + batch), trainer=trainer)
    frame = read_records(tmp_path).frame
    groups = by_context(with_number(frame, "trainer.epochs"), "trainer.epochs")
    assert {name: sorted(rows["x"]) for name, _, rows in groups} == {
        "digits (batch_size=4)": [1, 1, 3, 3], "digits (batch_size=32)": [1, 1, 3, 3]
    }  # fmt: skip
    found = data_efficiency(frame, "trainer.epochs")
    assert {one.dataset_label: round(one.difference.mean) for one in found} == {
        "digits (batch_size=32)": -20, "digits (batch_size=4)": -20
    }  # fmt: skip


def test_longer_training_is_a_line_of_the_curve_beside_it(write_run, tmp_path):
    for share in (0.5, 1.0):
        write_run("longer", epochs=9, plain={"epochs": 3}, fraction=share)
        write_run("none", epochs=3, fraction=share)
    frame = with_number(read_records(tmp_path).frame, "dataset.fraction")
    ((name, _, runs),) = by_context(frame, "dataset.fraction")
    assert (name, len(runs)) == ("digits", 4)


def test_the_cost_of_longer_training_counts_all_its_steps(write_run, tmp_path):
    write_run("longer", epochs=9, plain={"epochs": 3}, step_seconds=0.02)
    write_run("none", epochs=3, step_seconds=0.02)
    compared = compare(read_records(tmp_path).frame).set_index("method")
    assert compared["passes"].to_dict() == {"none": 1.0, "longer": 3.0}
    assert compared.loc["longer", "cost"] == pytest.approx(3.0)
    assert "those of all its steps" in comparison_table(compared.reset_index()).notes[-1]
    untimed = compare(read_records(tmp_path).frame, plan=Plan(timed=False))
    assert untimed["cost"].isna().all()
    assert "Times are not shown" in " ".join(comparison_table(untimed, plan=Plan(timed=False)).notes)


def test_the_usual_length_names_a_context(write_run, tmp_path):
    for usual in (3, 5):
        write_run("longer", epochs=9, plain={"epochs": usual})  # its record comes first
        write_run("none", epochs=usual)
    names = set(compare(read_records(tmp_path).frame)["dataset_label"])
    assert names == {"digits (epochs=3)", "digits (epochs=5)"}


def test_an_option_that_records_leave_out_has_a_name_beside_others(write_run, tmp_path):
    for relative in (True, False):
        write_run("fgm", relative=relative)
    write_run("none")
    frame = read_records(tmp_path).frame
    assert {row.method_label for row in compare(frame).itertuples()} == {
        "none", "fgm (relative=True)", "fgm (relative=False)"
    }  # fmt: skip
    assert all("reg.relative" not in own for own in frame[frame["method"] == "none"]["settings"])


def test_files_beside_weights_are_no_records(write_run, tmp_path):
    path = write_run("none")
    weights = tmp_path / "checkpoints" / "0123456789ab"
    weights.mkdir(parents=True)
    (weights / "best.json").write_text("{}")
    records = read_records(tmp_path)
    assert (list(records.frame["path"]), records.left_out) == ([path], ())
    (left,) = read_records(weights / "best.json").left_out  # named, and so reported
    assert left.reason == "another schema"


def test_left_out_records_are_listed_with_reasons(write_run, tmp_path):
    good = write_run("none")
    write_run("fgm", status="failed")
    write_run("fgm", seed=1, status="diverged")
    truncated, other, alien, incomplete = (tmp_path / "records" / f"{n}.json" for n in "abcd")
    truncated.write_text(good.read_text()[:200])
    other.write_text(json.dumps(json.loads(good.read_text()) | {"schema": 99}))
    alien.write_text("[1, 2]")
    run = json.loads(good.read_text())
    del run["test"]["accuracy"]
    incomplete.write_text(json.dumps(run))
    records = read_records(tmp_path)
    assert list(records.frame["path"]) == [good]
    found = reasons(records)
    assert [found[f"{n}.json"] for n in "abcd"] == ["truncated", "another schema", "another schema", "incomplete"]
    assert {"failed", "diverged"} <= set(found.values())
    assert "the loss was not finite" in "".join(map(str, records.left_out))


def test_duplicate_run_is_counted_once_and_listed(write_run, tmp_path):
    first, second = (write_run("none", folder=tmp_path / name, accuracy=0.8) for name in "ab")
    records = read_records(tmp_path / "a", tmp_path / "b")
    assert list(records.frame["path"]) == [first]
    (double,) = records.left_out
    assert (double.path, double.reason) == (second, "duplicate")


def test_contradicting_runs_are_not_counted(write_run, tmp_path):
    write_run("fgm", folder=tmp_path / "a", accuracy=0.8)
    write_run("fgm", folder=tmp_path / "b", accuracy=0.9)
    other = write_run("fgm", folder=tmp_path / "a", seed=1)
    records = read_records(tmp_path)
    assert list(records.frame["path"]) == [other]
    assert [left.reason for left in records.left_out] == ["contradicting"] * 2
    assert "0.8000" in records.left_out[0].detail
    assert "0.9000" in records.left_out[0].detail


@pytest.mark.parametrize(
    ("change", "counted"), [({"code": "b"}, False), ({"dirty": True}, False), ({"hash": "other"}, True)]
)
def test_run_of_other_code_is_listed_and_not_counted(write_run, tmp_path, change, counted):
    kept = [write_run("none", seed=seed) for seed in range(3)]
    code = {"hash": "h", "dirty": False, "code": "a"}
    for path, commit in zip(kept, (code, code, code | change), strict=True):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": commit}))
    elsewhere = write_run("none", fraction=0.5)  # in another context than the others
    records = read_records(tmp_path)
    assert set(records.frame["path"]) == {*kept[: 3 if counted else 2], elsewhere}
    assert [left.reason for left in records.left_out] == ([] if counted else ["other code"])


def test_place_given_twice_is_read_once(runs):
    assert len(read_records(runs, runs, *runs.glob("digits*")).frame) == 24
    assert len(read_records(*runs.glob("digits*")).frame) == 12


def test_no_records_is_an_empty_frame(tmp_path):
    assert read_records(tmp_path).frame.empty


def test_a_missing_place_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_records(tmp_path / "nowhere")


def test_flatten_and_differences():
    one = flatten({"reg": {"name": "fgm", "epsilon": 1.0}, "targets": ["a"]})
    assert one == {"reg.name": "fgm", "reg.epsilon": 1.0, "targets": ["a"]}
    assert differences([one, one | {"reg.epsilon": 2.0}]) == [{"reg.epsilon": 1.0}, {"reg.epsilon": 2.0}]
    assert differences([one, one | {"extra": None}]) == [{"extra": None}, {"extra": None}]


def test_common_values_are_omitted():
    some = [{"epsilon": e, "every": n} for e, n in ((0.1, 1), (0.3, 1), (0.1, 2), (1.0, 1))]
    assert distinguishing(some) == [{"epsilon": 0.1}, {"epsilon": 0.3}, {"epsilon": 0.1, "every": 2}, {"epsilon": 1.0}]
    same = [{"p": 0.5, "every": 1}, {"p": 0.5, "every": 2}, {"p": 0.7, "every": 1}]
    assert distinguishing(same) == [{"p": 0.5, "every": 1}, {"every": 2}, {"p": 0.7}]
