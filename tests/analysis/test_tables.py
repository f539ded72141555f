import csv
import io
import json
import math

import pytest
from rich.console import Console

from dropattack.analysis import formats, tables
from dropattack.analysis.compare import compare, provenance
from dropattack.analysis.data_efficiency import data_efficiency_table, heading
from dropattack.analysis.records import read_records
from dropattack.analysis.references import read_references, with_references
from dropattack.errors import UserError
from dropattack.runs import record
from dropattack.statistics import UNKNOWN, Plan, PlannedRow, Primary
from dropattack.statistics.power import detectable_effect


@pytest.fixture
def compared(runs):
    return compare(read_records(runs).frame)


def one(table, dataset, method):
    return table.query("dataset == @dataset and method == @method").iloc[0]


def test_one_row_per_method_and_data_set_in_fixed_order(compared):
    assert compared["method"].tolist() == ["none", "dropout", "fgm", "dropattack"] * 2
    assert compared["dataset_label"].tolist() == ["digits"] * 4 + ["pydoc"] * 4


def test_differences_are_in_points_and_paired_by_seed(compared):
    row = one(compared, "digits", "dropattack")
    assert row["difference"].mean == pytest.approx(3.0, abs=0.01)
    assert row["pairs"] == 3
    assert row["cost"] == pytest.approx(3.0)
    assert row["memory"] == pytest.approx(160 / 120)


def test_times_are_compared_on_one_kind_of_machine_alone(write_run, tmp_path):
    cpu = {"device": "cpu", "gpu": None, "cores": 2}
    for seed, name in enumerate(("AMD", "AMD", "Intel")):
        slow = 0.1 if name == "Intel" else 0.01
        write_run("none", seed=seed, step_seconds=slow, changes={"hardware": {**cpu, "cpu": name}})
        write_run("fgm", seed=seed, changes={"hardware": {**cpu, "cpu": "Intel"}})
        write_run("pgd", seed=seed, changes={"hardware": {**cpu, "cpu": "ARM"}})
    found = compare(read_records(tmp_path).frame)
    assert one(found, "digits", "fgm")["cost"] == pytest.approx(0.2), "of the one plain run on that CPU"
    assert math.isnan(one(found, "digits", "pgd")["cost"])


def test_rows_of_the_plan_without_a_run_are_named(runs):
    frame = read_records(runs).frame
    rows = (PlannedRow("digits", "fgm", seeds=5), PlannedRow("digits", "pgd", {"reg.epsilon": 1.0}, 5),
            PlannedRow("imdb", "none", seeds=3))  # fmt: skip
    made = tables.comparison_table(compare(frame), seeds=3, plan=Plan(rows=rows))
    assert made.notes[-1] == "Planned, but without a finished run: digits: pgd (epsilon=1.0); imdb: none."
    counts = {row[1]: row[2] for row in made.rows if row[0].startswith("digits")}
    assert (counts["fgm"], counts["none"]) == ("3 of 5", "3")


def test_runs_are_paired_by_their_seed_and_not_by_their_place(write_run, tmp_path):
    for seed, accuracy in ((0, 0.8), (1, 0.7), (2, 0.6)):
        write_run("none", seed=seed, accuracy=accuracy)
    for seed, accuracy in ((1, 0.71), (2, 0.62), (3, 0.9)):
        write_run("fgm", seed=seed, accuracy=accuracy)
    row = one(compare(read_records(tmp_path / "records").frame), "digits", "fgm")
    assert row["pairs"] == 2
    assert row["difference"].mean == pytest.approx(1.5)


def test_the_correction_covers_the_whole_table(compared):
    smallest = compared["p"].min()
    assert compared["p_holm"].min() == pytest.approx(smallest * compared["p"].notna().sum())


