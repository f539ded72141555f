"""The committed tables equal those made from the committed records, byte for byte. Figures are not compared."""

import re
import shutil
from pathlib import Path

import pytest

from dropattack.analysis import figures, summary
from dropattack.runs import experiment, identity, store
from dropattack.runs.config import cells, compose
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table, overrides

RESULTS = CONF.parent / "results"
TABLES = sorted(path.parent for path in RESULTS.glob(f"*/*/{store.RUNS}"))
MADE = [folder for folder in TABLES if (folder / "table.md").exists()]  # the others are incomplete


@pytest.mark.parametrize("folder", MADE, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_committed_table_equals_its_records(folder: Path, tmp_path: Path, monkeypatch):
    for module, drawing in ((figures, "gain_against_cost"), (figures, "accuracy_against"), (summary, "heatmap"),
                            (summary, "gradient_figure")):  # fmt: skip
        monkeypatch.setattr(module, drawing, lambda *args, **_: next(a for a in args if isinstance(a, Path)))
    copy = tmp_path / folder.name
    copy.mkdir()
    shutil.copy(folder / store.RUNS, copy)
    for name in (store.RECORDS, "references.json"):
        (tmp_path / name).symlink_to(folder.parent / name)
    table = load_table(CONF, folder.name)
    made = summary.render(table.name, copy, title=table.title, kind=table.kind, x=table.x, y=table.y,
                          seeds=table.seeds, published=RESULTS / "reference.yaml", plan=table.plan)  # fmt: skip
    written = [path for path in made if path.suffix not in (".png", ".svg")]
    assert {path.name for path in written} >= {"table.md", "table.csv", "table.tex"}
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes(), f"run `make table-{table.name}`"


LARGE = ("paper", "text", "methods")  # their data, models and methods are in the other tables too


@pytest.mark.parametrize("folder", [
    pytest.param(path, id=f"{path.parent.name}-{path.name}", marks=pytest.mark.slow if path.name in LARGE else ())
    for path in TABLES
])  # fmt: skip
def test_every_committed_run_is_a_cell_of_conf(folder: Path):
    """Runs of the first seed are checked: no change of conf/ may change a run's identity. Tables may be incomplete."""
    names = [name.partition(" ")[0] for name in store.runs_of(folder)]
    seed = min(int(re.findall(r"-s(\d+)-", name)[-1]) for name in names)
    table, scale = load_table(CONF, folder.name, seeds=1), folder.parent.name
    composed = set()
    for grid in overrides(table, scale=scale, output=Path("outputs"), extra=[f"seed={seed}"]):
        for cell in cells(grid):
            config = experiment.resolve(compose(CONF, cell))
            composed.add(identity.name(config, identity.run_id(config)))
    assert {name for name in names if f"-s{seed}-" in name} <= composed
