"""A table's cells: which runs it wants, where their records lie, and the launcher that makes those that are missing.

A table is a file of conf/table/: grids of overrides in Hydra's own words, each of which is one `run.py --multirun`.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from dropattack import experiment, record
from dropattack.config import compose, parse
from dropattack.errors import UserError


@dataclass(frozen=True)
class Table:
    """`title` and `kind` (comparison | curve | heatmap) of what is shown, `grids` of overrides, `seeds` a cell."""

    name: str
    title: str
    kind: str
    grids: tuple[tuple[str, ...], ...]
    seeds: int
    x: str | None = None
    y: str | None = None


def load(conf: Path, name: str, seeds: int | None = None) -> Table:
    """Read conf/table/<name>.yaml.

    Raises:
        UserError: there is no such table.
    """
    path = conf / "table" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"there is no table {name!r}; tables: {known}")
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    common = [str(override) for override in values.get("common", ())]
    grids = tuple((*common, *map(str, grid)) for grid in values["grids"])
    wanted = seeds or int(values["seeds"])
    return Table(name, values["title"], values["kind"], grids, wanted, values.get("x"), values.get("y"))


def overrides(table: Table, *, scale: str, output: Path, extra: Sequence[str] = ()) -> Iterator[list[str]]:
    """What each grid's sweep is called with."""
    seeds = f"seed={','.join(map(str, range(table.seeds)))}"
    for grid in table.grids:
        yield [f"scale={scale}", f"paths.output={output}", *grid, seeds, *extra]


def records(grid: Sequence[str]) -> dict[str, Path]:
    """Where the record of each cell of a grid lies, by the cell's overrides."""
    cells = BasicSweeper.split_arguments(parse(grid), None)[0]
    return {" ".join(cell): record.record_path(experiment.resolve(compose(experiment.CONF, cell))) for cell in cells}


def launch(grid: Sequence[str], *, jobs: int, launcher: str = "joblib") -> int:
    """Run the cells of a grid that have no record yet, `jobs` at once; returns the exit code of the sweep.

    A failing cell does not stop the others; the sweep names it at its end.
    """
    workers = [f"hydra.launcher.n_jobs={jobs}"] if launcher == "joblib" else []
    command = [sys.executable, "run.py", "--multirun", f"hydra/launcher={launcher}", *workers, *grid]
    return subprocess.run(command, cwd=experiment.CONF.parent, check=False).returncode