def test_each_family_is_corrected_apart(runs):
    frame = read_records(runs).frame
    plan = Plan(primary=Primary("dropattack", datasets=("digits", "pydoc", "imdb")))
    table = compare(frame, plan=plan)
    primary, secondary = (table[table["family"] == name] for name in ("primary", "secondary"))
    assert primary["method"].tolist() == ["dropattack"] * 2
    assert set(table[table["family"] == ""]["method"]) == {"none"}
    assert primary["p_holm"].min() == pytest.approx(3 * primary["p"].min())  # imdb is planned, not made
    assert secondary["p_holm"].min() == pytest.approx(4 * secondary["p"].min())
    assert table["p"].tolist() == pytest.approx(compare(frame)["p"].tolist(), nan_ok=True)
    row = secondary[secondary["method"] == "fgm"].iloc[0]
    assert row["detects"] == pytest.approx(row["difference"].sd * detectable_effect(3, 0.05 / 4))
    made = tables.comparison_table(table, plan=plan)
    assert [row[7] for row in made.rows[:4]] == ["–", "secondary", "secondary", "primary"]
    assert "(3 planned, 2 made; those not made count in the correction), and the 4 others" in made.notes[1]


def test_primary_family_has_one_row_per_data_set(runs, write_run):
    write_run("dropattack", epsilon=1.0)
    frame = read_records(runs).frame
    with pytest.raises(UserError, match="several comparisons on digits: narrow"):
        compare(frame, plan=Plan(primary=Primary("dropattack")))
    plan = Plan(primary=Primary("dropattack", where={"reg.epsilon": 5.0}))
    assert (compare(frame, plan=plan)["family"] == "primary").sum() == 2
    plan = Plan(primary=Primary("dropattack", datasets=("pydoc",), where={"reg.epsilon": 5.0}))
    assert (compare(frame, plan=plan)["family"] == "primary").sum() == 1, "digits was not declared"


def test_margin_decides_equivalence(write_run, tmp_path):
    for seed in range(5):
        write_run("none", seed=seed, accuracy=0.8)
        write_run("fgm", seed=seed, accuracy=0.801 + 0.001 * (-1) ** seed)
    frame = read_records(tmp_path).frame
    assert compare(frame).iloc[1]["verdict"] == "equivalent"
    assert compare(frame, plan=Plan(margin=0.1)).iloc[1]["verdict"] == UNKNOWN
    assert "within ± 0.1 points" in tables.comparison_table(compare(frame), plan=Plan(margin=0.1)).notes[2]


def test_rows_are_compared_where_the_records_have_them(write_run, tmp_path):
    rows = 50
    for seed in range(3):
        for method, right in (("none", 40), ("fgm", 48), ("pgd", 40)):
            correct = [i < right for i in range(rows)]
            kept = {} if method == "pgd" else {"correct": record.pack_correct(correct)}
            test = {"accuracy": right / rows, "macro_f1": 0.5, "loss": 0.5, **kept}
            changes = {"test": test, "data": {"fingerprint": "d", "sizes": {"train": 9, "test": rows}}}
            write_run(method, seed=seed, changes=changes)
    compared = compare(read_records(tmp_path).frame)
    found = one(compared, "digits", "fgm")["rows"]
    assert (found.pairs, found.shown, found.rows) == (3, 3, rows)
    assert found.p == pytest.approx(2 / 2**8)
    assert found.low < 8 / 50 < found.high
    assert one(compared, "digits", "pgd")["rows"] is None
    made = tables.comparison_table(compared)
    shown = {row[1]: row[9:11] for row in made.rows}
    assert made.columns[9:11] == ("[rows and seeds]", "p (McNemar)")
    assert shown["fgm"][1] == "0.008 (3 of 3)"
    assert shown["pgd"] == shown["none"] == ("–", "–")


def test_pairs_on_different_machines_are_named(write_run, tmp_path):
    for seed in range(3):
        write_run("none", seed=seed)
        write_run("pgd", seed=seed)
        write_run("fgm", seed=seed, changes={"hardware": {"cpu": "a processor" if seed else "another", "cores": 2}})
    notes = tables.comparison_table(compare(read_records(tmp_path).frame)).notes
    (note,) = (note for note in notes if note.startswith("Pairs"))
    assert note.endswith("can differ: digits / cnn: fgm (1 of 3).")


def test_rows_that_contradict_the_accuracy_are_left_out(write_run, tmp_path):
    test = {"accuracy": 0.9, "macro_f1": 0.5, "loss": 0.5, "correct": record.pack_correct([True] * 8 + [False] * 2)}
    write_run(changes={"test": test, "data": {"fingerprint": "d", "sizes": {"test": 10}}})
    (left,) = read_records(tmp_path).left_out
    assert "not that of its rows" in left.detail


