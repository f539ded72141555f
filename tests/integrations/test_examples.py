"""Every example trains, and says what it found."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
RUNS = [
    ("plain", {}), ("amp", {}), ("amp", {"precision": "fp16"}), ("accumulation", {}),
    ("compiled", {"backend": "aot_eager"}), ("accelerate_loop", {}),
    ("accelerate_loop", {"precision": "bf16", "accumulate": 2}), ("hf_trainer", {"batch_size": 4, "accumulate": 2}),
    ("lightning_module", {"precision": "bf16-mixed"}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Forget the neighbour `_digits` that examples import, and Accelerate's set-up of the process."""
    from accelerate.state import AcceleratorState

    monkeypatch.syspath_prepend(EXAMPLES)
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("name", "options"), RUNS, ids=lambda x: str(x))
def test_an_example_trains(name, options, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", seeding := Seeding())
    assert 0 <= importlib.import_module(name).main(steps=2, **options) <= 1
    assert seeding.called


class Seeding:
    """torch.manual_seed, which every example calls (Lightning's and the Trainer's own included)."""

    original, called = staticmethod(torch.manual_seed), False

    def __call__(self, seed):
        self.called = True
        return self.original(seed)


def test_training_pays():
    assert importlib.import_module("plain").main(steps=150) > 0.85


def test_the_notebook_runs_from_top_to_bottom(capsys):
    notebook = json.loads((EXAMPLES / "digits.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    names: dict = {"__name__": "notebook"}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert all(min(found) > 50 for found in names["accuracy"].values())  # percent, of ten classes
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["method", "none", "fgm", "dropattack"]
    assert [line.split()[-1] for line in table[1:]] == ["1", "2", "3"]


@pytest.mark.gpu
def test_float16_on_a_gpu():
    assert importlib.import_module("amp").main(steps=150, precision="fp16") > 0.85
    assert importlib.import_module("lightning_module").main(steps=20, precision="16-mixed") > 0


@pytest.mark.slow  # what two processes compute: test_ddp.py
@pytest.mark.parametrize("name", ["ddp", "accelerate_loop"])
def test_two_processes(name):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", f"examples/{name}.py", "--steps=60"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    (found,) = re.findall(r"test accuracy: ([\d.]+)% after 60 steps", ended.stdout)
    assert float(found) > 70


def test_every_example_is_short_and_tried():
    files = {path.stem: path for path in EXAMPLES.glob("[!_]*.py")}
    assert set(files) == {name for name, _ in RUNS} | {"ddp"}
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES.glob("*.py"))
