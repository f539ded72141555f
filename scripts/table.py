"""Run what a table of conf/table/ still lacks, and make it in Markdown, CSV, LaTeX and a picture: `make table-text`.

Done cells are skipped; a cell that fails does not stop the others and is named at the end, with its reason. The table
is made from the records in results/<scale>/<table>/records/ alone: `--no-run` makes it again, byte for byte.
"""

import argparse
import shutil
import sys
from pathlib import Path

from dropattack import cli, experiment, record, sweep
from dropattack.publish import publish

SHOWN = ("scale", "paths", "tracker")  # the overrides that say where


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a file of conf/table/")
    parser.add_argument("--scale", default="mini", choices=("full", "mini", "smoke"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, on one machine (default: %(default)s)")
    parser.add_argument(
        "--launcher",
        default="joblib",
        choices=("joblib", "basic", "submitit_local", "submitit_slurm", "ray"),
        help="Hydra's launcher, or Ray's cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--address", default="auto", help="of Ray's head, host:port (default: the cluster of this machine)"
    )
    parser.add_argument("--cpus", type=float, default=1, help="of a run, with Ray (default: %(default)s)")
    parser.add_argument(
        "--gpus", type=float, default=0, help="of a run, with Ray: 0.25 lets four share one (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, help="seeds a cell (default: the table's)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tables"), help="where runs write")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where records and tables are kept")
    parser.add_argument("--no-run", action="store_true", help="only make the table, from the records that are there")
    parser.add_argument("override", nargs="*", help="more overrides for all cells, such as tracker=none")
    args = parser.parse_intermixed_args()
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    table = sweep.load(experiment.CONF, args.name, args.seeds)
    folder = args.results / args.scale / args.name
    problems = [] if args.no_run else run_cells(args, table, folder / "records")
    from dropattack.analysis.summary import render  # a second of imports, not before the runs

    made = render(table.name, folder, title=table.title, kind=table.kind, x=table.x, y=table.y, seeds=table.seeds,
                  published=args.results / "reference.yaml")  # fmt: skip
    print(*made, sep="\n")
    if not args.no_run:
        where = [f"scale={args.scale}", f"paths.output={args.output}"]
        said = [o for o in args.override if o.partition(".")[0].partition("=")[0] in SHOWN]
        publish(made, name=f"table-{args.name}-{args.scale}", kind="table", group=f"table-{args.name}",
                about={"table": args.name, "scale": args.scale}, overrides=[*where, *said])  # fmt: skip
    if problems:
        print(f"{len(problems)} cells of table {table.name} have no finished run:", *problems, sep="\n  ",
              file=sys.stderr)  # fmt: skip
    return int(bool(problems))


def run_cells(args: argparse.Namespace, table: sweep.Table, kept: Path) -> list[str]:
    """Run what is not done, and bring all records to the folder `kept`; returns the cells that failed, and why."""
    engine = sweep.Engine(args.launcher, args.jobs, args.address, args.cpus, args.gpus)
    group = [] if "tracker=none" in args.override else [f"tracker.group=table-{args.name}"]
    problems, names = [], set()
    kept.mkdir(parents=True, exist_ok=True)
    for grid in sweep.overrides(table, scale=args.scale, output=args.output, extra=[*group, *args.override]):
        cells = sweep.records(grid)
        for path in cells.values():  # what is committed need not be run again
            if record.is_done(path) is None and record.is_done(kept / path.name) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(kept / path.name, path)
        if any(record.is_done(path) is None for path in cells.values()):
            sweep.launch(grid, engine)
        for cell, path in cells.items():
            if (state := record.state(path)) != "finished":
                problems.append(f"{state}: {cell} ({record.why(path)})")
            if path.exists():
                shutil.copy(path, kept / path.name)
                names.add(path.name)
    for stale in sorted(kept.glob("*.json")):  # of settings or seeds that the table had before
        if stale.name not in names:
            print(f"no longer a cell of this table, removed: {stale}", file=sys.stderr)
            stale.unlink()
    return problems


if __name__ == "__main__":
    sys.exit(main())
