"""Classify texts or images with a trained model: one line per input, with its label and that label's probability.

    dropattack predict RECORD "A wonderful film." "Two hours that I want back."
    dropattack predict RECORD --file reviews.csv --json
    dropattack predict RECORD --images scans/

RECORD is the record of a finished run (outputs/records/….json) or its run id. The model needs the run's folder,
outputs/checkpoints/<run id>/, and not the data that it was trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands import inputs
from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError, one_line
from dropattack.runs import cli

SHOWN = 80  # characters of a text


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("predict", __doc__)
    inputs.add_model(parser)
    parser.add_argument("text", nargs="*", help="texts to classify")
    parser.add_argument("--file", type=Path, help="texts: one per line, the column `text` of a .csv, or - for stdin")
    parser.add_argument("--images", nargs="+", type=Path, metavar="PLACE", help="image files, or folders of them")
    args = parser.parse_intermixed_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    texts = [*args.text, *(inputs.read_texts(args.file) if args.file else [])]
    images = inputs.image_files(args.images or [])
    if bool(texts) == bool(images):
        raise UserError("name either texts (as arguments, or with --file) or images (with --images)")
    model = inputs.trained(args)
    split = model.reader.texts(texts) if texts else model.reader.images(images)
    for name, row in zip(texts or map(str, images), model.test(split).probabilities.numpy(), strict=True):
        best = int(row.argmax())
        label = model.reader.classes[best]
        if args.json:
            each = dict(zip(model.reader.classes, map(float, row), strict=True))
            print(json.dumps({"input": name, "label": label, "probability": float(row[best]), "probabilities": each},
                             ensure_ascii=False))  # fmt: skip
        else:
            shown = " ".join(name.split())
            shown = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"
            print(f"{label}\t{row[best]:.4f}\t{one_line(shown)}")
    return 0
