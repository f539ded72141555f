"""The argument parser of a command."""

from __future__ import annotations

import argparse


def new_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for `dropattack <command>` whose description is the module's docstring, as it is laid out."""
    return argparse.ArgumentParser(
        prog=f"dropattack {command}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
