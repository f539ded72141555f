"""Rendering a folder of records: the same bytes every time, and an error if there is nothing to render."""

import pytest
from omegaconf import OmegaConf

from dropattack.analysis.records import read_records
from dropattack.analysis.summary import render, summarize
from dropattack.errors import UserError
from dropattack.runs.experiment import CONF


@pytest.mark.parametrize(
    ("kind", "x", "y"),
    [("comparison", None, None), ("curve", "dataset.fraction", None), ("heatmap", "reg.epsilon", "reg.p")],
)
def test_the_same_records_give_the_same_bytes(as_table, write_run, kind, x, y):
    for method in ("none", "dropattack"):
        for seed in range(3):
            write_run(method, seed=seed)
    write_run("dropattack", epsilon=1.0)
    folder = as_table()
    written = render("t", folder, title="T", kind=kind, x=x, y=y)
    first = {path: path.read_bytes() for path in written}
    assert {path.name for path in written} == {"table.md", "table.csv", "table.tex", "figure.png", "figure.svg"}
    assert "dropattack" in (folder / "table.md").read_text()
    for path in written:
        path.unlink()
    assert {path: path.read_bytes() for path in render("t", folder, title="T", kind=kind, x=x, y=y)} == first


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"table t: no finished record in .*; run the table first"):
        render("t", tmp_path, title="T", kind="comparison")


def test_a_heat_map_needs_its_settings(as_table, write_run):
    write_run("none")
    folder = as_table()
    with pytest.raises(UserError, match=r"no finished run of a method has both reg\.epsilon and reg\.p"):
        render("t", folder, title="T", kind="heatmap", x="reg.epsilon", y="reg.p")


def test_incomplete_cells_are_marked_and_published_values_shown(tmp_path, as_table, write_run):
    for seed in range(2):
        write_run("none", seed=seed)
    write_run("dropattack")
    published = tmp_path / "reference.yaml"
    published.write_text("t: {source: somewhere, digits: {none: null, dropattack: 91.5}}")
    folder = as_table()
    render("t", folder, title="T", kind="comparison", seeds=2, published=published)
    none, dropattack = (folder / "table.md").read_text().splitlines()[4:6]
    assert [cell.strip() for cell in none.split("|")][3:6:2] == ["2", "not transcribed"]
    assert [cell.strip() for cell in dropattack.split("|")][3:6:2] == ["1 of 2", "91.5"]
    assert "Published: somewhere." in (folder / "table.md").read_text()


def test_reference_file_names_existing_tables_and_data_sets():
    tables = {path.stem for path in (CONF / "table").glob("*.yaml")}
    datasets = {path.stem for path in (CONF / "dataset").glob("*.yaml")}
    reference = OmegaConf.to_container(OmegaConf.load(CONF.parent / "results" / "reference.yaml"))
    assert set(reference) <= tables
    for entry in reference.values():
        assert set(entry) - {"source"} <= datasets
        assert entry["source"]


def test_other_settings_than_those_of_the_method_are_said(write_run, tmp_path, capsys):
    write_run("none")
    write_run("fgm", trainer={"learning_rate": 0.01})
    write_run("dropout", rate=0.5)
    write_run("mixup", trainer={"mixup": 0.2})
    summarize(read_records(tmp_path), None, None, title="", console=None)
    said = [line for line in capsys.readouterr().out.splitlines() if "for none" in line]
    assert said == ["fgm on digits / cnn: trainer.learning_rate is 0.01, and 0.001 for none."]
