"""The benchmark runs, and its table agrees with its JSON; speed itself is not tested."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from platform import libc_ver

import pytest
import torch

from benchmarks import methods
from benchmarks import run as bench
from benchmarks.methods import METHODS, Steps
from benchmarks.workloads import WORKLOADS, Setup
from dropattack.errors import UserError
from dropattack.report.cost import main as cost_page
from dropattack.report.cost import markdown, measures, promises, rows

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
MEAN_LENGTHS = {"imdb-lstm": 191.6, "pheme-bigru": 139.6, "agnews-bigru": 43.0, "imdb-minilm": 203.0}  # real data


QUICK = ("--quick", "--device", "cpu", "--output")


def run(output: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.run", *QUICK, str(output), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def entry(passes: int, ratio: float, peak: float) -> dict:
    return {"passes": passes, "seconds": ratio, "samples": [ratio] * 3, "to_plain": ratio, "ratios": [ratio] * 3,
            "peak_mb": peak}  # fmt: skip


@pytest.fixture
def result() -> dict:
    """Return a possible result of a benchmark with one workload."""
    methods = {"plain": {"passes": 1, "seconds": 1.0, "samples": [1.0], "peak_mb": 10.0}}
    methods |= {
        "dropattack": entry(7, 7.07, 20.0),
        "authors-plain": entry(1, 3.5, 40.0),
        "authors": entry(7, 42.42, 80.0),
    }
    cell = {"workload": "imdb-lstm", "vocabulary": 80_000, "batch": 128, "rounds": 3, "memory": True,
            "commit": {"hash": "0123456789abcdef", "dirty": False}, "methods": methods}  # fmt: skip
    machine = {"name": "cpu", "gpu": None, "cpu": "a CPU", "threads": 1, "clock": "cpu time", "allocator": {},
               "versions": {"torch": "2.15.0"}}  # fmt: skip
    missing = {"workload": "imdb-minilm", "vocabulary": 30_522, "skipped": "no weights", "commit": None}
    return {"schema": 1, "quick": False, "machine": machine, "cells": [cell, missing]}


@pytest.mark.parametrize("methods", [["plain", "authors"], pytest.param(list(METHODS), marks=pytest.mark.slow)],
                         ids=["two", "all"])  # fmt: skip
def test_smoke(tmp_path, methods, capsys):
    """The command, in this process; it measures memory in another."""
    output = tmp_path / "bench.json"
    assert bench.main([*QUICK, str(output), "--only", "mnist-lenet", "--rounds", "2", "--methods", *methods]) == 0
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    (cell,) = result["cells"]
    assert list(cell["methods"]) == [name for name in METHODS if name in methods]
    for name, method in cell["methods"].items():
        assert method["seconds"] > 0, name
        assert method["peak_mb"] > 0, name
        # 2 rounds, each with one more of plain than there are others
        assert len(method["samples"]) == (2 if name != "plain" else 2 * len(methods)), name
    assert result["machine"]["threads"] == 1
    assert result["machine"]["allocator"].get("malloc") == (bench.KEPT_MEMORY if libc_ver()[0] == "glibc" else None)
    assert markdown(result) in printed
    assert markdown(result) == output.with_suffix(".md").read_text()
    assert all(f"| {method} " in printed for method in methods)


def test_allocator_is_configured_as_in_training_by_default(monkeypatch):
    told = []
    monkeypatch.setattr(methods, "keep_freed_memory", lambda: told.append(1) or True)
    assert methods.set_up(1, CPU)
    assert not methods.set_up(1, CPU, system_allocator=True)
    assert not methods.set_up(1, torch.device("cuda"))
    assert told == [1]
    asked = bench.arguments(["--system-allocator"])
    assert asked.system_allocator
    assert "malloc" not in bench.describe(CPU)["allocator"]


def test_table(result):
    page = markdown(result)
    line = next(line for line in page.splitlines() if "| dropattack " in line)
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        *("imdb-lstm", "80,000", "128", "dropattack", "7", "7,070.0", "7.07", "1.010", "–", "20", "6.0 ×")
    ]
    assert "no weights" in page
    assert "n = 3 rounds" in page
    assert "0123456789" in page


PAGES = [path for path in sorted((ROOT / "results" / "bench").glob("*.md")) if path.with_suffix(".json").exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_committed_pages_equal_their_json(path):
    assert path.read_text() == markdown(json.loads(path.with_suffix(".json").read_text()))


def test_the_table_of_a_file_that_is_not_there_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cost_page([str(tmp_path / "none.json")])
    assert "none.json: No such file or directory" in capsys.readouterr().err


def test_promises(result):
    assert measures(result["cells"][0]) == pytest.approx({"step": 6.0, "memory": 0.25, "plain step": 3.5})
    held = {what: (measured, met) for what, measured, _, met in promises(result)}
    assert held["DropAttack against the authors' step, IMDB-LSTM, 80,000 words"] == ("6.00", "met")
    assert {met for _, met in held.values()} == {"met"}
    result["cells"][0]["methods"]["dropattack"]["to_plain"] = 7 * 1.08
    assert promises(result)[-1][-1] == "NOT met"
    result["cells"][0] |= {"workload": "mnist-lenet", "vocabulary": None}
    assert promises(result)[-1][1:] == ("1.080", "≤ 1.1", "met")


def test_promise_on_gpu(result):
    names = ("plain", "dropattack", "dropattack-parallel")
    cell = {
        **result["cells"][0],
        "methods": dict(zip(names, (entry(1, 1, 1), entry(3, 3.1, 1), entry(3, 2.2, 1)), strict=True)),
    }
    result["cells"] = [cell]
    assert not [what for what, *_ in promises(result) if "against plain" in what]
    result["machine"]["gpu"] = "a GPU"
    (held,) = [row for row in promises(result) if "against plain" in row[0]]
    assert held[1:] == ("2.20", "≤ 2.3", "met")


@pytest.mark.slow  # compiles
def test_our_steps_in_bf16_and_compiled(tmp_path):
    output = tmp_path / "bench.json"
    options = ("--methods", "dropattack", "--no-memory", "--rounds", "1")
    printed = run(output, "--only", "mnist-lenet", *options, "--precision", "bf16", "--compile", "default")
    assert "bf16, compiled (default)" in printed
    first = json.loads(output.read_text())
    assert set(first["cells"][0]["methods"]) == {"plain", "dropattack"}
    run(output, "--only", "mnist-lenet", *options)
    assert json.loads(output.read_text())["precision"] == "fp32", "another precision is no part of the same table"


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_batches_are_reproducible_and_resemble_the_data(workload):
    vocabulary = None if workload.lengths is None else 10_000
    setup, again = (Setup(workload, vocabulary, 8, CPU) for _ in range(2))
    for bucket in (True, False):
        batches = setup.batches(bucket=bucket)
        assert len(batches) == 4
        for one, other in zip(batches, again.batches(bucket=bucket), strict=True):
            assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
            assert len(one) == 8
    if workload.lengths is None:
        return
    assert float(setup.split.lengths.float().mean()) == pytest.approx(MEAN_LENGTHS[workload.name], rel=0.05)
    cells = {
        bucket: sum(b.inputs["input_ids"].numel() for b in setup.batches(bucket=bucket)) for bucket in (True, False)
    }
    assert cells[True] < cells[False]
    ids, lengths = batches[0].inputs["input_ids"], batches[0].inputs["lengths"]
    assert torch.equal((ids > 0).sum(1), lengths)
    assert ids.max() < vocabulary


def test_arithmetic_beyond_the_floor_is_the_images_gradient(result):
    steps = Steps(Setup(WORKLOADS["mnist-lenet"], None, 2, CPU))
    flops = {method: steps.flops(method) for method in ("plain", "fgm", "freelb", "sam")}
    # For 2 images: 28 × 28 pixels in blocks of 4 × 2, each pixel a sum over 8 × 6 outputs in 6 channels.
    gradient = 2 * 2 * 28 * 28 * 6 * (8 * 6)
    assert flops["sam"] == 2 * flops["plain"]
    assert flops["fgm"] == 2 * flops["plain"] + gradient
    assert flops["freelb"] == 3 * flops["plain"] + 2 * gradient
    assert gradient / flops["plain"] == pytest.approx(0.2, abs=0.01)  # "about a fifth": docs/methods/README.md
    methods = result["cells"][0]["methods"]
    methods["plain"]["flops"], methods["dropattack"]["flops"] = 100, 714
    (row,) = [row for row in rows(result) if row[3] == "dropattack"]
    assert row[7:9] == ("1.010", "1.020")


@pytest.mark.parametrize("name", ["mnist-lenet", "agnews-bigru"])
def test_every_step_trains(name):
    workload = replace(WORKLOADS[name], lengths=WORKLOADS[name].lengths and tuple(range(2, 14)))
    setup = Setup(workload, None if workload.lengths is None else 300, 2, CPU)
    steps = Steps(setup)
    for method in METHODS:
        step, passes = steps.make(method)
        before = [p.detach().clone() for p in steps.side(method).model.parameters()]
        step(0)
        after = list(steps.side(method).model.parameters())
        assert all(p.isfinite().all() for p in after), method
        assert not all(torch.equal(p, q) for p, q in zip(before, after, strict=True)), method
        assert all(p.grad is None for p in after), method
        assert passes >= 1, method


def test_missing_weights_are_reported_not_fatal(tmp_path, monkeypatch, capsys):
    def missing(*_):
        raise UserError("no weights here")

    monkeypatch.setattr(bench, "_measure", missing)
    monkeypatch.setattr(bench, "set_up", lambda *_, **__: False)
    assert (
        bench.main(["--quick", "--only", "mnist-lenet", "--device", "cpu", "--output", str(tmp_path / "b.json")]) == 0
    )
    assert "no weights here" in capsys.readouterr().out


def test_resumes_where_it_was_interrupted(tmp_path, monkeypatch):
    asked = []

    def measure(setup, arguments, done):
        asked.append(setup.workload.name)
        one = {"passes": 1, "seconds": 1.0, "samples": [1.0], "ratios": [1.0]}
        for memory in (False, True):
            yield {"methods": dict.fromkeys(arguments.methods, one), "memory": memory}

    monkeypatch.setattr(bench, "_measure", measure)
    monkeypatch.setattr(bench, "set_up", lambda *_, **__: False)
    output = ["--quick", "--device", "cpu", "--output", str(tmp_path / "b.json"), "--only"]
    bench.main([*output, "mnist-lenet"])
    bench.main([*output, "cifar10-vgg", "mnist-lenet"])
    assert asked == ["mnist-lenet", "cifar10-vgg"]
    bench.main([*output, "mnist-lenet", "--rounds", "7"])
    assert asked[2:] == ["mnist-lenet"]
    assert [cell["workload"] for cell in json.loads((tmp_path / "b.json").read_text())["cells"]] == asked[:2]


def test_a_key_that_came_later_discards_nothing(tmp_path):
    machine = {"cpu": "AMD EPYC", "gpu": None}
    path = tmp_path / "cpu.json"
    path.write_text(json.dumps({"schema": 1, "machine": machine, "quick": False, "cells": [{"workload": "w"}]}))
    found = bench._read(path, {"machine": {**machine, "jobs": None}, "quick": False})
    assert found["cells"] == [{"workload": "w"}]
    assert bench._read(path, {"machine": {**machine, "jobs": 2}, "quick": False})["cells"] == []
