"""Charts of probes, made from their files alone: accuracy on spoilt inputs, and gradient norms."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from dropattack.analysis import history
from dropattack.analysis.drawing import Key, Panel, curves, draw_interval, last_points, mark, plain, save
from dropattack.analysis.figures import by_settings
from dropattack.statistics import Estimate, estimate

NAMES = {
    "fgsm": "FGSM, ε (ℓ∞)", "pgd": "PGD, ε (ℓ∞)", "gaussian_noise": "noise, σ", "gaussian_blur": "blur, σ / side",
    "contrast": "contrast, factor", "brightness": "brightness, factor", "rotation": "rotation, degrees",
    "word_drop": "words dropped, rate", "word_swap": "words swapped, rate",
}  # fmt: skip
# The position of the clean input on each axis.
CLEAN = {"contrast": 1.0, "brightness": 1.0}
NORMS = {key.removeprefix("gradients."): label for key, label in history.NORMS.items()}
CURVES = "line: mean over seeds · band: 95 % interval, cut where it is wide"
SEEDS = "small mark: one seed · large mark: mean · line: 95 % interval over seeds"


def robustness(frame: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Plot accuracy against ε or severity: one line per method, one panel per kind.

    Args:
        frame: the result of `probes.with_probes` for one data set and model.
        path: output file; the suffix selects the format.
        title: of the figure.

    Returns:
        `path`, or None if there are no such probes: then no file is written.
    """
    panels = robustness_panels(frame)
    return save(panels, path, title=title, note=CURVES, columns=min(4, len(panels))) if panels else None


def gradients(frame: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Plot mean gradient norms: one column per method, one panel per norm. Return None without such probes."""
    panels = gradient_panels(frame)
    return save(panels, path, title=title, note=SEEDS) if panels else None


def robustness_panels(frame: pd.DataFrame) -> list[Panel]:
    """Describe the charts of `robustness`."""
    panels = []
    for kind, name in NAMES.items():
        prefix = f"robustness.{kind}."
        severities = sorted({key for run in frame["probes"] for key in run if key.startswith(prefix)})
        if not severities:
            continue
        lines = []
        for key, runs in by_settings(frame):
            points = [(CLEAN.get(kind, 0.0), _over_seeds(runs, "robustness.clean"))]
            points += [(float(key.removeprefix(prefix)), _over_seeds(runs, key)) for key in severities]
            if points := sorted(((x, e) for x, e in points if e.n), key=lambda point: point[0]):
                lines.append((key, points))
        draw = partial(_spoilt, lines=lines, x=name, flipped=kind in CLEAN)
        panels.append(Panel("", "accuracy, %", draw, last_points(lines, name)))
    return panels


def _spoilt(ax: Axes, lines: list[tuple[Key, list[tuple[float, Estimate]]]], x: str, flipped: bool) -> None:
    curves(ax, lines, x)
    if flipped:
        ax.invert_xaxis()  # from clean to spoilt, like the other panels


def gradient_panels(frame: pd.DataFrame) -> list[Panel]:
    """Describe the charts of `gradients`."""
    panels = []
    for kind, label in NORMS.items():
        name = f"gradients.{kind}"
        found = []
        for key, runs in by_settings(frame):
            seeds = [run[name] for run in runs["probes"] if name in run]
            if seeds:
                found.append((key, seeds))
        if found:
            said = "; ".join(f"{key.label} {plain(estimate(seeds).mean)}" for key, seeds in found)
            panels.append(Panel("", label, partial(_norms, found=found), said))
    return panels


def _norms(ax: Axes, found: list[tuple[Key, list[float]]]) -> None:
    highest = 1.25 * max(value for _, seeds in found for value in seeds) or 1.0
    for place, (key, seeds) in enumerate(found):
        e = estimate(seeds)
        if e.n > 1:
            draw_interval(ax, [place, place], [max(e.low, 0.0), min(e.high, highest)], key.method)
        mark(ax, place, e.mean, key.method, says=f"{key.label}: {plain(e.mean)}")
        for value in seeds:
            mark(ax, place - 0.2, value, key.method, size=10, hollow=True)
    ax.set_xticks(range(len(found)), [key.label for key, _ in found], rotation=20, ha="right", rotation_mode="anchor")
    ax.set_ylim(0, highest)


def methods(frame: pd.DataFrame) -> tuple[Key, ...]:
    """Return the methods in their usual order, with the settings that tell two rows of one apart."""
    return tuple(key for key, _ in by_settings(frame))


def _over_seeds(runs: pd.DataFrame, key: str) -> Estimate:
    """Estimate over seeds, in percent."""
    return estimate([100 * probes[key] for probes in runs["probes"] if key in probes])
