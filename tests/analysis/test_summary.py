"""A folder of records → the files of a table: the same bytes every time, and an error where there is nothing."""

import pytest

from dropattack.analysis.summary import render
from dropattack.errors import UserError


@pytest.mark.parametrize(("kind", "x"), [("comparison", None), ("curve", "dataset.fraction")])
def test_the_same_records_give_the_same_bytes(tmp_path, write_run, kind, x):
    for method in ("none", "dropattack"):
        for seed in range(3):
            write_run(method, seed=seed)
    written = render("t", tmp_path, title="T", kind=kind, x=x)
    first = {path: path.read_bytes() for path in written}
    assert {path.name for path in written} == {"table.md", "table.csv", "table.tex", "figure.png", "figure.svg"}
    assert "dropattack" in (tmp_path / "table.md").read_text()
    for path in written:
        path.unlink()
    assert {path: path.read_bytes() for path in render("t", tmp_path, title="T", kind=kind, x=x)} == first


def test_no_records_is_said(tmp_path):
    with pytest.raises(UserError, match=r"table t: there is no finished record in .*records; run it first"):
        render("t", tmp_path, title="T", kind="comparison")
