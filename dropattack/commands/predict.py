"""Classify texts or images with a trained model: one line per input, with its label and that label's probability.

    dropattack predict RECORD "A wonderful film." "Two hours that I want back."
    dropattack predict RECORD --file reviews.csv --json
    dropattack predict RECORD "A man is eating." --pair "Somebody eats."
    dropattack predict RECORD --images scans/

RECORD is the record of a finished run (outputs/records/….json) or its run id. The model needs the run's folder,
outputs/checkpoints/<run id>/, and not the data that it was trained on. A table's columns have the names of the
training's table, or are called `text` and `text_pair`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands import inputs
from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError, one_line
from dropattack.runs import cli, record

SHOWN = 80  # characters of a text


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("predict", __doc__)
    inputs.add_model(parser)
    parser.add_argument("text", nargs="*", default=[], help="texts to classify")
    parser.add_argument("--file", type=Path, help=f"texts: one per line, a table ({inputs.ALL}), or - for stdin")
    parser.add_argument("--pair", action="append", help="the second text of a pair; once for each text")
    parser.add_argument("--images", nargs="+", type=Path, metavar="PLACE", help="image files, or folders of them")
    args = parser.parse_intermixed_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    images = inputs.image_files(args.images or [])
    texts, pairs = list(args.text), list(args.pair or ())
    if args.file:
        columns = inputs.Columns.of(record.read(inputs.record_of(args))["config"])
        more, more_pairs = inputs.read_texts(args.file, columns)
        texts, pairs = [*texts, *more], [*pairs, *more_pairs]
    if bool(texts) == bool(images):
        raise UserError("name either texts (as arguments, or with --file) or images (with --images)")
    model = inputs.trained(args)
    if not (model.reader.pairs or args.pair):
        pairs = []  # a column that this model does not read
    if pairs and len(pairs) != len(texts):
        raise UserError(f"there are {len(texts)} texts and {len(pairs)} second texts: name --pair once for each text")
    split = model.reader.texts(texts, pairs=pairs or None) if texts else model.reader.images(images)
    given = list(zip(texts, pairs, strict=True)) if pairs else [(name,) for name in texts or map(str, images)]
    for names, row in zip(given, model.test(split).probabilities.numpy(), strict=True):
        best = int(row.argmax())
        label = model.reader.classes[best]
        if args.json:
            each = dict(zip(model.reader.classes, map(float, row), strict=True))
            said = names[0] if len(names) == 1 else names
            print(json.dumps({"input": said, "label": label, "probability": float(row[best]), "probabilities": each},
                             ensure_ascii=False))  # fmt: skip
        else:
            print(label, f"{row[best]:.4f}", *map(shown, names), sep="\t")
    return 0


def shown(text: str) -> str:
    """Return the beginning of a text, on one line."""
    words = " ".join(text.split())
    return one_line(words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…")
