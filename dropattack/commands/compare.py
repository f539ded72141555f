"""Compare finished runs: a table with means, paired differences and their intervals, verdicts, and cost.

    dropattack compare outputs/records
    dropattack compare outputs/records/digits-*.json --baseline dropout --figure gain.svg --curves curves.svg

Runs are grouped by data set and model; methods are paired by seed, and the table names those with seeds that have no
pair. Unfinished and contradicting records are left out and named. A terminal shows a table with rules; a file or a pipe
gets Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, store

if TYPE_CHECKING:
    from dropattack.analysis.records import Records

FORMATS = (".svg", ".png", ".pdf")


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("compare", __doc__)
    add_places(parser)
    parser.add_argument(
        "--baseline", default="none", help="the method to compare the others with (default: %(default)s)"
    )
    parser.add_argument("--figure", type=Path, help=f"write gain against cost to this file ({', '.join(FORMATS)})")
    parser.add_argument("--curves", type=Path, help="write the learning curves to this file")
    parser.add_argument("--csv", type=Path, help="write the numbers at full precision to this file")
    parser.add_argument("--title", default="Difference from {baseline}", help="title of the figure")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    for path in filter(None, (args.figure, args.curves)):
        check_figure(path)
    records = finished(args)
    known = sorted(set(records.frame["method"]))
    if args.baseline not in known:
        raise UserError(f"there is no run of {args.baseline} to compare with; --baseline can be {', '.join(known)}")
    from rich.console import Console

    from dropattack.analysis import curves, formats, summary, tables

    compared = summary.summarize(
        records, None, args.figure, title=args.title.replace("{baseline}", args.baseline), baseline=args.baseline,
        console=Console() if sys.stdout.isatty() else None,
    )  # fmt: skip
    if args.curves:
        title = "Learning curves"
        print(f"Curves   {curves.learning_curves(records.frame, compared, args.curves, title=title)}")
    if args.csv:
        print(f"Numbers  {formats.save(tables.comparison_csv(compared), args.csv)}")
    return 0


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names records, and the folder in which run ids are looked up."""
    parser.add_argument(
        "records", nargs="*", default=["outputs/records"],
        help="records, their run ids, folders of records, or a table's folder in results/ (default: outputs/records)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=Path, default=Path("outputs"), help="look up run ids here (default: %(default)s)"
    )


def finished(args: argparse.Namespace) -> Records:
    """Return the records that `add_places`'s arguments name.

    Raises:
        UserError: none of them is of a finished run.
    """
    places = [Path(name) if Path(name).exists() else store.named(name, args.runs) for name in args.records]
    from dropattack.analysis.records import read_records

    found = read_records(*places)
    if found.frame.empty:
        why = "; ".join(map(str, found.left_out[:3])) or "there is no record"
        raise UserError(f"no finished run in {', '.join(map(str, places[:3]))}: {why}")
    return found


def check_figure(path: Path) -> None:
    """Check the format of a figure before anything is read.

    Raises:
        UserError: another suffix.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: a figure's name ends with one of {', '.join(FORMATS)}")
