"""Import what a GPU run produced into results/."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.gpu.cells import cells_of, read_lines
from dropattack.gpu.plan import RECORDS
from dropattack.gpu.stages import STATUS, StageOutcome
from dropattack.runs import identity, store


def summary(outcomes: Iterable[StageOutcome]) -> str:
    """Return one line per stage."""
    return "\n".join(f"{o.name:<12} {o.state:<12} {o.seconds:7.1f} s" for o in outcomes)


def unpack(source: Path, results: Path, tables: Sequence[str]) -> list[str]:
    """Copy records, measurements and the stages' times to `results`.

    Args:
        source: the stages' output folder, or its archive.
        results: the folder of all results.
        tables: names from conf/table/ whose cells were run.

    Returns:
        One sentence per item imported.

    Raises:
        UserError: `source` does not hold the output of the stages.
    """
    with _folder(source) as folder:
        if not (folder / STATUS).exists():
            raise UserError(f"no {STATUS} in {source}: name the folder or archive that `gpu.py run` wrote")
        said = []
        for path in sorted(folder.glob("*/*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            device = content.get("machine", {}).get("name", "device")
            name = f"{device}-{path.parent.name}{path.suffix}"
            said.append(_copy(path, results / "bench" / name))
            if (page := path.with_suffix(".md")).exists():
                said.append(_copy(page, (results / "bench" / name).with_suffix(".md")))
        said.append(_copy(folder / STATUS, results / "bench" / "gpu-stages.json"))
        return [*said, *_keep(read_lines(folder / "cells" / RECORDS), results, tables)]


def _keep(records: list[dict[str, Any]], results: Path, tables: Sequence[str]) -> Iterator[str]:
    """Add the records to the stores of their scales and to their tables; keep what a table already had."""
    for scale in sorted({found["config"]["scale"]["name"] for found in records}):
        for table in tables:
            folder = results / scale / table
            wanted = {path.stem for path in cells_of([table], scale=scale, output=Path("outputs")).values()}
            own = {identity.name(found["config"], found["run_id"]): found for found in records}
            new = {name: found for name, found in own.items() if name in wanted}
            if not new:
                continue
            before = store.read(results / scale / store.RECORDS)
            kept = [before[key] for key in store.runs_of(folder)] if store.is_table(folder) else []
            store.keep(folder, [*(one for one in kept if identity.name(one["config"], one["run_id"]) not in new),
                                *new.values()])  # fmt: skip
            yield f"{folder}: {len(new)} of {len(wanted)} cells imported"


def _copy(path: Path, to: Path) -> str:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    return str(to)


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive below `folder`.

    `extractall(filter="data")` came with Python 3.10.12 and 3.11.4.

    Raises:
        TarError: a file's name leads out of the folder.
    """
    for member in archive:
        path = folder / member.name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise tarfile.TarError(f"{member.name!r} leads out of the archive's folder")
        if member.isfile() and (content := archive.extractfile(member)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


@contextmanager
def _folder(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(source) as archive:
                _unpack(archive, Path(folder))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:  # a truncated archive, among others
            raise UserError(f"cannot read {source}: {error}") from error
        yield Path(folder)
