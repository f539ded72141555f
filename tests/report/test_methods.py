"""results/methods.md: a sentence per method and data set, with the numbers of the table."""

from dropattack.analysis.formats import p_words
from dropattack.report import gather
from dropattack.report.methods import NOT_RUN, methods_page, without_methods
from dropattack.runs import record
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table
from tests.report import folders


def test_each_method_has_the_numbers_of_its_row(filled, monkeypatch):
    (found,) = gather.tables(filled, [load_table(CONF, "vision")])[0]
    monkeypatch.setattr("dropattack.report.methods.TABLE", "vision")
    page = methods_page([found], ["dropattack", "smart"])
    parts = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    assert NOT_RUN in parts["smart"]
    assert ", the baseline." in parts["none"]
    for row in found.compared.itertuples():
        assert f"{row.score.mean:.2f}" in parts[row.method]
        assert f"On {row.dataset_label} with {row.model}: " in parts[row.method]
        if row.method != "none" and not row.why:
            said = f"against plain training ({p_words(row.p_holm)}): {row.verdict}, at {row.passes:g} pass"
            assert said in parts[row.method]
    assert without_methods([found]) == []


def test_a_method_without_any_effect_has_no_verdict(quick_git, tmp_path, monkeypatch):
    for seed in range(3):
        same = folders.run(tmp_path / "mini" / "vision", "none", seed=seed)
        folders.run(tmp_path / "mini" / "vision", "flooding", seed=seed, accuracy=record.read(same)["test"]["accuracy"])
    (found,) = gather.tables(tmp_path, [load_table(CONF, "vision")])[0]
    monkeypatch.setattr("dropattack.report.methods.TABLE", "vision")
    said = methods_page([found], []).split("\n## flooding\n")[1]
    assert "as accurate as plain training in every seed (no effect seen), at 1 pass per step." in said
    assert "not known" not in said
    assert "equivalent" not in said
