"""Choose every method's settings on validation: `make tune TABLE=midi SCALE=midi`.

Searches the settings that conf/tune/<scale>.yaml lists for each data set, model and method of a table, on seeds that
are not among the reported ones. Writes the best settings to conf/settings/tuned/ (used by `settings=tuned`) and all
trials to results/tuning/. With --recipe it searches the recipe of plain training instead, and writes it to
conf/recipe/, where all runs of that scale take it from. Finished trials are not repeated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, experiment
from dropattack.runs.config import compose
from dropattack.runs.resolvers import SCALES
from dropattack.sweeps import tuning
from dropattack.sweeps.search import Search
from dropattack.sweeps.table import load_table


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("tune", __doc__)
    parser.add_argument("table", help="a table of conf/table/ or a .yaml file, whose grids name dataset, model and reg")
    parser.add_argument(
        "--scale", default="midi", choices=SCALES, help="size of data and networks (default: %(default)s)"
    )
    parser.add_argument("--recipe", action="store_true", help="search the recipe of plain training")
    parser.add_argument("--dataset", action="append", default=[], help="search only this data set (repeatable)")
    parser.add_argument("--reg", action="append", default=[], help="search only this method (repeatable)")
    parser.add_argument(
        "--repeat", type=int, default=0, metavar="N", help="repeat the search with other points and seeds"
    )
    parser.add_argument("--jobs", type=int, default=2, help="concurrent trials (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/tuning"))
    parser.add_argument("--results", type=Path, default=Path("results/tuning"))
    parser.add_argument(
        "--conf", type=Path,
        help="folder of the chosen settings, and of your own plan in tune/ (default: conf/ of this checkout)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    conf = args.conf or experiment.CONF
    if experiment.INSTALLED and args.conf is None:
        raise UserError("name a folder for the chosen settings with --conf: an installed package keeps its own")
    table = load_table(experiment.CONF, args.table)
    for base in tuning.tuned_cells(table).values():  # report a cell that cannot be run before a missing plan
        compose(experiment.CONF, base)
    plan = tuning.planned(plan_file(args.conf, args.scale))
    search = Search(plan, args.scale, args.output, args.results, conf, args.jobs, args.repeat)
    if args.recipe:
        return int(not search.recipes(table, set(args.dataset)))
    only = {key: set(values) for key, values in (("dataset", args.dataset), ("reg", args.reg)) if values}
    return int(not search.methods(table, only))


def plan_file(conf: Path | None, scale: str) -> Path:
    """Return the plan of a scale: that of the user's own folder, if it has one, otherwise that of this project."""
    name = Path("tune", f"{scale}.yaml")
    own = None if conf is None else conf / name
    return experiment.CONF / name if own is None or not own.is_file() else own
