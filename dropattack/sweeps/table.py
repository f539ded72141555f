"""The cells of a table: its runs and their records.

A table is a file of conf/table/, or one of the user's own: grids of Hydra overrides, each of which is one
`dropattack sweep`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropattack.errors import UserError, counted
from dropattack.runs import cli, experiment, launching, record, store
from dropattack.runs.config import cells, parse, search_folders
from dropattack.runs.experiment import Run
from dropattack.runs.ranges import is_name
from dropattack.runs.yaml_io import read_yaml
from dropattack.statistics import MARGIN, Plan, Primary
from dropattack.sweeps.launch import SLURM, Engine, launch, launch_by_hydra
from dropattack.sweeps.planned import planned_rows

KINDS: dict[str, tuple[str, ...]] = {
    "comparison": (),
    "curve": ("x",),
    "heatmap": ("x", "y"),
}  # kinds of tables, and the keys that each needs


@dataclass(frozen=True)
class TableConfig:
    """A table: `title`, `kind` (comparison | curve | heatmap), `grids` of overrides, and `seeds` per cell.

    `plan` has the margin of equivalence in points (`margin`), the family of comparisons that answer the table's
    question (`primary`: method, against, datasets, where, declared; see `dropattack.statistics.Primary`), and whether
    times can be compared (`timed`).
    """

    name: str
    title: str
    kind: str
    grids: tuple[tuple[str, ...], ...]
    seeds: int
    x: str | None = None
    y: str | None = None
    plan: Plan = field(default_factory=Plan)


def load_table(conf: Path, name: str, seeds: int | None = None) -> TableConfig:
    """Return the table in conf/table/<name>.yaml, or in a file of the user's own.

    A path that ends with .yaml is such a file; its stem is the table's name.

    Raises:
        UserError: the table does not exist or its file is invalid.
    """
    known = sorted(path.stem for path in (conf / "table").glob("*.yaml"))
    path = Path(name) if is_file(name) else conf / "table" / f"{name}.yaml"
    if is_file(name):
        if not path.is_file():
            raise UserError(f"there is no table file {name!r:.200}")
        if not is_name(path.stem):  # it becomes a folder of results
            raise UserError(f"{path}: rename the file, because its name becomes a folder: letters, digits and . _ + -")
        name = path.stem
    elif name not in known:
        raise UserError(f"there is no table {name!r:.80}; tables: {', '.join(known)}, or a file that ends with .yaml")
    values = read_yaml(path)
    _check(path, values)
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds={seeds} must be at least 1")
    grids = tuple((*values.get("common", ()), *grid) for grid in values["grids"])
    if seeds is not None:  # overrides the seeds of all grids
        grids = tuple(tuple(o for o in grid if not _is_seed(o)) for grid in grids)
    wanted = seeds or values["seeds"]
    primary = _primary(values["primary"]) if "primary" in values else None
    rows = planned_rows(grids, wanted, conf / "experiment") if values["kind"] == "comparison" else ()
    plan = Plan(float(values.get("margin", MARGIN)), primary, rows, values.get("timed", True))
    return TableConfig(name, values["title"], values["kind"], grids, wanted, values.get("x"), values.get("y"), plan)


def load_tables(conf: Path) -> list[TableConfig]:
    """Read all files of conf/table/, in alphabetical order."""
    return [load_table(conf, path.stem) for path in sorted((conf / "table").glob("*.yaml"))]


PRIMARY = ("method", "against", "datasets", "where", "declared")


def _primary(values: dict[str, Any]) -> Primary:
    return Primary(values["method"], values["against"], tuple(values["datasets"]), values.get("where", {}),
                   values.get("declared", ""))  # fmt: skip


def _is_primary(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= set(PRIMARY)
        and isinstance(value.get("method"), str)
        and value.get("against") == "none"  # tables compare with it
        and isinstance(value.get("datasets"), list)
        and len(set(map(str, value["datasets"]))) == len(value["datasets"]) > 0
        and isinstance(value.get("where", {}), dict)
        and isinstance(value.get("declared", ""), str)
    )


def is_file(name: str) -> bool:
    """Return whether the user names a file, and not a table of conf/table/."""
    return name.endswith((".yaml", ".yml"))


def _check(path: Path, values: dict[str, Any]) -> None:
    wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
        "title": (lambda v: isinstance(v, str), "a text"),
        "kind": (lambda v: str(v) in KINDS, f"one of {', '.join(KINDS)}"),
        "seeds": (lambda v: isinstance(v, int) and 1 <= v <= 1000, "a whole number from 1 to 1000"),
        "grids": (
            lambda v: isinstance(v, list) and bool(v) and all(map(_are_overrides, v)),
            "a list of lists of overrides",
        ),
        "common": (_are_overrides, "a list of overrides"),
        "margin": (
            lambda v: isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < 100,
            "points of accuracy, above 0 and below 100",
        ),
        "primary": (
            _is_primary,
            "a mapping with method, against: none and datasets (a list without repetitions), and optionally where "
            "(settings) and declared (a text)",
        ),
        "timed": (lambda v: isinstance(v, bool), "false, if the runs did not have their cores to themselves, or true"),
        **dict.fromkeys(("x", "y"), (lambda v: isinstance(v, str), "a setting, such as reg.epsilon")),
    }
    needed = ("title", "kind", "seeds", "grids", *KINDS.get(str(values.get("kind")), ()))
    if missing := [key for key in needed if key not in values]:
        raise UserError(f"{path} lacks {', '.join(missing)}; add it")
    if unknown := [key for key in values if key not in wanted]:
        raise UserError(f"{path}: nothing reads {', '.join(unknown)}; its keys can be {', '.join(wanted)}")
    for key, value in values.items():
        fits, what = wanted[key]
        if not fits(value):
            raise UserError(f"{path}: {key}={value!r:.80} must be {what}")


def _are_overrides(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(override, str) for override in value)


def overrides(table: TableConfig, *, scale: str, output: Path, extra: Sequence[str] = ()) -> Iterator[list[str]]:
    """Yield the overrides of each grid's sweep; a grid of cheap runs may set more seeds than the table."""
    for grid in table.grids:
        seeds = [] if any(map(_is_seed, grid)) else [f"seed={','.join(map(str, range(table.seeds)))}"]
        yield [f"scale={scale}", f"paths.output={output}", *grid, *seeds, *extra]


