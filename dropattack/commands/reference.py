"""Fit linear models on the rows of a table's data sets: `dropattack reference midi --scale midi`.

Writes results/<scale>/references.json, from which the tables take the rows "bag of words", "linear" and "neighbours".
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropattack import provenance
from dropattack.analysis.encoders import dataset_label
from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.files import write_atomically
from dropattack.runs import build, cli, experiment, identity
from dropattack.runs.config import cells
from dropattack.runs.experiment import Run
from dropattack.runs.resolvers import SCALES
from dropattack.sweeps.table import load_table


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("reference", __doc__)
    parser.add_argument("table", help="a name of conf/table/, or a file of your own")
    parser.add_argument(
        "--scale", default="midi", choices=SCALES, help="size of data and networks (default: %(default)s)"
    )
    parser.add_argument("--dataset", action="append", default=[], help="only this data set (repeatable)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="OVERRIDE",
        help="only the cells with it, such as dataset.task=rte",
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    from dropattack.data.reference import references

    path = args.results / args.scale / "references.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, config in _data_sets(args).items():
        dataset = build.read_data(config)
        if isinstance(dataset, Path):
            raise UserError(f"{dataset} holds encoded rows; point DROPATTACK_DATA at a folder with the texts")
        sizes = {split: len(rows) for split, rows in dataset.splits.items()}
        facts = {"fingerprint": dataset.fingerprint, "sizes": sizes, "versions": provenance.versions()}
        known[name] = {**facts, "models": references(dataset)}
        for model, found in known[name]["models"].items():
            accuracies = (f"{split} {100 * found[split]['accuracy']:.2f}" for split in ("validation", "test"))
            print(f"{name}, {model}: {', '.join(accuracies)} ({found['setting']})", flush=True)
        write_atomically(path, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
    return 0


def _data_sets(args: argparse.Namespace) -> dict[str, Mapping[str, Any]]:
    """Return a config of each data set of the table, by its name in tables.

    Raises:
        UserError: the table has no such data set, or several of one name.
    """
    table = load_table(experiment.CONF, args.table)
    every = [cell for grid in table.grids for cell in cells(grid) if set(args.only) <= set(cell)]
    found: dict[str, Mapping[str, Any]] = {}
    cell_of: dict[str, list[str]] = {}
    for cell in every:
        config = Run.asked([f"scale={args.scale}", *cell]).config
        name = dataset_label(config["dataset"])
        if args.dataset and not {name, config["dataset"]["name"]} & set(args.dataset):
            continue
        first = found.setdefault(name, config)
        own = [override for override in cell if override not in cell_of.setdefault(name, cell)]
        if identity.of(config)["dataset"] != identity.of(first)["dataset"]:
            raise UserError(f"{name} stands for several data sets of table {args.table}; name one of them, such as "
                            + " ".join(f"--only {override}" for override in own))  # fmt: skip
    if not found:
        named = " and ".join([*args.dataset, *args.only])
        raise UserError(f"table {args.table} has no cell with {named}")
    return found
