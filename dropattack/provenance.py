"""What a record says of the code and the machine: fixed lists of fields, never a name of a person, host or folder."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)  # in the name of a variable
PACKAGES = ("torch", "numpy", "accelerate", "transformers", "torchvision", "hydra-core", "safetensors")


def commit() -> dict[str, Any] | None:
    """The commit of this project's code, and whether the code or the configs differ from it.

    The variable `DROPATTACK_COMMIT`, the JSON that `scripts/gpu.py pack` writes, says both of a copy on a lent
    machine, whose repository is missing or older. None where there is neither.
    """
    if (declared := _declared_commit()) is not None:
        return declared
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10,
                              check=True).stdout.strip()  # fmt: skip

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a virtual environment in someone's repository is not ours
        head = git("rev-parse", "HEAD")
        dirty = bool(git("status", "--porcelain", "--", ".", "../conf"))
        return {"hash": head, "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return None


def _declared_commit() -> dict[str, Any] | None:
    with suppress(ValueError):
        declared = json.loads(os.environ.get("DROPATTACK_COMMIT", "null"))
        if isinstance(declared, dict) and {"hash", "dirty"} == set(declared):
            return declared
    return None


def versions() -> dict[str, str]:
    """Versions of Python and of a fixed list of packages."""
    found = {"python": platform.python_version()}
    for package in ("dropattack", *PACKAGES):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """The machine's kind, never its name. The GPU, if any, is torch's to know: the experiment adds it."""
    return {"system": sys.platform, "machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count()}


def scrubbed(text: str, folders: Mapping[str, str]) -> str:
    """The words of an error as a record may keep them: neither folders of this machine nor secrets of its environment.

    `folders`: the name that stands for each folder, such as `<data>`.
    """
    known = {**folders, os.getcwd(): ".", str(Path.home()): "~", sys.prefix: "<python>"}
    for folder, name in sorted(known.items(), key=lambda item: -len(item[0])):  # the innermost first
        if os.path.isabs(folder) and folder != "/":
            text = text.replace(folder, name)
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """`text` with the names of the environment's secrets in the place of their values."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 8:
            text = text.replace(value, f"<{name}>")
    return text


def _cpu() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
