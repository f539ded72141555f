"""The JSON files that probes and landscapes leave, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dropattack.errors import UserError

SCHEMA = 1  # of both


def read(path: Path, what: str, key: str) -> dict[str, Any]:
    """A file of this version that has `key`; `what` it should be, such as `landscape`, is for the error.

    Raises:
        UserError: there is none, or it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a {what} ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or key not in content:
        raise UserError(f"{path} is no {what} of this version")
    return content