def test_the_baseline_is_not_compared_with_itself(compared):
    row = one(compared, "digits", "none")
    assert math.isnan(row["p"])
    assert row["verdict"] == ""


def test_two_settings_of_a_method_are_two_labelled_rows(write_run, runs):
    write_run("fgm", epsilon=5.0, accuracy=0.9)
    table = compare(read_records(runs).frame).query("dataset == 'digits' and method == 'fgm'")
    assert table["method_label"].tolist() == ["fgm (epsilon=1.0)", "fgm (epsilon=5.0)"]
    assert table["n"].tolist() == [3, 1]
    assert table["verdict"].tolist()[1] == UNKNOWN


def test_two_contexts_are_never_mixed(write_run, runs):
    for seed in range(3):
        write_run("none", seed=seed, fraction=0.5, accuracy=0.5)
        write_run("fgm", seed=seed, fraction=0.5, accuracy=0.5)
    table = compare(read_records(runs).frame).query("model == 'cnn'")
    assert set(table["dataset_label"]) == {"digits (fraction=0.5)", "digits (fraction=1.0)"}
    half = table.query("dataset_label == 'digits (fraction=0.5)' and method == 'fgm'").iloc[0]
    assert half["difference"].mean == 0
    assert half["verdict"] == UNKNOWN


def test_an_empty_cell_says_why(write_run, tmp_path):
    write_run("fgm", seed=0)
    assert compare(read_records(tmp_path).frame)["why"].tolist() == [
        "no run of none with the same data, model and training"
    ]
    write_run("none", seed=1)
    row = one(compare(read_records(tmp_path).frame), "digits", "fgm")
    assert row["why"] == "no seed in common with none"
    assert "no seed in common" in formats.markdown(tables.comparison_table(compare(read_records(tmp_path).frame)))


def test_no_records_make_an_empty_table(tmp_path):
    table = compare(read_records(tmp_path).frame)
    assert table.empty
    assert tables.comparison_table(table).rows == ()
    assert formats.markdown(tables.comparison_table(table)).startswith("| data / model")


