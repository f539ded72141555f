"""The whole command on a CPU at smoke scale: cut off, resumed, bundled, and imported into results."""

import io
import json
import random
import subprocess
import sys
import tarfile
from importlib import util
from pathlib import Path

import pytest

from dropattack.errors import UserError
from dropattack.gpu import plan, results, stages
from dropattack.gpu.cells import cells_of
from dropattack.runs import experiment, record, store

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--device", "cpu", "--scale", "smoke", "--tables", "rehearsal", "--jobs", "1")


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/gpu.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def finished(cell: tuple[str, ...], accuracy: float) -> dict:
    result = {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.1}
    blank = record.blank(experiment.Run.asked(cell).config)
    return {**blank, "status": "finished", "test": result, "validation": {**result, "epoch": 1}}


def test_records_of_an_archive_are_imported_into_their_table(tmp_path):
    out, archive, to = tmp_path / "out", tmp_path / "results.tar.gz", tmp_path / "results"
    cells = list(cells_of(["rehearsal"], scale="smoke", output=Path("outputs")))
    (out / "cells").mkdir(parents=True)
    (out / stages.STATUS).write_text('{"stages": []}')
    for part, accuracy in ((cells, 0.5), (cells[:1], 0.75)):
        lines = (record.dumps(finished(cell, accuracy)) + "\n" for cell in part)
        (out / "cells" / plan.RECORDS).write_text("".join(lines))
        assert stages.bundle(out, archive) == []
        said = results.unpack(archive, to, ["rehearsal"])
        assert said[-1].endswith(f"{len(part)} of 4 cells imported")
    kept = store.read(to / "smoke" / store.RECORDS)
    assert sorted(found["test"]["accuracy"] for found in kept.values()) == [0.5, 0.5, 0.5, 0.75]
    assert sorted(kept) == sorted(store.runs_of(to / "smoke" / "rehearsal"))


@pytest.mark.parametrize("name", ["../out.json", "cells/../../out.json", "/out.json"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(name, tmp_path):
    archive = tmp_path / "results.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        info = tarfile.TarInfo(name)
        info.size = 2
        made.addfile(info, io.BytesIO(b"{}"))
    with pytest.raises(UserError, match="leads out of the archive's folder"):
        results.unpack(archive, tmp_path / "results", ["rehearsal"])


def test_a_truncated_archive_is_refused(tmp_path):
    archive = tmp_path / "results.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        info = tarfile.TarInfo(stages.STATUS)
        info.size = 50_000
        made.addfile(info, io.BytesIO(random.Random(0).randbytes(info.size)))
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(UserError, match="cannot read"):
        results.unpack(archive, tmp_path / "results", ["rehearsal"])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cells_are_restricted_and_a_gpu_needs_no_pinned_cpu_kernels(device, tmp_path, monkeypatch):
    spec = util.spec_from_file_location("gpu_script", ROOT / "scripts" / "gpu.py")
    script = util.module_from_spec(spec)
    spec.loader.exec_module(script)
    ran = []
    monkeypatch.setattr("dropattack.runs.checks.may_have_gpu", lambda: True)
    monkeypatch.setattr(script.cells, "run_cells", lambda wanted, **_: ran.extend(wanted) or 0)
    monkeypatch.setattr(sys, "argv", [
        "gpu.py", "cells", "--to", str(tmp_path), "--device", device, "--scale", "smoke", "--tables", "rehearsal",
        "--jobs", "1", "--only", "reg=fgm", "--only", "seed=1",
    ])  # fmt: skip
    assert script.main() == 0
    (cell,) = ran
    assert {"reg=fgm", "seed=1"} <= set(cell)
    assert ("trainer.kernels=native" in cell) == (device == "cuda")


@pytest.mark.slow  # the parts: test_stages.py, and the import above
def test_cut_off_cells_resume_and_are_imported(tmp_path):
    out, archive = tmp_path / "out", tmp_path / "results.tar.gz"
    first = gpu("run", *SMALL, "--to", str(out), "--only", "cells", "--budget", "2")
    assert "cut off" in first.stdout, first.stdout + first.stderr
    again = gpu("run", *SMALL, "--to", str(out), "--only", "cells", "--budget", "200", "--archive", str(archive))
    assert again.returncode == 0, again.stdout + again.stderr
    lines = (out / "cells" / plan.RECORDS).read_text().splitlines()
    assert len({json.loads(line)["run_id"] for line in lines}) == len(lines) == 4
    said = results.unpack(archive, tmp_path / "results", ["rehearsal"])
    assert said[-1].endswith("4 of 4 cells imported")
    assert len(store.read(tmp_path / "results" / "smoke" / store.RECORDS)) == 4
    assert results.unpack(archive, tmp_path / "results", ["rehearsal"]) == said, "twice is the same"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_runs(tmp_path):
    out = tmp_path / "out"
    ran = gpu("run", *SMALL, "--to", str(out), "--budget", "500")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    states = {entry["name"]: entry["state"] for entry in json.loads((out / stages.STATUS).read_text())["stages"]}
    assert set(states.values()) == {"done"}
    assert {"start", "tests", "cost-fp32", "many", "rnn-input", "cost-bf16", "cells", "cost-graphs"} == set(states)
    said = results.unpack(out, tmp_path / "results", ["rehearsal"])
    assert sum("bench" in line for line in said) >= 6


def test_uses_the_measured_concurrency(tmp_path):
    assert plan.concurrency(tmp_path) == (2, False)
    for name, mps, at_once in (("many", False, [1.0, 4.0]), ("many-mps", True, [1.0, 1.5])):
        (tmp_path / name).mkdir()
        cells = [{"runs": n, "steps": 10, "at_once": s, "mps": mps} for n, s in zip((1, 8), at_once, strict=True)]
        (tmp_path / name / "many.json").write_text(json.dumps({"cells": cells}))
    assert plan.concurrency(tmp_path) == (8, True)


def test_rejects_folder_without_results(tmp_path):
    with pytest.raises(UserError, match=r"no stages\.json in"):
        results.unpack(tmp_path, tmp_path / "results", ["rehearsal"])
