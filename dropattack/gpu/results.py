"""What came back from a GPU, put where the tables look for it."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dropattack.errors import UserError
from dropattack.gpu.cells import read_lines
from dropattack.gpu.plan import RECORDS
from dropattack.gpu.stages import STATUS, Outcome
from dropattack.runs import record


def summary(outcomes: Iterable[Outcome]) -> str:
    """One line per stage."""
    return "\n".join(f"{o.name:<12} {o.state:<12} {o.seconds:7.1f} s" for o in outcomes)


def unpack(source: Path, results: Path) -> list[str]:
    """Put records, measurements and the stages' times below `results`.

    Returns:
        One sentence per thing that was put there.

    Raises:
        UserError: `source` holds nothing that the stages wrote.
    """
    with _folder(source) as folder:
        if not (folder / STATUS).exists():
            raise UserError(f"{source} holds no {STATUS}: name the folder or the archive that `gpu.py run` wrote")
        said = []
        for path in sorted(folder.glob("*/*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            device = content.get("machine", {}).get("name", "device")
            name = f"{device}-{path.parent.name}{path.suffix}"
            said.append(_copy(path, results / "bench" / name))
            if (page := path.with_suffix(".md")).exists():
                said.append(_copy(page, (results / "bench" / name).with_suffix(".md")))
        said.append(_copy(folder / STATUS, results / "bench" / "gpu-stages.json"))
        records = read_lines(folder / "cells" / RECORDS)
        for found in records:
            record.write(_place(found, results), found)
        return [*said, f"{len(records)} records"]


def _place(found: dict, results: Path) -> Path:
    config = found["config"]
    cell = "-".join(str(config[group]["name"]) for group in ("dataset", "model", "reg"))
    name = f"{cell}-s{config['seed']}-{found['run_id']}.json"
    return results / config["scale"]["name"] / "paper" / "records" / name


def _copy(path: Path, to: Path) -> str:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    return str(to)


@contextmanager
def _folder(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{source} cannot be read: {error}") from error
        yield Path(folder)
