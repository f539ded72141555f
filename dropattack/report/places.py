"""The generated parts of a page that is otherwise written by hand."""

from collections.abc import Mapping
from pathlib import Path

from dropattack.errors import UserError


def markers(part: str, command: str) -> tuple[str, str]:
    """Return the lines that begin and end a part."""
    return f"<!-- {part}: made by `{command}` -->", f"<!-- end of {part} -->"


def filled(text: str, parts: Mapping[str, str], *, page: Path, command: str) -> str:
    """Return the text of `page` with these parts written again.

    Raises:
        UserError: the page has no place for a part.
    """
    for part, body in parts.items():
        begin, end = markers(part, command)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UserError(f"{page} has no place for the {part}: add a line {begin} and below it a line {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{body.strip()}\n\n{end}{rest.partition(end)[2]}"
    return text
