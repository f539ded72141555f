"""The report sent by `dropattack wandb-report`, built by the client library, with a fake server."""

import json
from types import SimpleNamespace

import pytest

from dropattack.commands import wandb_report
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table


@pytest.fixture(scope="module")
def interface():
    """Return the client library, whose import takes seconds."""
    return pytest.importorskip("wandb_workspaces.reports.v2.interface")


def test_the_report_shows_each_tables_runs_by_data_set_and_method(interface, monkeypatch):
    monkeypatch.setattr(interface, "_get_api", lambda: SimpleNamespace(default_entity="me"))
    monkeypatch.setattr(interface, "execute_graphql", lambda *_: {"project": {"internalId": "1"}})
    made = wandb_report.report([load_table(CONF, "text"), load_table(CONF, "vision")], entity="me", project="p")
    spec = made._to_model().spec.model_dump(by_alias=True, exclude_none=True)
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 2
    for grid, name in zip(grids, ("text", "vision"), strict=True):
        sent = json.dumps(grid, default=str)
        assert f"table-{name}" in sent
        assert "dataset.value.name" in sent
        assert "reg.value.name" in sent
        assert "test/accuracy" in sent


def test_without_a_login_there_is_one_sentence(interface, monkeypatch, capsys):
    def refuse():
        raise RuntimeError("not logged in")

    monkeypatch.setattr(interface, "_get_api", refuse)
    monkeypatch.setattr("sys.argv", ["wandb_report.py", "text"])
    assert wandb_report.main() == 1
    assert capsys.readouterr().err == "error: W&B did not accept the report: not logged in\n"
    monkeypatch.setattr("sys.argv", ["wandb_report.py", "nothing"])
    assert wandb_report.main() == 2
