"""The committed tables are what the committed records make, byte for byte; their figures are left to `make table-…`."""

import shutil
from pathlib import Path

import pytest

from dropattack.analysis import figures, summary
from dropattack.runs import experiment, record, store
from dropattack.runs.config import cells, compose
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table, overrides

RESULTS = CONF.parent / "results"
TABLES = sorted(path.parent for path in RESULTS.glob(f"*/*/{store.RUNS}"))


@pytest.mark.parametrize("folder", TABLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_committed_table_is_made_of_its_records(folder: Path, tmp_path: Path, monkeypatch):
    for module, drawing in ((figures, "gain_against_cost"), (figures, "accuracy_against"), (summary, "heatmap"),
                            (summary, "draw")):  # fmt: skip
        monkeypatch.setattr(module, drawing, lambda *args, **_: next(a for a in args if isinstance(a, Path)))
    copy = tmp_path / folder.name
    copy.mkdir()
    shutil.copy(folder / store.RUNS, copy)
    (tmp_path / store.RECORDS).symlink_to(folder.parent / store.RECORDS)
    table = load_table(CONF, folder.name)
    made = summary.render(table.name, copy, title=table.title, kind=table.kind, x=table.x, y=table.y,
                          seeds=table.seeds, published=RESULTS / "reference.yaml")  # fmt: skip
    written = [path for path in made if path.suffix not in (".png", ".svg")]
    assert {path.name for path in written} >= {"table.md", "table.csv", "table.tex"}
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes(), f"run `make table-{table.name}`"


@pytest.mark.parametrize("folder", TABLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_committed_table_s_cells_are_its_runs(folder: Path):
    """What conf/ composes today is what was run: no cell has lost its record."""
    names = {name.partition(" ")[0] for name in store.runs_of(folder)}
    for grid in overrides(load_table(CONF, folder.name, seeds=1), scale=folder.parent.name, output=Path("outputs")):
        for cell in cells(grid):
            config = experiment.resolve(compose(CONF, cell))
            assert record.name(config, record.run_id(config)) in names, " ".join(cell)
