"""The argument parser of a command, and the options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from dropattack.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the project are, and not preceded by the usage."""

    def error(self, message: str) -> NoReturn:
        """Write the error and where to read more, and exit with 2."""
        self.exit(2, f"error: {message}; `{self.prog} --help` explains\n")


def new_parser(command: str, doc: str | None) -> Parser:
    """Return a parser for `dropattack <command>` whose description is the module's docstring, as it is laid out."""
    return Parser(prog=f"dropattack {command}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_finished_runs(parser: argparse.ArgumentParser, records: str, match: str = "*", data: str = "--data") -> None:
    """Add the options that name finished runs, whose networks are restored; `records` describes the first."""
    parser.add_argument("records", nargs="+", type=Path, help=records)
    parser.add_argument(
        "--match", default=match, help="only runs of a folder whose name matches, such as mnist-cnn-* (default: all)"
        if match == "*" else "only runs of a folder whose name matches (default: %(default)s)"
    )  # fmt: skip
    add_places(parser, "the runs' output folder (default: the parent of the records' folder)", data)


def add_places(parser: argparse.ArgumentParser, runs: str, data: str) -> None:
    """Add `--runs`, described by `runs`, the option `data` (a folder), and `--device`."""
    parser.add_argument("--runs", type=Path, help=runs)
    parser.add_argument(
        data, type=Path, default=Path(os.environ.get("DROPATTACK_DATA", "data")),
        help="the folder of data sets (default: DROPATTACK_DATA, or data)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add `--store`, the file of the values of probes and landscapes."""
    parser.add_argument(
        "--store", type=Path, default=Path("outputs/probes.jsonl"), help="file of values (default: %(default)s)"
    )


def add_tracker(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where tables and figures are tracked."""
    parser.add_argument("--tracker", default="wandb", choices=("wandb", "trackio", "none"))
    parser.add_argument("--group", help="group in the dashboard (default: <dataset>-<model>-<scale>)")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add `--results`, the folder that `check_results` checks."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")


def check_results(results: Path) -> None:
    """Check that the folder exists.

    Raises:
        UserError: it does not.
    """
    if not results.is_dir():
        raise UserError(f"there is no folder {results}: pass the one with the records as --results")
