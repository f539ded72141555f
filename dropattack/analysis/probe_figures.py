"""Figures of probes, made from their files alone: accuracy on spoilt inputs, and gradient norms."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dropattack.analysis import history
from dropattack.analysis.compare import ORDER
from dropattack.analysis.figures import COLOURS, FAINT, INK, STYLE, no_date
from dropattack.statistics import Estimate, estimate

NAMES = {
    "fgsm": "FGSM, ε (ℓ∞)", "pgd": "PGD, ε (ℓ∞)", "gaussian_noise": "noise, σ", "gaussian_blur": "blur, σ / side",
    "contrast": "contrast, factor", "brightness": "brightness, factor", "rotation": "rotation, degrees",
    "word_drop": "words dropped, rate", "word_swap": "words swapped, rate",
}  # fmt: skip
# The position of the clean input on each axis.
CLEAN = {"contrast": 1.0, "brightness": 1.0}
NORMS = {key.removeprefix("gradients."): label for key, label in history.NORMS.items()}


def robustness(frame: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Plot accuracy against ε or severity: one line per method, one panel per kind. Return None without such probes.

    Args:
        frame: the result of `probes.with_probes` for one data set and model.
        path: output file; the suffix selects the format.
        title: of the figure.
    """
    there = {key.split(".")[1] for probes in frame["probes"] for key in probes if key.startswith("robustness.")}
    kinds = [kind for kind in NAMES if kind in there]
    if not kinds:
        return None

    def panel(ax: Axes, kind: str) -> None:
        for method, runs in _methods(frame):
            points = [(CLEAN.get(kind, 0.0), _over_seeds(runs, "robustness.clean"))]
            prefix = f"robustness.{kind}."
            severities = sorted({k for p in runs["probes"] for k in p if k.startswith(prefix)})
            points += [(float(key.removeprefix(prefix)), _over_seeds(runs, key)) for key in severities]
            points = sorted((x, e) for x, e in points if e.n)
            if not points:
                continue
            x, colour = [x for x, _ in points], COLOURS.get(method, INK)
            ax.plot(x, [100 * e.mean for _, e in points], marker="o", color=colour, lw=1.6, ms=3.5, label=method)
            ax.fill_between(
                x, [100 * e.low for _, e in points], [100 * e.high for _, e in points], color=colour, alpha=0.12, lw=0
            )
        if kind in CLEAN:
            ax.invert_xaxis()  # from clean to spoilt, like the other panels
        ax.set_xlabel(NAMES[kind], color=INK)

    note = "line: mean over seeds · band: 95 % interval"
    return _figure(kinds, panel, path, title=title, note=note, label="accuracy, %")


def gradients(frame: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Plot mean gradient norms: one column per method, one panel per norm. Return None without such probes."""
    there = {key.split(".")[1] for probes in frame["probes"] for key in probes if key.startswith("gradients.")}
    kinds = [kind for kind in NORMS if kind in there]
    if not kinds:
        return None

    def panel(ax: Axes, kind: str) -> None:
        names = []
        for place, (method, runs) in enumerate(_methods(frame)):
            key = f"gradients.{kind}"
            seeds = [probes[key] for probes in runs["probes"] if key in probes]
            e, colour = estimate(seeds), COLOURS.get(method, INK)
            ax.plot([place, place], [e.low, e.high], color=colour, lw=2, alpha=0.55)
            ax.scatter([place] * len(seeds), seeds, s=12, color="white", edgecolors=colour, zorder=3)
            ax.scatter([place], [e.mean], s=45, color=colour, zorder=2)
            names.append(method)
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
        ax.set_ylim(bottom=0)
        ax.set_title(NORMS[kind], loc="left", color=INK, fontsize=10)

    note = "small dot: one seed · large dot: mean · line: 95 % interval over seeds"
    return _figure(kinds, panel, path, title=title, note=note, label="mean norm", legend=False)


def _methods(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = {str(method): runs for method, runs in frame.groupby("method")}
    rank = {name: i for i, name in enumerate(ORDER)}
    return sorted(groups.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))


def _over_seeds(runs: pd.DataFrame, key: str) -> Estimate:
    return estimate([probes[key] for probes in runs["probes"] if key in probes])


def _figure(
    kinds: list[str], panel: Any, path: Path, *, title: str, note: str, label: str, legend: bool = True
) -> Path:  # fmt: skip
    import matplotlib

    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.8 + 2.9 * columns, 0.9 + 2.7 * rows), dpi=200, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, kind in zip(axes, kinds, strict=False):
            panel(ax, kind)
            ax.grid(axis="y", color=FAINT, lw=0.6)
            ax.spines[["top", "right", "left"]].set_visible(False)
            ax.tick_params(length=0, colors="#555555")
        for ax in axes[len(kinds) :]:
            ax.set_visible(False)
        for row in range(rows):
            axes[row * columns].set_ylabel(label, color=INK)
        if legend:
            axes[0].legend(frameon=False, fontsize=7, labelcolor="linecolor", handlelength=1)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#666666")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path
