"""How much of an epoch is not the step itself: `python -m benchmarks.epoch`.

Measures the CPU time of training outside `reg.backward` (forward and backward) and the optimizer: loader, augmentation,
progress bar, sums, checks. It is measured in the real training loop on real data (data sets that are missing are
reported and left out), without evaluation and checkpoints. Plain training is the worst case, because a method with more
passes spreads the same time over them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.methods import set_up
from benchmarks.run import describe
from dropattack import provenance
from dropattack.errors import UserError
from dropattack.files import write_atomically
from dropattack.runs import build, experiment
from dropattack.runs.config import compose
from dropattack.training import optim, seeding
from dropattack.training.device import make_accelerator
from dropattack.training.loop import train

MINI = (
    "digits/cnn",
    "mnist/cnn",
    "cifar10/vgg",
    "pydoc/lstm",
    "imdb/lstm",
    "pheme/bigru",
    "agnews/bigru2",
    "imdb/bert",
)
CELLS = (*(f"{cell}/mini" for cell in MINI), "mnist/cnn/full", "agnews/bigru2/full")
PROMISED = 0.03
HEAD = ("data set", "model", "scale", "rows a step", "steps", "ms a step", "outside", "of it the order", "")


class Meter:
    """CPU seconds spent in some functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        self.seconds[name] = 0.0

        def call(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - before

        return call


@contextmanager
def metered(reg: Any, loader: Any) -> Iterator[Meter]:
    meter = Meter()
    with (
        mock.patch.object(reg, "backward", meter.timed("backward", reg.backward)),
        mock.patch.object(optim, "guarded_step", meter.timed("optimizer", optim.guarded_step)),
        mock.patch.object(loader, "rows", meter.timed("order", loader.rows)),
    ):
        yield meter


def measure(cell: str, *, reg: str, steps: int, folder: Path) -> dict[str, Any]:
    """Train for one epoch, or its first `steps` steps, and measure the share of CPU time spent outside the step.

    The order of an epoch is drawn all at once, so for a partial epoch only the same part of that time is counted.

    Returns:
        The setting, the CPU time `seconds_a_step`, and its shares: `backward`, `optimizer`, and `outside` both, which
        includes `order`.

    Raises:
        UserError: data or weights are missing.
    """
    dataset, model_name, scale = cell.split("/")
    overrides = [f"dataset={dataset}", f"model={model_name}", f"scale={scale}", f"reg={reg}", f"paths.output={folder}"]
    config = experiment.resolve(compose(experiment.CONF, overrides))
    seeding.seed_everything(config["seed"])
    _, encoded = build.load_data(config)
    accelerator = make_accelerator(device="cpu")
    model = build.build_model(config, encoded)
    regularizer = build.build_reg(config, model)
    loaders = build.build_loaders(config, encoded, accelerator)
    trainer = config["trainer"]
    options = {key: trainer[key] for key in ("optimizer", "learning_rate", "weight_decay", "clip_norm", "accumulation")}
    options |= {"accelerator": accelerator, "classes": loaders.classes, "epochs": 1, "progress": "plain"}
    train(model, regularizer, loaders.train, _First(loaders.validation), max_steps=2, **options)
    with metered(regularizer, loaders.train) as meter:
        result = train(model, regularizer, loaders.train, _First(loaders.validation), max_steps=steps, **options)
    whole = len(loaders.train) / trainer["accumulation"]
    seconds = result.steps * (result.cpu_seconds_per_step or 0.0)
    order = meter.seconds["order"] * min(1.0, result.steps / whole)
    total = seconds - meter.seconds["order"] + order
    outside = total - meter.seconds["backward"] - meter.seconds["optimizer"]
    return {
        "dataset": dataset, "model": model_name, "scale": scale, "reg": reg, "batch": trainer["batch_size"],
        "steps": result.steps, "steps_an_epoch": len(loaders.train), "seconds_a_step": total / result.steps,
        "outside": outside / total, "order": order / total, "backward": meter.seconds["backward"] / total,
        "optimizer": meter.seconds["optimizer"] / total,
    }  # fmt: skip


class _First:
    """Only the first batch of a loader, so that evaluation costs nothing."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return 1

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        yield next(iter(self._loader.batches()))


def table(cells: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for c in cells:
        where = f"| {c['dataset']} | {c['model']} | {c['scale']} "
        if "skipped" in c:
            lines.append(f"{where}| {c['skipped']}{' |' * (len(HEAD) - 3)}")
            continue
        steps = f"{c['steps']} of {c['steps_an_epoch']}" if c["steps"] < c["steps_an_epoch"] else str(c["steps"])
        met = "" if c["outside"] <= PROMISED else "**above**"
        lines.append(f"{where}| {c['batch']} | {steps} | {1000 * c['seconds_a_step']:.2f} | {c['outside']:.2%} "
                     f"| {c['order']:.2%} | {met} |")  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epoch", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(CELLS), metavar="DATASET/MODEL/SCALE",
                        help=f"such as {CELLS[0]} (default: {len(CELLS)} of them)")  # fmt: skip
    parser.add_argument("--reg", default="none", help="method (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=200, help="maximum number of steps of an epoch (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="also write JSON, such as results/bench/epoch-cpu.json")
    asked = parser.parse_args(argv)
    device = torch.device("cpu")
    machine = describe(device, keeps_memory=set_up(1, device))
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in asked.only:
            dataset, model, scale = cell.split("/")
            try:
                cells.append(measure(cell, reg=asked.reg, steps=asked.steps, folder=Path(folder)))
            except UserError as error:
                cells.append({"dataset": dataset, "model": model, "scale": scale, "skipped": str(error)})
            print(f"{len(cells)}/{len(asked.only)} {cell}", file=sys.stderr, flush=True)
    result = {"schema": 1, "machine": machine, "commit": provenance.commit(), "promised": PROMISED, "cells": cells}
    print(
        f"CPU time of training outside of reg.backward and the optimizer (reg={asked.reg}; promised: ≤ {PROMISED:.0%})"
    )
    print(f"\n{table(cells)}")
    if asked.output:
        write_atomically(asked.output, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
