"""Read hand-written YAML files; errors name the file and the line in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropattack.errors import UserError

UNREADABLE = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, RecursionError)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read or is not a mapping.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}; correct it") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a mapping of keys to values; correct it")
    return {str(key): value for key, value in values.items()}


def first_line(error: Exception) -> str:
    """Return the cause of an error in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark) is not None:
        return f"{mark.name}, line {mark.line + 1}: {error.problem}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", lines[0]) if lines else type(error).__name__
