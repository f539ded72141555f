"""The code and machine entries of a record: fixed fields, never the name of a person, host or folder."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

JOBS = "DROPATTACK_JOBS"  # the number of runs at a time, set by what starts them; unknown without it
SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)  # matched against names of variables
PACKAGES = ("torch", "numpy", "accelerate", "transformers", "torchvision", "hydra-core", "safetensors")


def commit() -> dict[str, Any] | None:
    """Return the commit of this project's code, and whether code or configs differ from it; None if unknown.

    An installed package has no commit; its version takes that place, such as `v0.1.0`.

    For a copy on a remote machine, whose repository is missing or older, the variable `DROPATTACK_COMMIT` holds both,
    as the JSON written by `scripts/gpu.py pack`.
    """
    if (declared := _declared_commit()) is not None:
        return declared
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10,
                              check=True).stdout.strip()  # fmt: skip

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a virtual environment may be in another repository
        head = git("rev-parse", "HEAD")
        dirty = bool(git("status", "--porcelain", "--", ".", "../conf"))
        return {"hash": head, "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        # In an installed package, which has conf/ inside, the version names the code.
        return {"hash": f"v{metadata.version('dropattack')}", "dirty": False} if (here / "conf").is_dir() else None


def _declared_commit() -> dict[str, Any] | None:
    with suppress(ValueError):
        declared = json.loads(os.environ.get("DROPATTACK_COMMIT", "null"))
        if isinstance(declared, dict) and {"hash", "dirty"} == set(declared):
            return declared
    return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of a fixed list of packages."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("dropattack", *PACKAGES):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """Return the type of machine, never its name, and how many runs share it. The experiment adds the GPU."""
    jobs = os.environ.get(JOBS)
    return {"system": sys.platform, "machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count(),
            "jobs": int(jobs) if jobs else None}  # fmt: skip


def scrubbed(text: str, folders: Mapping[str, str]) -> str:
    """Return an error message for a record, with this machine's folders and the environment's secrets removed.

    Args:
        text: the message.
        folders: the replacement for each folder, such as `<data>`.
    """
    known = {**folders, os.getcwd(): ".", str(Path.home()): "~", sys.prefix: "<python>"}
    for folder, name in sorted(known.items(), key=lambda item: -len(item[0])):  # innermost first
        if os.path.isabs(folder) and folder != "/":
            text = text.replace(folder, name)
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """Replace the values of the environment's secrets in `text` by their names."""
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
