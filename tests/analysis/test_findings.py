import pytest

from dropattack.analysis.compare import compare
from dropattack.analysis.findings import against_baseline, against_others, rivals
from dropattack.analysis.records import read_records
from dropattack.statistics import Plan, Primary


def test_comparison_with_none_has_the_words_of_its_table(runs):
    frame = read_records(runs).frame
    compared = compare(frame)
    rows = against_baseline({"vision, mini": frame}).rows
    assert [row[:3] for row in rows] == [
        (f"{d}", "dropattack", "vision, mini") for d in ("digits / cnn", "pydoc / lstm")
    ]
    own = compared[(compared["method"] == "dropattack") & (compared["dataset"] == "digits")].iloc[0]
    assert rows[0][-4] == own["verdict"]
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
    stricter = next(one for one in rivals({"t": read_records(tmp_path).frame}, removed=3) if one.other == "fgm")
    assert stricter.p_holm == pytest.approx(5 * fgm.difference.p), "comparisons of removed tables count"
    rows = {row[1]: row for row in against_others(found).rows}
    assert set(rows) == {"fgm", "pgd"}
    assert rows["fgm"][4].startswith("−9.96 [−10.01, ")
    assert (rows["fgm"][-1], rows["pgd"][-1]) == ("worse", "not known")  # five equal pairs: p = 1/16
    assert float(rows["pgd"][-2]) == pytest.approx(1 / 16, abs=1e-3)


def test_context_with_two_settings_of_the_method_is_skipped_unless_the_plan_chooses(write_run, tmp_path):
    for seed in range(3):
        write_run("fgm", seed=seed)
        write_run("dropattack", seed=seed)
        write_run("dropattack", seed=seed, epsilon=1.0)
    frames = {"t": read_records(tmp_path).frame}
    assert rivals(frames) == []
    (fgm,) = rivals(frames, plans={"t": Plan(primary=Primary("dropattack", where={"reg.epsilon": 1.0}))})
    assert (fgm.other, fgm.difference.n) == ("fgm", 3), "the one that the plan asks about is compared"
