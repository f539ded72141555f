"""Train one model, and write its record: `dropattack run dataset=imdb model=lstm reg=dropattack`. See `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hydra

from dropattack.runs import cli, experiment


def main(argv: Sequence[str] | None = None, *, program: str = "dropattack run", sweep: bool = False) -> int:
    """Run the command line; `sweep` adds --multirun."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sweep and not {"-m", "--multirun"} & set(arguments):
        arguments = ["--multirun", *arguments]
    sys.argv[1:] = arguments  # Hydra reads them there
    composed = hydra.main(version_base="1.3", config_path=str(experiment.CONF), config_name="config")(cli.execute)
    return cli.main(composed, arguments, program=program)
