"""Measure finished runs beyond accuracy: calibration, gradient norms, flatness, robustness. One line per run.

    dropattack probe outputs/tables/records/mnist-*.json --store results/mini/probes.jsonl

Needs the weights, which are in `checkpoints/` in each run's output folder (`paths.output`). Finished probes are
skipped; an interrupted probe is restarted. `dropattack probe-table` makes tables and figures from the store.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands.each import each
from dropattack.commands.parsing import add_finished_runs, add_store, new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, record, store

if TYPE_CHECKING:
    from dropattack.probes.suite import Options


def main(argv: Sequence[str] | None = None) -> int:
    from dropattack.probes.suite import PROBES, Options

    parser = new_parser("probe", __doc__)
    add_finished_runs(parser, "records of finished runs, folders of records, or a table's folder")
    add_store(parser)
    parser.add_argument("--only", default=",".join(PROBES), help="comma-separated probes (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="concurrent runs (default: %(default)s)")
    for field in fields(Options):  # rows, batches, split, seed, …
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default,
                            help=f"{field.metadata['help']} (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    from dropattack.probes.suite import PROBES, Options, missing, result_of

    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in PROBES]:
        raise UserError(f"there is no probe {unknown[0]!r}; probes: {', '.join(PROBES)}")
    options = Options(**{field.name: getattr(args, field.name) for field in fields(Options)})
    paths = {path.stem: path for path in store.places(args.records, args.runs, args.match)}
    results: dict[str, list[float | None]] = {}
    for run, path in paths.items():  # a wrong path is an error before anything is measured
        if (found := record.read(path))["status"] == "finished":  # `restore` says what is wrong with others
            results[run] = result_of(found)
    places = {"data": args.data, "output": args.runs, "device": args.device}
    todo = {run: wanted for run in paths if run not in results} | missing(args.store, results, wanted, options)
    calls = {run: partial(one, paths[run], args.store, names, options, **places) for run, names in todo.items()}
    code = each(calls, args.jobs)
    if args.store.exists():
        print(args.store)
    return code


def one(
    path: Path, to: Path, names: list[str], options: Options, *, data: Path, output: Path | None, device: str
) -> None:  # fmt: skip
    """Probe one run."""
    from dropattack.probes.suite import probe
    from dropattack.runs.restore import restore

    probe(restore(path, data=data, output=output, device=device), to, names, options)