def _is_seed(override: str) -> bool:
    return override.startswith("seed=")


def narrowed(grids: Sequence[Sequence[str]], only: Sequence[str]) -> Iterator[list[str]]:
    """Yield each grid with the values in `only` alone (`reg=fgm` of `reg=none,fgm`), unless it has no such cell."""
    keys = {override.partition("=")[0] for override in only}
    for grid in grids:
        if any(set(only) <= set(cell) for cell in cells(grid)):
            yield [*(override for override in grid if override.partition("=")[0] not in keys), *only]


def run_cells(
    table: TableConfig, folder: Path, engine: Engine, *, scale: str, output: Path, extra: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """Run the missing cells and store the table's records in `folder`.

    `only` restricts the runs and the failures to the cells that have all of these overrides, such as `dataset=pheme`.

    Returns:
        The failed cells with their errors.

    Raises:
        UserError: no cell has the overrides in `only`, or a method to run is untuned beside tuned ones.
    """
    group = [] if "tracker=none" in extra else [f"tracker.group=table-{table.name}"]
    grids = list(overrides(table, scale=scale, output=output, extra=[*group, *extra]))
    wanted = [cell for grid in grids for cell in cells(grid)]
    chosen = [cell for cell in wanted if set(only) <= set(cell)]
    if not chosen:
        raise UserError(f"table {table.name} has no cell with {' and '.join(only)}")
    asked = {" ".join(cell): Run.asked(cell) for cell in wanted}
    cli.say_untuned((asked[" ".join(cell)].config for cell in chosen), search_folders(parse(chosen[0])))
    places = {line: one.record_path for line, one in asked.items()}
    every = store.read(folder.parent / store.RECORDS)
    own = [key for key in (store.runs_of(folder) if store.is_table(folder) else ()) if key in every]
    kept = {key.partition(" ")[0]: every[key] for key in [*every, *own]}  # a table's own records come first
    for path in places.values():
        if record.is_done(path) is None and kept.get(path.stem, {}).get("status") in record.DONE:
            record.write(path, kept[path.stem])  # reuse committed records
    todo = [cell for cell in chosen if asked[" ".join(cell)].done() is None]  # all of them with rerun=true
    _check_tuned(table, [asked[" ".join(cell)].config for cell in todo])
    if todo and engine.launcher in SLURM:  # check that it is installed
        launching.check_hydra(experiment.CONF, [f"hydra/launcher={engine.launcher}", *todo[0]], sweep=True)
    if engine.launcher in SLURM:
        for grid in narrowed(grids, only) if todo else ():
            launch_by_hydra(grid, engine)
    failed = launch(todo, engine) if todo and engine.launcher not in SLURM else {}
    states = {cell: record.state(path) for cell, path in places.items()}
    made = [record.read(places[cell]) for cell, state in states.items() if state != "missing"]
    for name in store.keep(folder, made):  # from earlier settings or seeds of the table
        print(f"no longer a run of table {table.name}: {name}", file=sys.stderr)
    asked_for = [" ".join(cell) for cell in chosen]
    said = {cell: f"{states[cell]}: {cell} ({record.why(places[cell])})" for cell in asked_for
            if states[cell] != "finished"}  # fmt: skip
    again = {cell: f"not repeated: {cell} ({failed[cell]}; its earlier result is kept)" for cell in asked_for
             if cell in failed}  # fmt: skip
    return list((again | said).values())


def runs_kept(table: TableConfig, folder: Path, *, scale: str, output: Path) -> list[str]:
    """Return the names of the runs in `folder` that are runs of the table as its file is now, and say what differs.

    Raises:
        UserError: the folder has runs, and none of them is one of the table.
    """
    found = [key.partition(" ")[0] for key in store.runs_of(folder)] if store.is_table(folder) else []
    grids = overrides(table, scale=scale, output=output)
    wanted = {Run.asked(cell).name for grid in grids for cell in cells(grid)}
    kept = [name for name in found if name in wanted]
    if found and not kept:
        raise UserError(f"none of the {len(found)} runs in {folder} is one of table {table.name} as its file is now: "
                        "run the table without --no-run")  # fmt: skip
    for name in found:
        if name not in wanted:
            print(f"no longer a run of table {table.name}, so left out: {name}", file=sys.stderr)
    if found and (missing := len(wanted.difference(found))):
        print(f"no run of {counted(missing, 'cell')} of table {table.name}: run it without --no-run", file=sys.stderr)
    return kept


def _check_tuned(table: TableConfig, configs: Sequence[Mapping[str, Any]]) -> None:
    """Check that no method would stand untuned beside methods that were tuned for the same data set and model."""
    for config in configs:
        scale, dataset, model, method = (config[group]["name"] for group in ("scale", "dataset", "model", "reg"))
        tuned = {file.stem for file in (experiment.CONF / "settings" / config["settings"]["name"]).glob("*.yaml")}
        cell = f"{scale}-{dataset}-{model}-"
        if cell + method not in tuned and any(name.startswith(cell) for name in tuned):
            raise UserError(
                f"nothing was tuned for {cell}{method}, while other methods of this table were tuned: run `dropattack "
                f"tune {table.name} --scale {scale} --dataset {dataset} --reg {method}` first, or compare all methods "
                "with settings=paper"
            )
