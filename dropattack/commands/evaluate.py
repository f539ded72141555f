"""Print accuracy, macro-F1 and loss of a trained model, on a split of its data or on a file of your own.

    dropattack evaluate RECORD --split validation
    dropattack evaluate RECORD --data reviews.csv
    dropattack evaluate RECORD --outside

The file is a table (.csv, .tsv, .jsonl or .parquet) with the columns of the training's table, or with `text` (pairs:
and `text_pair`; images: `image`, a file's path relative to the table) and `label`: in all rows the
name of a class, or in all rows its number from 0. A split needs the data set that the model was trained on. `--outside`
tests a run on IMDB on rewritten reviews and on sentences of other reviews; `dropattack outside` does that for many
runs, and compares them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropattack.commands import inputs
from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli

if TYPE_CHECKING:
    from dropattack.data.types import TensorSplit
    from dropattack.runs.reader import Reader


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("evaluate", __doc__)
    inputs.add_model(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--split", default="test", choices=("train", "validation", "test"), help="default: %(default)s")
    chosen.add_argument("--data", type=Path, metavar="TABLE", help="instead of a split, examples with their labels")
    chosen.add_argument("--outside", action="store_true", help="instead of a split, sets outside IMDB")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.outside:
        return outside(args)
    found = of_file(args) if args.data else of_split(args)
    if args.json:
        print(json.dumps(found))
    else:
        print(*(f"{name:<9} {value:.4f}" for name, value in found.items() if name != "rows"), sep="\n")
        print(f"{'rows':<9} {found['rows']}")
    return 0


def outside(args: argparse.Namespace) -> int:
    """Evaluate on the sets outside IMDB, and print the accuracy on each part of each set."""
    from dropattack.data.outside import load
    from dropattack.runs.outside import results_of

    path = inputs.record_of(args)
    inputs.check_device(args.device)
    sets = load(args.data_folder)
    _, found = results_of(path, sets, data=args.data_folder, output=args.runs, device=args.device)
    parts = {name: {part: {key: one[key] for key in ("accuracy", "rows")} for part, one in result.items()
                    if part != "fingerprint"} for name, result in found.items()}  # fmt: skip
    if args.json:
        print(json.dumps(parts))
        return 0
    for name, result in parts.items():
        for part, one in result.items():
            print(f"{name:<20} {part:<9} {one['accuracy']:.4f} of {one['rows']:>6}")
    return 0


def of_split(args: argparse.Namespace) -> dict[str, float]:
    """Evaluate on a split of the run's own data set."""
    path = inputs.record_of(args)
    inputs.check_device(args.device)
    from dropattack.runs.restore import restore
    from dropattack.training.evaluate import evaluate

    run = restore(path, data=args.data_folder, output=args.runs, device=args.device)
    rows = len(run.split(args.split))
    return {**evaluate(run.model, run.batches(args.split), classes=run.encoded.spec.classes), "rows": rows}


def of_file(args: argparse.Namespace) -> dict[str, float]:
    """Evaluate on the rows of a CSV file."""
    columns = inputs.read_table(args.data)
    model = inputs.trained(args)
    split = labelled(args.data, columns, model.reader, inputs.Columns.of(model.record["config"]))
    return {**model.test(split).metrics, "rows": len(split)}


def labelled(path: Path, columns: Mapping[str, Sequence[object]], reader: Reader, names: inputs.Columns) -> TensorSplit:
    """Return the rows of a table as tensors.

    Raises:
        UserError: a column is missing, or a label is not a class.
    """
    import numpy as np

    examples = inputs.texts_of(path, columns, names.text if reader.kind == "text" else [inputs.IMAGE])
    given = inputs.column(path, columns, names.label)
    labels = np.array(class_numbers(path, given, reader.classes, names.label[0]), np.int64)
    if reader.kind == "text":
        return reader.texts(examples, labels, inputs.texts_of(path, columns, names.pair) if reader.pairs else None)
    return reader.images([path.parent / name for name in examples], labels)


def class_numbers(path: Path, given: Sequence[object], classes: Sequence[str], column: str) -> list[int]:
    """Return the class of each row, given a column that has either names of classes or their numbers.

    Raises:
        UserError: a label is missing or is not a class, or names and numbers are mixed.
    """
    from dropattack.data.labels import names_of

    written = [str(value).strip() for value in given]
    by_name = {name: number for number, name in enumerate(classes)}
    if all(name in by_name for name in written):
        return [by_name[name] for name in written]
    # In the spelling of the training: 1.0 is 1, and True is true.
    spelled = names_of(given, f"{path}, column {column}")
    named = [by_name.get(name, by_name.get(other)) for name, other in zip(written, spelled, strict=True)]
    by_number = {str(number): number for number in range(len(classes))}
    numbered = [by_number.get(name) for name in spelled]
    found = numbered if set(named) == {None} else named
    if None in found:
        row = found.index(None)
        known = ", ".join(classes[:20]) + " …" * (len(classes) > 20)
        raise UserError(
            f"{path}, row {row + 1}: {given[row]!r:.80} is not a class; classes: {known} (in all rows by name, or in "
            "all rows by number, from 0)"
        )
    return [number for number in found if number is not None]
