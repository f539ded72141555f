"""Run all probes of one run and write them to the store, for `dropattack probe`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.probes import store
from dropattack.probes.restored import Restored


def _option(default: Any, words: str) -> Any:
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Options:
    """Options that the probes' values depend on. Stored in the line, so that only like is compared with like."""

    rows: int = _option(1000, "rows of a split for flatness, gradients and robustness; calibration uses all")
    batches: int = _option(5, "number of batches the rows are split into, for intervals")
    split: str = _option("train", "split for flatness and gradients")
    seed: int = _option(0, "seed of all random choices")
    steps: int = _option(5, "ascent steps to the worst point of a ball around the weights")
    probes: int = _option(10, "random sign vectors for the estimate of the Hessian's trace")
    draws: int = _option(10, "draws of weight noise")
    attack_steps: int = _option(20, "steps of PGD on images")


def _calibration(run: Restored, options: Options) -> dict[str, Any]:
    from dropattack.probes.calibration import calibration

    return calibration(run.model, run.batches("test", size=250), run.batches("train", size=250))


def _gradients(run: Restored, options: Options) -> dict[str, Any]:
    from dropattack.probes.gradients import gradient_norms

    batches = run.random_batches(options.split, count=options.batches, rows=options.rows)
    return gradient_norms(run.model, batches, run.points, std=run.std)


def _flatness(run: Restored, options: Options) -> dict[str, Any]:
    from dropattack.probes.flatness import flatness

    batches = run.random_batches(options.split, count=options.batches, rows=options.rows)
    return flatness(
        run.model, batches, steps=options.steps, probes=options.probes, draws=options.draws, seed=options.seed
    )


def _robustness(run: Restored, options: Options) -> dict[str, Any]:
    from dropattack.probes.robustness import robustness

    return robustness(run, rows=options.rows, seed=options.seed, steps=options.attack_steps)


PROBES: dict[str, Callable[[Restored, Options], dict[str, Any]]] = {
    "calibration": _calibration, "gradients": _gradients, "flatness": _flatness, "robustness": _robustness,
}  # fmt: skip


def result_of(record: Mapping[str, Any]) -> list[float | None]:
    """Return the test accuracy and loss of a run, which tell its weights from those of a rerun."""
    result: list[float | None] = _finite([record["test"]["accuracy"], record["test"]["loss"]])
    return result


def missing(
    path: Path, runs: Mapping[str, list[float | None]], wanted: Sequence[str], options: Options
) -> dict[str, list[str]]:  # fmt: skip
    """Return the probes in `wanted` that the store `path` does not have yet, for each run that lacks some.

    Args:
        path: the store.
        runs: of each run's name, its `result_of`. Probes of another result are of earlier weights, and are missing.
        wanted: names of `PROBES`.
        options: what the values depend on.

    Raises:
        UserError: the probes of a run were made with other options, or the store is damaged.
    """
    known, lacking = store.of_kind(path, store.PROBES), {}
    for run, result in runs.items():
        content = known.get(run, {})
        if content.get("result", result) != result or not content:
            content = {"probes": {}, "options": asdict(options)}
        if content["options"] != asdict(options):
            raise UserError(
                f"{path} has probes of {run} with other options; remove that line, or choose another --store"
            )
        if names := [name for name in wanted if name not in content["probes"]]:
            lacking[run] = names
    return lacking


def probe(run: Restored, path: Path, wanted: Sequence[str], options: Options) -> None:
    """Run the probes in `wanted`, and add each to the run's line in the store `path` as soon as it is done.

    Raises:
        UserError: the store is damaged or cannot be written.
    """
    from dropattack import provenance
    from dropattack.training.device import describe

    config = run.record["config"]
    about = {
        "schema": store.SCHEMA, "run": run.path.stem, "kind": store.PROBES, "run_id": run.record["run_id"],
        **{group: config[group]["name"] for group in ("dataset", "model")}, "method": config["reg"]["name"],
        "seed": config["seed"], "options": asdict(options), "result": result_of(run.record),
    }  # fmt: skip
    content = store.of_kind(path, store.PROBES).get(run.path.stem, {})
    if content.get("result", about["result"]) != about["result"] or not content:
        content = {**about, "probes": {}, "seconds": {}}
    for name in wanted:
        started = time.monotonic()
        content["probes"][name] = PROBES[name](run, options)
        content["seconds"][name] = round(time.monotonic() - started, 2)
        content["versions"] = provenance.versions()
        content["hardware"] = provenance.hardware() | describe(run.device, 1)
        store.put(path, _finite(content))


def _finite(value: Any) -> Any:
    """Round numbers to nine digits; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if value - value == 0 else None
    return value
