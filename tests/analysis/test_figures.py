import itertools
import math

import matplotlib.image
import pytest

from dropattack.analysis.compare import compare
from dropattack.analysis.drawing import COLOURS
from dropattack.analysis.figures import _spread, by_settings, gain_against_cost
from dropattack.analysis.heatmap import heatmap
from dropattack.analysis.records import read_records


def test_figure_has_one_panel_per_data_set(runs, tmp_path):
    path = gain_against_cost(compare(read_records(runs).frame), tmp_path / "deep" / "gain.png", title="t", note="n")
    height, width = matplotlib.image.imread(path).shape[:2]
    assert width > 1.5 * height


def test_one_seed_and_no_baseline_can_be_drawn(write_run, tmp_path):
    write_run("none")
    write_run("fgm")
    write_run("fgm", dataset="pydoc", model="lstm")
    assert gain_against_cost(compare(read_records(tmp_path).frame), tmp_path / "few.png", title="t").is_file()


def test_runs_without_a_time_of_their_own_are_drawn_by_their_passes(runs, tmp_path):
    compared = compare(read_records(runs).frame)
    compared["cost"] = math.nan
    text = gain_against_cost(compared, tmp_path / "shared.svg", title="t").read_text(encoding="utf-8")
    assert "passes per step" in text
    assert "relative to" not in text
    drawn = compared[(compared["method"] != "none") & (compared["pairs"] > 0)]["method"]
    assert len(drawn) > 0
    assert all(f"<!-- {method} -->" in text or f">{method}<" in text for method in drawn)


def test_many_methods_have_a_row_each(write_run, tmp_path):
    methods = ["fgm", "pgd", "freelb", "dropattack", "sam", "awp", "rwp", "vat", "rat", "smart", "rdrop", "creat"]
    for method in ("none", *methods):
        for seed in (0, 1):
            write_run(method, seed=seed)
    compared = compare(read_records(tmp_path).frame)
    text = gain_against_cost(compared, tmp_path / "many.svg", title="t").read_text(encoding="utf-8")
    passes = {"fgm": 2, "dropattack": 3}
    assert all(f">{method}, {passes.get(method, 1)}.0×<" in text for method in methods)
    assert "with the time of a step" in text


def test_empty_table_can_be_drawn(tmp_path):
    assert gain_against_cost(compare(read_records(tmp_path).frame), tmp_path / "none.svg", title="t").is_file()


def test_colours_are_distinct():
    assert len(set(COLOURS.values())) == len(COLOURS)


@pytest.mark.parametrize("costs", [[], [2.0], [2.0, 2.0, 2.0], [1.0, 2.0, 2.01, 4.0]])
def test_marks_are_moved_apart_in_order(costs):
    placed = _spread(costs)
    assert placed == sorted(placed)
    assert all(b - a >= 0.06 * 0.5 - 1e-9 for a, b in itertools.pairwise(placed))
    assert sum(placed) == pytest.approx(sum(costs))


def test_a_heat_map_has_a_panel_per_data_set(write_run, tmp_path):
    for dataset in ("digits", "pydoc"):
        write_run("none", dataset=dataset)
        for p in (0.3, 0.5):
            write_run("dropattack", dataset=dataset, p=p, accuracy=0.9 if dataset == "digits" else 0.7)
    compared = compare(read_records(tmp_path).frame)
    drawn = heatmap(compared, "reg.epsilon", "reg.p", tmp_path / "map.svg", title="T").read_text()
    for text in ("digits · cnn", "pydoc · cnn", "+10.00", "−10.00"):
        assert text in drawn


def test_probe_figures_do_not_mix_settings(write_run, tmp_path):
    for seed in range(2):
        for epsilon in (0.1, 0.3):
            write_run("dropattack", seed=seed, epsilon=epsilon)
    frame = read_records(tmp_path).frame
    found = {key.label: {own["reg.epsilon"] for own in runs["settings"]} for key, runs in by_settings(frame)}
    assert found == {"dropattack (epsilon=0.1)": {0.1}, "dropattack (epsilon=0.3)": {0.3}}
