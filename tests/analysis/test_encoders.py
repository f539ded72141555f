"""No table takes MiniLM for BERT-base, or leaves out what an encoder had seen before."""

import pytest

from dropattack.analysis.encoders import dataset_label, model_label, seen_before
from dropattack.analysis.records import read_records
from dropattack.runs import experiment


@pytest.mark.parametrize(("name", "pretrained", "label"), [
    ("bert", "minilm", "MiniLM (model=bert)"), ("bert", "mpnet", "MPNet (model=bert)"),
    ("hf", "minilm", "MiniLM (model=hf)"), ("bert", None, "bert"), ("bert", "own/encoder", "bert"),
    ("lstm", None, "lstm"),
])  # fmt: skip
def test_models_are_called_what_they_are(name, pretrained, label):
    assert model_label(name, pretrained) == label


def test_the_committed_bert_is_minilm():
    frame = read_records(experiment.CONF.parent / "results" / "midi" / "encoder").frame
    assert set(frame["model"]) == {"MiniLM (model=bert)"}
    assert {settings["model.name"] for settings in frame["settings"]} == {"bert"}


def test_tasks_of_glue_are_data_sets_of_their_own():
    assert dataset_label({"name": "glue", "task": "rte"}) == "glue-rte"
    assert dataset_label({"name": "imdb"}) == "imdb"


def test_a_table_of_glue_says_what_the_encoder_had_seen():
    runs = [
        {"dataset.name": name, "model.pretrained": encoder} for name in ("glue", "imdb") for encoder in ("minilm", None)
    ]
    rows, seen = seen_before(runs)
    assert "validation rows" in rows
    assert seen.startswith("MiniLM was fine-tuned on more than a billion pairs")
    assert seen_before(runs[2:]) == []
