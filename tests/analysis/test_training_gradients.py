import pytest

from dropattack.analysis.compare import compare
from dropattack.analysis.records import read_records
from dropattack.analysis.summary import render
from dropattack.analysis.training_gradients import gradient_table, with_norms


@pytest.fixture
def measured(write_run, tmp_path):
    """Four seeds of none and DropAttack, two epochs; DropAttack's norms are half of none's."""
    for seed in range(4):
        for method, size in (("none", 2.0), ("dropattack", 1.0)):
            norms = [{"input": size * (1 + 0.01 * seed), "hidden": size * epoch, "weights": size} for epoch in (1, 2)]
            write_run(method, seed=seed, changes={"history": [
                {"epoch": i + 1, "validation": {"accuracy": 0.5, "loss": 1.0}, "gradients": own}
                for i, own in enumerate(norms)
            ]})  # fmt: skip
    return tmp_path


def test_norms_are_means_over_epochs_and_paired_with_none(measured):
    frame = with_norms(read_records(measured).frame)
    assert frame.query("method == 'dropattack'")["gradients.hidden"].tolist() == [1.5] * 4
    row = compare(frame, metric="gradients.hidden", factor=1.0).query("method == 'dropattack'").iloc[0]
    assert row["difference"].mean == -1.5
    rows = {(norm, method): cells for _, norm, method, *cells in gradient_table(frame).rows}
    assert rows["‖∂L/∂x‖", "dropattack"][-1] == "lower"
    assert rows["‖∂L/∂W‖, hidden", "none"][1].startswith("3")
    assert rows["‖∂L/∂W‖, hidden", "dropattack"][2].startswith("−1.5")


def test_runs_without_measurements_are_left_out(write_run, measured):
    write_run("fgm", seed=0)
    assert set(with_norms(read_records(measured).frame)["method"]) == {"none", "dropattack"}


def test_table_of_measured_runs_has_gradient_table_and_figure(measured, as_table):
    folder = as_table()
    made = {path.name for path in render("t", folder, title="T", kind="comparison")}
    assert {"gradients.md", "gradients.png", "gradients.svg"} <= made
    first = (folder / "gradients.svg").read_bytes()
    render("t", folder, title="T", kind="comparison")
    assert (folder / "gradients.svg").read_bytes() == first


def test_table_without_measurements_has_none(runs, as_table):
    made = {path.name for path in render("t", as_table(), title="T", kind="comparison")}
    assert not any(name.startswith("gradients") for name in made)
