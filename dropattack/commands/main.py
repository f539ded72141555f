"""The command `dropattack`: find the subcommand, run it, and end quietly.

Only the standard library is imported here, so that `dropattack --help` and a wrong name are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from dropattack import __version__
from dropattack.files import leave_stdout

COMMANDS = {
    "Train": {
        "run": "train one model, and write its record",
        "sweep": "train every combination of several values",
        "demo": "compare six methods on two data sets that need no download (five minutes)",
    },
    "Compare": {
        "compare": "a table of finished runs: means, paired differences, verdicts, cost; figures",
        "curve": "the learning curves of runs",
        "table": "run the missing cells of a table, and write it",
        "tune": "choose each method's settings on validation",
        "reference": "fit linear models on a table's rows, as a floor for its networks",
        "claims": "decide the claims of the papers from the records",
        "report": "all results as one HTML page",
    },
    "Use": {
        "predict": "classify texts or images with a trained model",
        "evaluate": "accuracy, macro-F1 and loss of a trained model",
        "export": "write a trained encoder as a Hugging Face model",
    },
    "Measure": {
        "outside": "test IMDB runs on rewritten reviews and on sentences of other reviews",
        "probe": "flatness, gradients, robustness and calibration of trained models",
        "probe-table": "tables and figures of what `probe` measured",
        "landscape": "the loss around trained models",
    },
    "Prepare": {
        "data": "download a data set",
        "wandb-report": "a W&B report of tables that were logged there",
    },
}
NAMES = [name for group in COMMANDS.values() for name in group]
SIGPIPE = 141  # as a shell reports a program whose reader has gone


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 2 bad input, 128 + n stopped by signal n (130: Ctrl-C), 1 anything else.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            code = _dispatch(arguments)
        except SystemExit as end:  # argparse, after --help or a wrong option
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        sys.stdout.flush()
    except BrokenPipeError:
        leave_stdout()
        return SIGPIPE
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"dropattack {__version__}")
        return 0
    name, *rest = arguments
    if name not in NAMES:
        from dropattack.runs.nearest import nearest

        print(
            f"error: there is no command {name!r:.80}{nearest(name, NAMES)}; commands: {', '.join(NAMES)}",
            file=sys.stderr,
        )
        return 2
    try:
        return import_module(f"dropattack.commands.{name.replace('-', '_')}").main(rest)
    except ModuleNotFoundError as error:
        from dropattack.errors import missing_package

        if (missing := missing_package(error)) is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        return 2


def help_text() -> str:
    """Return the text of `dropattack --help`."""
    lines = ["Adversarial training as a regularizer: train, compare, and use what was trained.", "",
             "  dropattack COMMAND …        dropattack COMMAND --help explains one", ""]  # fmt: skip
    for group, commands in COMMANDS.items():
        lines += [f"{group}:", *(f"  {name:<14}{about}" for name, about in commands.items()), ""]
    lines += [
        "Examples:",
        "  dropattack sweep dataset=digits model=cnn reg=none,fgm seed=0,1,2 scale=smoke tracker=none",
        "  dropattack compare outputs/records",
        "  dropattack predict RECORD --images FILE",
        "",
        "Runs write below outputs/ (paths.output=DIR). `table`, `outside`, `claims`, `reference` and `report` write to",
        "results/ (`table` of a file of your own: to outputs/results/), `tune` to conf/ and results/tuning/, `data` to",
        "data/; --help of each names the option that changes it.",
        "Exit codes: 0 done, 2 bad input, 128 + n stopped by signal n (130: Ctrl-C; the same command resumes),",
        "1 anything else.",
    ]
    return "\n".join(lines) + "\n"
