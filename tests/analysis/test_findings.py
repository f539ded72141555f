import json

import pytest

from dropattack.analysis.compare import compare
from dropattack.analysis.findings import against_baseline, against_others, chosen_settings, rivals
from dropattack.analysis.records import read_records
from dropattack.errors import UserError


def test_comparison_with_none_has_the_words_of_its_table(runs):
    frame = read_records(runs).frame
    compared = compare(frame)
    rows = against_baseline({"vision, mini": frame}).rows
    assert [row[:3] for row in rows] == [
        (f"{d}", "dropattack", "vision, mini") for d in ("digits / cnn", "pydoc / lstm")
    ]
    own = compared[(compared["method"] == "dropattack") & (compared["dataset"] == "digits")].iloc[0]
    assert rows[0][-3] == own["verdict"]
    assert rows[0][8] == f"{own['p_holm']:.3f}"
    assert rows[0][7].startswith("+3.00 [")


def test_comparison_with_every_other_method_has_the_sign_reversed(write_run, tmp_path):
    for seed in range(5):
        noise = 0.0005 * (seed % 3)
        for method, accuracy in (("none", 0.7), ("fgm", 0.9 - noise), ("pgd", 0.6), ("dropattack", 0.8)):
            write_run(method, seed=seed, accuracy=accuracy)
    found = rivals({"t": read_records(tmp_path).frame})
    fgm = next(one for one in found if one.other == "fgm")
    assert fgm.p_holm == pytest.approx(2 * fgm.difference.p), "the smaller of two"
    rows = {row[1]: row for row in against_others(found).rows}
    assert set(rows) == {"fgm", "pgd"}
    assert rows["fgm"][4].startswith("−9.96 [−10.01, ")
    assert (rows["fgm"][-1], rows["pgd"][-1]) == ("worse", "not known")  # five equal pairs: p = 1/16
    assert float(rows["pgd"][-2]) == pytest.approx(1 / 16, abs=1e-3)


def test_context_with_two_settings_of_the_method_is_skipped(write_run, tmp_path):
    for seed in range(3):
        write_run("fgm", seed=seed)
        write_run("dropattack", seed=seed)
        write_run("dropattack", seed=seed, epsilon=1.0)
    assert rivals({"t": read_records(tmp_path).frame}) == []


def test_chosen_settings_at_the_edge_of_the_search_are_marked(tmp_path):
    trials = [
        {"settings": {"reg.epsilon": e}, "validation_accuracy": a} for e, a in ((0.1, 0.8), (0.3, 0.9), (1, None))
    ]
    content = {"chosen": {"trainer.learning_rate": 0.006600001, "reg.relative": True, "reg.epsilon": 0.3},
               "at_edge": ["reg.epsilon"], "trials": trials}  # fmt: skip
    (tmp_path / "mini-mnist-cnn-dropattack.json").write_text(json.dumps(content))
    (row,) = chosen_settings(tmp_path).rows
    assert row == ("mnist / cnn (mini)", "dropattack", "learning_rate=0.0066, relative=true, epsilon=0.3", "90.00", "3",
                   "epsilon")  # fmt: skip
    (tmp_path / "mini-mnist-cnn-fgm.json").write_text("{}")
    with pytest.raises(UserError, match=r"fgm\.json is not a trial file"):
        chosen_settings(tmp_path)
