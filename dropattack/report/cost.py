"""The table and the promises of a benchmark, from its JSON alone: `python -m benchmarks.table FILE`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLOORS = {"text": 1.05, "images": 1.10}  # maximum cost of a pass, in plain steps
GPU_STEP = 2.3  # maximum cost of DropAttack with K = 1 and two targets on a GPU, in plain steps
# (name, workload, vocabulary (None: all of them), key in `measures`, relation, bound)
PROMISES = (
    ("DropAttack against the authors' step, IMDB-LSTM", "imdb-lstm", 80_000, "step", ">=", 5.0),
    ("DropAttack against the authors' step, IMDB-LSTM", "imdb-lstm", 250_000, "step", ">=", 6.0),
    ("DropAttack's memory against the authors', IMDB-LSTM", "imdb-lstm", 250_000, "memory", "<=", 0.40),
    ("plain step against the authors' plain step, IMDB-LSTM", "imdb-lstm", None, "plain step", ">=", 3.0),
    ("DropAttack against the authors' step, PHEME-BiGRU", "pheme-bigru", None, "step", ">=", 3.0),
    ("DropAttack against the authors' step, AGNews-BiGRU", "agnews-bigru", None, "step", ">=", 2.5),
)
HEAD = ("workload", "words", "batch", "method", "passes", "ms a step", "to plain", "to floor", "arithmetic", "peak MB",
        "than the authors'")  # fmt: skip


def to_floor(entry: dict[str, Any]) -> float:
    return entry.get("to_plain", 1.0) / entry["passes"]


def arithmetic(entry: dict[str, Any], plain: dict[str, Any]) -> float | None:
    """Return what `to_floor` would be if time were proportional to arithmetic; None if that was not counted."""
    return entry["flops"] / (entry["passes"] * plain["flops"]) if "flops" in entry else None


def measures(cell: dict[str, Any]) -> dict[str, float]:
    """Return ratios to the authors' code, as medians over rounds.

    `step`: the authors' time over DropAttack's. `plain step`: the authors' plain step over ours. `memory`: DropAttack's
    memory over the authors'. All times are relative to the plain steps measured around them.
    """
    methods, found = cell["methods"], {}
    if "authors" in methods and "dropattack" in methods:
        pairs = zip(methods["authors"]["ratios"], methods["dropattack"]["ratios"], strict=True)
        found["step"] = _median([theirs / ours for theirs, ours in pairs])
        peaks = methods["dropattack"].get("peak_mb"), methods["authors"].get("peak_mb")
        if all(isinstance(peak, float) for peak in peaks):
            found["memory"] = peaks[0] / peaks[1]
    if "authors-plain" in methods:
        found["plain step"] = _median(methods["authors-plain"]["ratios"])
    return found


def _median(values: list[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row per workload, vocabulary and method."""
    found = []
    for cell in result["cells"]:
        words = "–" if cell["vocabulary"] is None else f"{cell['vocabulary']:,}"
        where = cell["workload"], words, f"{cell.get('batch', '–')}"
        if cell.get("skipped"):
            found.append((*where, f"not measured: {cell['skipped']}", *[""] * (len(HEAD) - len(where) - 1)))
            continue
        faster = measures(cell)
        ratio = {"plain": faster.get("plain step"), "dropattack": faster.get("step")}
        for method, entry in cell["methods"].items():
            peak, times, work = entry.get("peak_mb"), ratio.get(method), arithmetic(entry, cell["methods"]["plain"])
            found.append((
                *where, method, f"{entry['passes']:g}", f"{1000 * entry['seconds']:,.1f}",
                f"{entry.get('to_plain', 1.0):.2f}", f"{to_floor(entry):.3f}", f"{work:.3f}" if work else "–",
                f"{peak:,.0f}" if isinstance(peak, float) else peak or "–", f"{times:.1f} ×" if times else "",
            ))  # fmt: skip
    return found


