"""Linear models on the rows of a table's data sets."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dropattack.commands import reference
from dropattack.data.reference import references
from dropattack.data.types import Dataset, TextSplit


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write a table of these grids to a file, and return the results of `dropattack reference` for it."""
    monkeypatch.chdir(tmp_path)

    def run(*grids: str, options: tuple[str, ...] = ()) -> dict[str, dict]:
        lines = ["title: A table", "kind: comparison", "seeds: 1", "grids:", *(f"  - [{grid}]" for grid in grids)]
        Path("mine.yaml").write_text("\n".join(lines))
        if reference.main(["mine.yaml", "--scale", "smoke", *options]):
            return {}
        return json.loads(Path("results/smoke/references.json").read_text())

    return run


def write(path: str, word: str) -> str:
    """Write a table of two classes, each with a word of its own."""
    texts = [f"{word if row % 2 else 'other'} text {row}" for row in range(60)]
    pd.DataFrame({"text": texts, "label": [row % 2 for row in range(60)]}).to_csv(path, index=False)
    return path


def test_linear_models_of_images_are_fitted(table, capsys):
    found = table("dataset=digits, model=cnn, 'reg=none,fgm'")
    assert set(found["digits"]["models"]) == {"linear", "neighbours"}
    assert found["digits"]["models"]["linear"]["test"]["accuracy"] > 0.5
    assert "digits, linear: validation" in capsys.readouterr().out


def test_data_sets_of_one_name_are_not_confused(table, tmp_path, capsys):
    one, two = write("one.csv", "one"), write("two.csv", "two")
    grids = [f"dataset=csv, dataset.path={path}, model=lstm, reg=none" for path in (one, two)]
    assert table(*grids) == {}
    assert "--only dataset.path=two.csv" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    found = table(*grids, options=("--only", f"dataset.path={two}"))
    assert found["csv"]["models"]["bag of words"]["test"]["accuracy"] == 1.0


def test_a_table_without_the_data_set_is_refused(table, capsys):
    assert table("dataset=digits, model=cnn, reg=none", options=("--dataset", "mnist")) == {}
    assert "has no cell with mnist" in capsys.readouterr().err


def test_both_texts_of_a_pair_are_read():
    def split(rows: int) -> TextSplit:
        words = ["yes" if row % 2 else "no" for row in range(rows)]
        return TextSplit(["the same"] * rows, np.arange(rows) % 2, [f"{word} it is" for word in words])

    found = references(Dataset("pairs", ("0", "1"), split(40), split(20), split(20)))
    assert found["bag of words"]["test"]["accuracy"] == 1.0
    order = Dataset("pairs", ("0", "1"), *(_swapped(split(rows)) for rows in (40, 20, 20)))
    assert references(order)["bag of words"]["test"]["accuracy"] == 1.0, "which text has the word counts"


def _swapped(split: TextSplit) -> TextSplit:
    """Return rows whose classes have the same words, but in the other text."""
    first = ["yes" if label else "no" for label in split.labels]
    second = ["no" if label else "yes" for label in split.labels]
    return TextSplit(first, split.labels, second)
