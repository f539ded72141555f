"""Write a trained encoder (model=bert, model=hf) as a Hugging Face model.

    dropattack export RECORD FOLDER

The folder is loaded with `AutoModelForSequenceClassification.from_pretrained(FOLDER)` and
`AutoTokenizer.from_pretrained(FOLDER)`; its logits are compared with the model's before the command ends. The training
replaced `<br />` in texts by a space, which Hugging Face's tokenizer does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dropattack.commands import inputs
from dropattack.commands.parsing import new_parser
from dropattack.runs import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("export", __doc__)
    inputs.add_model(parser, printing=False)
    parser.add_argument("folder", type=Path, help="the folder to write, which must be new or empty")
    args = parser.parse_args(argv)

    def run() -> int:
        model = inputs.trained(args)
        from dropattack.runs.export import export

        print(export(model, args.folder))
        return 0

    return cli.guarded(run)
