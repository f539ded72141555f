"""Print accuracy, macro-F1 and loss of a trained model, on a split of its data or on a file of your own.

    dropattack evaluate RECORD --split validation
    dropattack evaluate RECORD --data reviews.csv
    dropattack evaluate RECORD --outside

The file is a table (.csv, .tsv, .jsonl or .parquet) with the columns of the training's table, or with `text` (pairs:
and `text_pair`; images: `image`, a file's path relative to the table) and `label`: the name of a class or its number. A
split needs the data set that the model was trained on. `--outside` tests a run on IMDB on rewritten reviews and on
sentences of other reviews; `dropattack outside` does that for many runs, and compares them.
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

    from dropattack.data.labels import names_of

    examples = inputs.texts_of(path, columns, names.text if reader.kind == "text" else [inputs.IMAGE])
    given = inputs.column(path, columns, names.label)
    numbers = [reader.label(str(name).strip()) for name in given]
    if None in numbers:  # in the spelling of the training: 1.0 is 1, and True is true
        numbers = [reader.label(name) for name in names_of(given, f"{path}, column {names.label[0]}")]
    if None in numbers:
        row = numbers.index(None)
        classes = ", ".join(reader.classes[:20]) + " …" * (len(reader.classes) > 20)
        raise UserError(f"{path}, row {row + 1}: {given[row]!r:.80} is not a class; classes: {classes}")
    labels = np.array(numbers, np.int64)
    if reader.kind == "text":
        return reader.texts(examples, labels, inputs.texts_of(path, columns, names.pair) if reader.pairs else None)
    return reader.images([path.parent / name for name in examples], labels)
