"""The page and the figure of `python -m benchmarks.soak`: what a sweep held, by the number of finished runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from dropattack.analysis.drawing import COLOURS, INK, Panel, save

COLOUR = {"joblib": COLOURS["rdrop"], "ray": COLOURS["dropattack"]}
PARTS = 10  # of a sweep; the first is left out, because the workers import their libraries in it
GROWS = {"memory": 1.1, "files": 1.1, "cpu": 1.25, "driver memory": 1.1, "driver files": 1.1}  # last part to second
HEAD = ("sweep", "runs", "lost", "workers", "memory of a worker", "its open files", "CPU time of a run",
        "memory of the sweep's own process", "its open files")  # fmt: skip
Values = list[tuple[float, float]]  # of a measure, by the number of finished runs


def measures(sweep: Mapping[str, Any]) -> dict[str, Values]:
    """Return each measure by the number of runs done: of workers, the largest."""
    samples = [one for one in sweep["samples"] if one["workers"]]
    found: dict[str, Values] = {
        "memory": [(s["done"], max(w[1] for w in s["workers"])) for s in samples],
        "files": [(s["done"], max(w[2] for w in s["workers"])) for s in samples],
        "driver memory": [(s["done"], s["driver"][0]) for s in samples],
        "driver files": [(s["done"], s["driver"][1]) for s in samples],
    }
    for name in ("cpu_seconds", "seconds"):
        found[name.removesuffix("_seconds")] = _per_run(samples, name, sweep["runs"] / (2 * PARTS))
    return found


def _per_run(samples: list[dict[str, Any]], name: str, runs: float) -> Values:
    """Return the seconds per run over windows of at least `runs` runs."""
    values, first = [], samples[0] if samples else {}
    for sample in samples:
        if (done := sample["done"] - first["done"]) >= runs:
            values.append(((sample["done"] + first["done"]) / 2, (sample[name] - first[name]) / done))
            first = sample
    return values


def ends(values: Values, runs: int) -> tuple[float, float]:
    """Return the median of the second tenth of the runs, and that of the last (nan: no sample is in it)."""
    parts = ((runs / PARTS, 2 * runs / PARTS), (runs - runs / PARTS, runs))
    found = ([value for done, value in values if low <= done <= high] for low, high in parts)
    first, last = (median(part) if part else float("nan") for part in found)
    return first, last


def problems(sweep: Mapping[str, Any]) -> list[str]:
    """Return what grew with the number of runs, and what was lost, each as a sentence."""
    said = [*sweep["failed"]]
    if lost := sweep["runs"] - sweep["finished"]:
        said.append(f"{lost} of {sweep['runs']} runs have no finished record")
    if sweep["stored"][-1]["records"] != sweep["runs"]:
        said.append(f"the store has {sweep['stored'][-1]['records']} of {sweep['runs']} records")
    found = measures(sweep)
    for name, factor in GROWS.items():
        first, last = ends(found[name], sweep["runs"])
        if not last <= first * factor:  # nor NaN
            said.append(f"{name} went from {first:.3g} to {last:.3g}")
    return said


def row(launcher: str, sweep: Mapping[str, Any]) -> list[str]:
    found = measures(sweep)
    workers = len({worker[0] for sample in sweep["samples"] for worker in sample["workers"]})

    def cell(name: str, unit: str, digits: int) -> str:
        first, last = ends(found[name], sweep["runs"])
        return f"{first:.{digits}f} → {last:.{digits}f}{unit}"

    return [launcher, str(sweep["runs"]), str(sweep["runs"] - sweep["finished"]), str(workers),
            cell("memory", " MB", 0), cell("files", "", 0), cell("cpu", " s", 2), cell("driver memory", " MB", 0),
            cell("driver files", "", 0)]  # fmt: skip


def sentence(launcher: str, sweep: Mapping[str, Any]) -> str:
    said = problems(sweep)
    shown = ", ".join(f"{name}: {value}" for name, value in zip(HEAD[1:], row(launcher, sweep)[1:], strict=True))
    return f"{launcher}: {shown}. {'; '.join(said) if said else 'Nothing grew, and nothing was lost.'}"


def _panel(title: str, unit: str, name: str, sweeps: Mapping[str, Mapping[str, Any]]) -> Panel:
    lines = {launcher: measures(sweep)[name] for launcher, sweep in sweeps.items()}

    def draw(ax: Axes) -> None:
        for launcher, values in lines.items():
            ax.plot(*zip(*values, strict=True), color=COLOUR[launcher], lw=1.4, label=launcher)
        ax.set_ylim(0, 1.15 * max(value for values in lines.values() for _, value in values))
        ax.set_xlabel("finished runs", color=INK)

    return Panel(title, unit, draw, "", width=3.4, height=2.4)


def write(sweeps: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write `<path>.svg` and `<path>.md` beside the JSON."""
    panels = [
        _panel("memory of the largest worker", "MB", "memory", sweeps),
        _panel("its open files", "", "files", sweeps),
        _panel("CPU time of a run", "seconds", "cpu", sweeps),
        _panel("wall time per run", "seconds", "seconds", sweeps),
        _panel("memory of the sweep's own process", "MB", "driver memory", sweeps),
        _panel("its open files", "", "driver files", sweeps),
    ]
    picture = save(panels, path.with_suffix(".svg"), title="Long sweeps", columns=2)
    lines = [HEAD, ("---",) * len(HEAD), *(row(launcher, sweep) for launcher, sweep in sweeps.items())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    command = "python -m benchmarks.soak --launcher " + "` and `python -m benchmarks.soak --launcher ".join(
        f"{launcher} --runs {sweep['runs']} --json {path}" for launcher, sweep in sweeps.items()
    )
    stores = "; ".join(
        f"{launcher}: {sum(one['reads'] for one in sweep['stored'])} reads in {len(sweep['stored'])} writes, all whole"
        for launcher, sweep in sweeps.items()
    )
    faults = [f"- {launcher}: {said}" for launcher, sweep in sweeps.items() for said in problems(sweep)]
    text = [
        "# Long sweeps",
        f"`{command}`",
        "Every method on the digits with many seeds, in workers that live as long as the sweep. Each cell gives the "
        "median of the second tenth of the runs and of the last, because the first has the imports; the largest worker "
        "counts. Wall time depends on what else the machine does, so only CPU time is judged.",
        table,
        f"Store of records, read while it was written: {stores}.",
        "\n".join(faults) or "Nothing grew, and nothing was lost.",
        f"![Memory, open files and time per run, by the number of finished runs]({picture.name})",
    ]
    path.with_suffix(".md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def dumps(sweeps: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the JSON with one sample per line."""
    text = json.dumps({"sweeps": {name: {**sweep, "samples": name} for name, sweep in sweeps.items()}}, indent=1)
    for name, sweep in sweeps.items():
        lines = ",\n".join(f"    {json.dumps(sample)}" for sample in sweep["samples"])
        text = text.replace(f'"samples": "{name}"', f'"samples": [\n{lines}\n   ]')
    return text + "\n"