def promises(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (what, measured, promised, met) for every promise that the measured cells can check."""
    found = []
    for what, workload, vocabulary, measure, relation, bound in PROMISES:
        for cell in result["cells"]:
            if cell["workload"] != workload or cell.get("skipped") or vocabulary not in (None, cell["vocabulary"]):
                continue
            value = measures(cell).get(measure)
            if value is not None:
                met = value >= bound if relation == ">=" else value <= bound
                shown = f"{what}, {cell['vocabulary']:,} words"
                found.append((shown, f"{value:.2f}", f"{'≥' if relation == '>=' else '≤'} {bound:g}", _met(met)))
    for cell in result["cells"] if result["machine"]["gpu"] else ():
        steps = [m["to_plain"] for name, m in cell.get("methods", {}).items()
                 if name in ("dropattack", "dropattack-parallel") and m["passes"] == 3]  # fmt: skip
        if steps:
            what = (
                f"DropAttack (K = 1, two targets) against plain, {cell['workload']} {cell['vocabulary'] or ''}".strip()
            )
            found.append((what, f"{min(steps):.2f}", f"≤ {GPU_STEP:g}", _met(min(steps) <= GPU_STEP)))
    for kind, bound in FLOORS.items():
        ours = [
            (to_floor(entry), f"{method} on {cell['workload']}")
            for cell in result["cells"]
            for method, entry in cell.get("methods", {}).items()
            if (cell["vocabulary"] is None) == (kind == "images")
            and not method.startswith("authors")
            and method != "plain"
        ]
        if ours:
            worst, where = max(ours)
            found.append((f"any method against its floor, on {kind}; the worst is {where}", f"{worst:.3f}",
                          f"≤ {bound:g}", _met(worst <= bound)))  # fmt: skip
    return found


def _met(met: bool) -> str:
    return "met" if met else "NOT met"


def markdown(result: dict[str, Any]) -> str:
    """Return the whole page: where it was measured, the table, the promises."""
    parts = [heading(result), _table(HEAD, rows(result), right=6)]
    held = promises(result)
    if held:
        parts.append(_table(("promise", "measured", "promised", ""), held, right=2))
    return "\n\n".join(parts) + "\n"


def heading(result: dict[str, Any]) -> str:
    machine, counts = result["machine"], sorted({cell["rounds"] for cell in result["cells"] if "rounds" in cell})
    commits = sorted({(cell.get("commit") or {}).get("hash", "no commit")[:10] for cell in result["cells"]})
    allocator = ", ".join(f"{k}={v}" for k, v in machine["allocator"].items()) or "the system's"
    how = [result.get("precision", "fp32"), *([f"compiled ({mode})"] if (mode := result.get("compile")) else ())]
    return (
        f"{machine['gpu'] or machine['cpu']}, {machine['threads']} thread(s), torch {machine['versions']['torch']}, "
        f"{', '.join(how)}; allocator: {allocator}; clock: {machine['clock']}; n = {' or '.join(map(str, counts))} "
        f"rounds (medians); {', '.join(commits)}{' (quick: small batches, no evidence)' if result['quick'] else ''}. "
        "Inputs are drawn. Floor: passes × plain step. Arithmetic: operations in a step's products and convolutions, "
        "over those of its floor; – where they were not counted."
    )


def _table(head: tuple[str, ...], body: Sequence[tuple[str, ...]], *, right: int) -> str:
    """Format as Markdown, with all columns from index `right` on right-aligned."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    first = len(head) - right if right < len(head) - 2 else 3
    sides = [">" if i >= first else "<" for i in range(len(head))]
    lines = ["| " + " | ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)) + " |"
             for row in (head, *body)]  # fmt: skip
    rule = "|" + "|".join("-" * (w + 1) + (":" if s == ">" else "-") for s, w in zip(sides, widths, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.table", description="Print a benchmark's table and promises."
    )
    parser.add_argument("file", type=Path, help="such as results/bench/cpu.json")
    file = parser.parse_args(arguments).file
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        parser.error(f"{file}: {error.strerror}")
    print(markdown(json.loads(text)), end="")
