"""Test finished IMDB runs on sets outside IMDB, and compare the methods there.

    dropattack outside results/midi/midi --runs outputs/tables
    dropattack outside results/midi/midi --no-run              the tables alone, from results/

The sets are reviews that people rewrote so that their label flips (imdb_counterfactual, imdb_contrast) and sentences of
other reviews (MR, SST-2). Needs the weights, which every run keeps in `checkpoints/` in its output folder, and runs
with dataset.drop_rewritten=true, which scale=midi sets. Each run's results go to `outside/` in its output folder;
finished ones are skipped. All go to <results>/<scale>/outside.jsonl, and the tables to <results>/<scale>/outside/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands.each import each
from dropattack.commands.parsing import add_finished_runs, add_results, new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, record, store

if TYPE_CHECKING:
    from dropattack.data.outside import OutsideSet


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("outside", __doc__)
    help_records = "records of finished runs, folders of records, or a table's folder"
    add_finished_runs(parser, help_records, match="imdb-*", data="--data-folder")
    add_results(parser)
    parser.add_argument("--jobs", type=int, default=2, help="concurrent runs (default: %(default)s)")
    parser.add_argument("--no-run", action="store_true", help="only make the tables, from existing results")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    code = 0 if args.no_run else evaluate(args)
    from dropattack.analysis.outside import render  # slow import (1 s), only after the runs
    from dropattack.analysis.records import read_records
    from dropattack.runs.outside import DATASET, STORE, stored

    if absent := [str(place) for place in args.records if not place.exists()]:
        raise UserError(f"there are no records at {absent[0]}")
    frame = read_records(*args.records).frame
    runs = frame[frame["dataset"] == DATASET]
    if runs.empty and not code:
        raise UserError(f"there is no finished run on {DATASET} in {', '.join(map(str, args.records))}")
    for scale, own in runs.groupby("scale"):
        path = args.results / str(scale) / STORE
        if found := stored(path):
            print(path, *render(own, found, path.with_suffix("")), sep="\n")
        elif not code:
            raise UserError(f"{path} is missing: run dropattack outside without --no-run")
    return code


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate the runs that have no results yet, and add all results to the store of each run's scale."""
    from dropattack.commands.inputs import check_device
    from dropattack.data.outside import load
    from dropattack.runs import outside

    paths = store.places(args.records, args.runs, args.match)
    check_device(args.device)
    sets, calls, made = load(args.data_folder), {}, {}
    for path in paths:
        found, file = record.read(path), outside.path_of(path, args.runs)
        made[file] = str(found["config"]["scale"]["name"])
        if not outside.is_done(file, found, sets):
            calls[path.stem] = partial(one, path, file, sets, args.data_folder, args.runs, args.device)
    code = each(calls, args.jobs)
    for scale in sorted(set(made.values())):
        files = [file for file, own in made.items() if own == scale and file.exists()]
        outside.gather(args.results / scale / outside.STORE, map(outside.read, files))
    return code


def one(
    path: Path, file: Path, sets: Sequence[OutsideSet], data: Path, runs: Path | None, device: str
) -> None:  # fmt: skip
    """Evaluate one run."""
    from dropattack.runs import outside

    found, results = outside.results_of(path, sets, data=data, output=runs, device=device)
    outside.write(file, found, results)
