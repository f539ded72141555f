"""The trial files of `make tune`: what was chosen, the repetitions, and the hours."""

import json
import math

import pandas as pd
import pytest

from dropattack.analysis.searches import chosen_settings, hours, read_searches, repeated_choices
from dropattack.errors import UserError


@pytest.fixture
def write(tmp_path):
    def written(name, *, chosen=0.3, tried=((0.1, 0.8), (0.3, 0.9), (1, None)), edge=(), **more):
        trials = [{"settings": {"reg.epsilon": e}, "validation_accuracy": a} for e, a in tried]
        content = {"chosen": {"reg.epsilon": chosen}, "at_edge": list(edge), "trials": trials, **more}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    return written


def test_chosen_settings_at_the_edge_of_the_search_are_marked(write, tmp_path):
    chosen = {"trainer.learning_rate": 0.006600001, "reg.relative": True, "reg.epsilon": 0.3}
    write("mini-mnist-cnn-dropattack", edge=["reg.epsilon"])
    path = tmp_path / "mini-mnist-cnn-dropattack.json"
    content = json.loads(path.read_text()) | {"chosen": chosen}
    content["trials"][1]["settings"] = chosen
    content["trials"][0]["validation_accuracy"] = 0.95  # on one seed, say; it was not chosen
    path.write_text(json.dumps(content))
    (row,) = chosen_settings(tmp_path).rows
    assert row == ("mnist / cnn (mini)", "dropattack", "learning_rate=0.0066, relative=true, epsilon=0.3", "90.00", "3",
                   "epsilon")  # fmt: skip
    (tmp_path / "mini-mnist-cnn-fgm.json").write_text("{}")
    with pytest.raises(UserError, match=r"fgm\.json is not a trial file"):
        chosen_settings(tmp_path)


def test_a_repetition_stands_beside_the_search_that_counts(write, tmp_path):
    write("midi-pheme-bigru-fgm")
    write("midi-agnews-bigru-fgm")
    assert repeated_choices(tmp_path) is None
    write("midi-pheme-bigru-fgm-repeat1", chosen=0.1, tried=((0.1, 0.95), (0.3, 0.9)))
    write("midi-pheme-bigru-fgm-repeat2")
    table = repeated_choices(tmp_path)
    assert [row[1:5] for row in table.rows] == [
        ("fgm", "the one that counts", "epsilon=0.3", "90.00"),
        ("fgm", "1", "epsilon=0.1", "95.00"),
        ("fgm", "2", "epsilon=0.3", "90.00"),
    ]
    assert table.notes[0].startswith("1 of 2 repetitions chose another setting.")
    assert len(chosen_settings(tmp_path).rows) == 2, "a repetition chooses nothing"
    found = read_searches(tmp_path)
    assert {one.place for one in found} == {"pheme / bigru", "agnews / bigru"}


def test_hours_count_each_run_once(write, tmp_path):
    write("midi-pheme-bigru-fgm", seconds=7200)
    write("mini-pheme-bigru-fgm")
    cpu, gpu = {"cpu": "AMD EPYC", "gpu": None}, {"gpu": "H100"}
    frame = pd.DataFrame({"run_id": ["a", "b", "c"], "hardware": [cpu, cpu, gpu], "seconds": [3600, math.nan, 1800.0]})
    table = hours({"midi, midi": frame, "half, midi": frame}, tmp_path)
    assert table.rows == (("midi", "H100", "1", "0.5", "–"), ("midi", "one CPU core", "1", "1.0", "2.0"))
