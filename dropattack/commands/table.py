"""Run the missing cells of a table, and write it as Markdown, CSV, LaTeX and figure.

    dropattack table text --scale mini          a table of conf/table/
    dropattack table mine.yaml tracker=none     one of your own; docs/tables.md describes the file

Finished cells are skipped; a failed cell does not stop the others and is reported at the end. The table is made only
from <results>/<scale>/records.jsonl and the table's runs.txt: `--no-run` reproduces it byte for byte. For
a file of your own, it leaves out runs that the file no longer names.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, experiment
from dropattack.runs.resolvers import SCALES
from dropattack.sweeps.launch import LAUNCHERS, Engine
from dropattack.sweeps.publish import publish
from dropattack.sweeps.table import is_file, load_table, run_cells, runs_kept

SHOWN = ("scale", "paths", "tracker")  # overrides that affect only where things are stored


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("table", __doc__)
    known = ", ".join(sorted(path.stem for path in (experiment.CONF / "table").glob("*.yaml")))
    parser.add_argument("name", help=f"a table of conf/table/ ({known}), or a file that ends with .yaml")
    parser.add_argument(
        "--scale", default="mini", choices=SCALES, help="size of data and networks (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="concurrent runs on one machine (default: %(default)s)")
    parser.add_argument(
        "--launcher",
        default="joblib",
        choices=LAUNCHERS,
        help="local processes, Slurm through Hydra, or a Ray cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--address", default="auto", help="address of Ray's head, host:port (default: this machine's cluster)"
    )
    parser.add_argument("--cpus", type=float, default=1, help="CPUs per run, with Ray (default: %(default)s)")
    parser.add_argument(
        "--gpus", type=float, default=0, help="GPUs per run, with Ray; 0.25 lets four share one (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, help="seeds per cell (default: the table's)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tables"), help="output folder of the runs")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of records and tables (default: results; for your own file, OUTPUT/results)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="OVERRIDE", help="run only these cells, such as dataset=pheme"
    )
    parser.add_argument("--no-run", action="store_true", help="only make the table, from existing records")
    parser.add_argument("override", nargs="*", default=[], help="more overrides for all cells, such as tracker=none")
    args = parser.parse_intermixed_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.no_run and (args.override or args.only):
        raise UserError(f"--no-run makes the table from the runs that it has: leave out "
                        f"{' '.join([*args.override, *(f'--only {only}' for only in args.only)])}")  # fmt: skip
    table = load_table(experiment.CONF, args.name, args.seeds)
    own = is_file(args.name) or experiment.INSTALLED
    results = args.results or (args.output / "results" if own else Path("results"))
    folder = results / args.scale / table.name
    problems, names = [], None
    if args.no_run and is_file(args.name):  # one of conf/table/ has too many cells to compose
        names = runs_kept(table, folder, scale=args.scale, output=args.output)
    if not args.no_run:
        engine = Engine(args.launcher, args.jobs, args.address, args.cpus, args.gpus)
        problems = run_cells(table, folder, engine, scale=args.scale, output=args.output, extra=args.override,
                             only=args.only)  # fmt: skip
    from dropattack.analysis.summary import render  # slow import (1 s), only after the runs

    made = render(table.name, folder, title=table.title, kind=table.kind, x=table.x, y=table.y, seeds=table.seeds,
                  published=results / "reference.yaml", plan=table.plan, names=names)  # fmt: skip
    show(made[0].read_text(encoding="utf-8"))
    print(*made, sep="\n")
    if not args.no_run:
        where = [f"scale={args.scale}", f"paths.output={args.output}"]
        said = [o for o in args.override if o.partition(".")[0].partition("=")[0] in SHOWN]
        publish(made, name=f"table-{table.name}-{args.scale}", kind="table", group=f"table-{table.name}",
                about={"table": table.name, "scale": args.scale}, overrides=[*where, *said])  # fmt: skip
    if problems:
        print(f"{len(problems)} cells of table {table.name} have no finished run:", *problems, sep="\n  ",
              file=sys.stderr)  # fmt: skip
    return int(bool(problems))


def show(table: str) -> None:
    """Print Markdown: laid out on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        print(table)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(table))
