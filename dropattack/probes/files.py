"""Reading the JSON files that probes and landscapes write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dropattack.errors import UserError

SCHEMA = 1


def read(path: Path, what: str, key: str) -> dict[str, Any]:
    """Read a JSON file of the current schema.

    Args:
        path: the file.
        what: kind of file, such as `landscape`, for the error message.
        key: must be present.

    Raises:
        UserError: the file is missing, unreadable or not of this kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a {what} ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or key not in content:
        raise UserError(f"{path} is not a {what} of this version")
    return content
