"""Draw the learning curves of one or more runs: validation accuracy, and the loss in training and validation.

dropattack curve outputs/records/digits-cnn-none-s0-….json
dropattack curve outputs/records --figure curves.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.compare import add_places, check_figure, finished
from dropattack.commands.parsing import new_parser
from dropattack.runs import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("curve", __doc__)
    add_places(parser)
    parser.add_argument("--figure", type=Path, help="output file (default: curves/<run>.png in the folder of --runs)")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.figure:
        check_figure(args.figure)
    records = finished(args)
    from dropattack.analysis.compare import compare
    from dropattack.analysis.curves import learning_curves

    names = [path.stem for path in records.frame["path"]]
    alone = len(names) == 1
    path = args.figure or args.runs / "curves" / f"{names[0] if alone else 'curves'}.png"
    title = f"Learning curve of {names[0]}" if alone else f"Learning curves of {len(names)} runs"
    print(learning_curves(records.frame, compare(records.frame), path, title=title))
    return 0
