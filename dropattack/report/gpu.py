"""Measurements on one GPU beside their targets: the table of docs/gpu.md."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from dropattack.report.cost import FLOORS, measures, to_floor
from dropattack.runs import record, store

CARD = "nvidia-h100-80gb-hbm3"
THROUGHPUT, STEP, ACCURACY = 4.0, 3.0, 0.94  # asked for: of 8 runs at once, of IMDB-LSTM, on CIFAR-10
Measured = tuple[str, str, str]  # name, value, target


def table(results: Path) -> str:
    """Return the table as Markdown, with links that start in docs/."""
    bench = results / "bench"
    many = {mps: _cells(bench / f"{CARD}-{name}.json") for name, mps in (("many-mps", True), ("many", False))}
    cost = _cells(bench / f"{CARD}-cost-fp32.json")
    cifar10 = [found for found in store.read(results / "full" / store.RECORDS).values() if _is_plain_cifar10(found)]
    rows = [("asked", "measured", "wanted"), ("---", "---", "---"), *_throughput(many), _step(cost), *_floors(cost),
            _accuracy([found["test"]["accuracy"] for found in cifar10])]  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def _is_plain_cifar10(found: Mapping[str, Any]) -> bool:
    config = found["config"]
    return (config["dataset"]["name"], config["reg"]["name"]) == ("cifar10", "none") and found["status"] in record.DONE


def _throughput(many: Mapping[bool, Sequence[Mapping[str, Any]]]) -> Iterator[Measured]:
    with_mps, without = ({cell["runs"]: cell["gain"] for cell in many[mps]} for mps in (True, False))
    for runs in sorted(set(with_mps) & set(without) - {1}):
        what = f"{runs} runs at once against one after the other (LeNet, DropAttack)"
        yield (what, f"[{with_mps[runs]:.1f} ×](../results/bench/{CARD}-many-mps.json) with MPS, "
               f"[{without[runs]:.1f} ×](../results/bench/{CARD}-many.json) without",
               f"{THROUGHPUT:g} ×" if runs == 8 else "–")  # fmt: skip


def _step(cost: Sequence[Mapping[str, Any]]) -> Measured:
    found = [measures(dict(cell))["plain step"] for cell in cost if cell["workload"] == "imdb-lstm"]
    link = f"../results/bench/{CARD}-cost-fp32.md"
    return "plain IMDB-LSTM step against the authors'", f"[{median(found):.1f} × faster]({link})", f"{STEP:g} ×"


def _floors(cost: Sequence[Mapping[str, Any]]) -> Iterator[Measured]:
    for kind, bound in FLOORS.items():
        worst, where = max(
            (to_floor(entry), f"{method} on {cell['workload']}")
            for cell in cost
            if (cell["vocabulary"] is None) == (kind == "images")
            for method, entry in cell["methods"].items()
            if method != "plain" and not method.startswith("authors")
        )
        yield f"a method's step against its floor, {kind}", f"at most {worst:.2f} ({where})", f"{bound:.2f}"


def _accuracy(found: Sequence[float]) -> Measured:
    low, high = (f"{100 * value:.1f}" for value in (min(found), max(found)))
    shown = f"{100 * fmean(found):.1f} % ({low} to {high}, {len(found)} seeds)"
    return "CIFAR-10, plain training", shown, f"{100 * ACCURACY:.0f} %"
