"""compare and curve: from records to a table on stdout and to figures."""

import re

import pandas as pd
import pytest

from dropattack.commands.main import main
from dropattack.runs import record


def test_a_table_of_any_records(digits, tmp_path, capsys):
    figure, curves, numbers = tmp_path / "gain.svg", tmp_path / "curves.png", tmp_path / "numbers.csv"
    written = ["--figure", str(figure), "--curves", str(curves), "--csv", str(numbers)]
    assert main(["compare", str(digits["none0"].parent), *written]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| digits / cnn \| fgm +\| +2 \|", out, re.MULTILINE)
    assert "fgm on digits / cnn: compared over 1 seed; fgm alone has " in out
    assert "; none alone has " in out
    assert "not known" in out
    frame = pd.read_csv(numbers).set_index("method")
    runs = {name: 100 * record.read(path)["test"]["accuracy"] for name, path in digits.items()}
    assert frame.loc["none", "mean"] == pytest.approx((runs["none0"] + runs["none1"]) / 2)
    assert frame.loc["fgm", "difference"] == pytest.approx(runs["fgm0"] - runs["none0"])
    assert figure.read_text().startswith("<svg")
    assert curves.read_bytes().startswith(b"\x89PNG")


def test_another_baseline_and_runs_by_their_ids(digits, capsys):
    folder = digits["none0"].parents[1]
    ids = [record.read(path)["run_id"] for path in digits.values()]
    assert main(["compare", *ids, "--runs", str(folder), "--baseline", "fgm"]) == 0
    assert "difference to fgm" in capsys.readouterr().out
    assert main(["compare", *ids, "--runs", str(folder), "--baseline", "pgd"]) == 2
    assert "there is no run of pgd to compare with; --baseline can be fgm, none" in capsys.readouterr().err


def test_the_curve_of_one_run(digits, tmp_path, capsys):
    assert main(["curve", str(digits["fgm0"]), "--runs", str(tmp_path)]) == 0
    path = tmp_path / "curves" / f"{digits['fgm0'].stem}.png"
    assert capsys.readouterr().out == f"{path}\n"
    first = path.read_bytes()
    assert main(["curve", str(digits["fgm0"]), "--figure", str(path)]) == 0
    assert path.read_bytes() == first


def test_mistakes_give_one_sentence(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    for arguments, said in (
        (["compare"], "there is no record outputs/records"),
        (["compare", "bad.json"], "no finished run in bad.json: bad.json: truncated"),
        (["compare", str(digits["none0"]), "--figure", "a.gif"], "a.gif: a figure's name ends with one of .svg"),
        (["curve", str(digits["none0"]), "--figure", "a"], "a: a figure's name ends with one of .svg"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert said in err
        assert err.count("\n") == 1