def test_markdown_is_one_well_formed_table(compared):
    lines = [line for line in formats.markdown(tables.comparison_table(compared)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8
    assert {line.count("|") for line in lines} == {13}
    assert len({len(line) for line in lines}) == 1
    assert "+3.00 [" in lines[5]


def test_latex_escapes_and_balances(compared):
    text = formats.latex(tables.comparison_table(compared))
    assert text.count(r"\\") == 1 + 8
    assert r"\%" in text
    assert "±" not in text.split(r"\begin")[1]
    assert r"\toprule" in text


def test_csv_keeps_full_precision(compared):
    rows = list(csv.DictReader(io.StringIO(tables.comparison_csv(compared))))
    assert len(rows) == 8
    assert float(rows[3]["difference"]) == one(compared, "digits", "dropattack")["difference"].mean
    assert rows[0]["difference"] == ""
    assert rows[0]["seeds"] == "0 1 2"


def test_the_terminal_shows_every_row(compared):
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(formats.rich_table(tables.comparison_table(compared), "title"))
    text = console.export_text()
    assert text.count("dropattack") == 2
    assert text.count("digits / cnn") == 1


@pytest.mark.parametrize(("value", "shown"), [(0.314, "+0.31"), (-0.2, "−0.20"), (-0.001, "0.00"), (0.0, "0.00")])
def test_signed(value, shown):
    assert formats.signed(value) == shown


def test_provenance_names_every_commit_and_machine(runs):
    assert provenance(read_records(runs).frame) == {
        "commit": ["0123456789"],
        "torch": ["2.15.0"],
        "hardware": ["a processor, 2 cores"],
    }


def test_less_data_is_compared_with_the_baseline_on_all_data(write_run, tmp_path):
    for seed in range(4):
        noise = 0.002 * (seed % 2)
        for method, half, whole in (("none", 0.70, 0.80), ("fgm", 0.79, 0.85)):
            write_run(method, seed=seed, fraction=0.5, accuracy=half - noise)
            write_run(method, seed=seed, fraction=1.0, accuracy=whole)
    table = data_efficiency_table(read_records(tmp_path).frame, "dataset.fraction")
    assert [row[:4] for row in table.rows] == [("digits / cnn", m, "0.5", "4") for m in ("fgm", "none")]
    fgm, none = (row[5] for row in table.rows)
    assert fgm.startswith("−1.10 [")  # 78.9 − 80, and not − 85
    assert fgm.endswith("(fraction = 1)")
    assert none.startswith("−10.10 [")
    assert [row[-1] for row in table.rows] == ["worse", "worse"]


@pytest.mark.parametrize(
    ("x", "shown"),
    [("dataset.fraction", "On less data, compared with none on all of it"),
     ("trainer.epochs", "With fewer epochs, compared with none with the most of them")],
)  # fmt: skip
def test_heading_of_data_efficiency(x, shown):
    assert heading(x) == shown


def test_amounts_of_data_are_in_numeric_order(write_run, tmp_path):
    for fraction in (0.25, 0.5, 0.1, 10.0, 1.0):
        write_run("none", fraction=fraction)
    labels = compare(read_records(tmp_path).frame)["dataset_label"].tolist()
    assert labels == [f"digits (fraction={fraction})" for fraction in (0.1, 0.25, 0.5, 1.0, 10.0)]


def test_equal_differences_have_a_note(write_run, tmp_path):
    for seed, accuracy in enumerate((0.75, 0.5, 0.25)):
        write_run("none", seed=seed, accuracy=accuracy)
        write_run("fgm", seed=seed, accuracy=accuracy - 0.0625)
        write_run("pgd", seed=seed, accuracy=accuracy)  # zero, and p = 1 says it all
    made = compare(read_records(tmp_path / "records").frame)
    row = one(made, "digits", "fgm")
    assert (row["p"], row["verdict"]) == (0.25, "not known")
    said = "exact sign-flip test, 2^(1 − n)"
    assert said in formats.markdown(tables.comparison_table(made))
    assert said not in formats.markdown(tables.comparison_table(made.query("method != 'fgm'")))


def test_contexts_of_one_scale_are_told_apart(write_run, tmp_path):
    """A scale stands for its sizes, unless two contexts have the same scale and differ in something else."""
    for scale, epochs in (("smoke", 1), ("mini", 5), ("mini", 400), ("midi", 3)):
        write_run("none", scale=scale, epochs=epochs)
    labels = compare(read_records(tmp_path).frame)["dataset_label"].tolist()
    assert labels == [f"digits (scale={scale})" for scale in ("midi", "mini, epochs=5", "mini, epochs=400", "smoke")]


def test_a_terminal_gets_the_columns_that_fit(compared):
    made = tables.comparison_table(compared)
    shown = formats.narrow(made)
    assert set(made.columns) - set(shown.columns) <= set(formats.WIDE)
    assert "verdict" in shown.columns
    assert all(len(row) == len(shown.columns) for row in shown.rows)
    assert not any("Detects" in note for note in shown.notes)


def test_linear_models_stand_above_the_networks_on_the_same_rows(write_run, tmp_path):
    for seed in range(2):
        write_run("none", seed=seed)
        write_run("none", seed=seed, dataset="other")
    path = tmp_path / "references.json"
    model = {"setting": {"C": 1.0}, "test": {"accuracy": 0.876}}
    one = {"fingerprint": "digits", "models": {"linear": model}}
    path.write_text(json.dumps({"digits": one, "other": {**one, "fingerprint": "of other rows"}}))
    frame = read_records(tmp_path).frame
    plain = tables.comparison_table(compare(frame))
    made = with_references(plain, frame, read_references(path))
    assert [row[:4] for row in made.rows if row[1] == "linear"] == [("digits / cnn", "linear", "–", "87.60")]
    assert tuple(row for row in made.rows if row[1] != "linear") == plain.rows
    assert "logistic regression on the pixels" in made.notes[-1]
    assert with_references(plain, frame, {}) == plain


@pytest.mark.parametrize("text", ["{", "[]", '{"digits": 1}', '{"digits": {"models": {"linear": {}}}}'])
def test_damaged_references_are_refused(text, tmp_path):
    (tmp_path / "references.json").write_text(text)
    with pytest.raises(UserError, match="make it again with `dropattack reference`"):
        read_references(tmp_path / "references.json")
