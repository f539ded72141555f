"""Learning curves from the histories of records: accuracy and loss after each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dropattack.analysis.figures import COLOURS, FAINT, INK, STYLE, no_date
from dropattack.analysis.history import over_seeds, read_history

Labels = Mapping[tuple[str, str], tuple[str, str]]  # (context, variant) → (panel, line)


def labels_of(compared: pd.DataFrame) -> Labels:
    """Return the names of panels and lines, as the comparison's table has them.

    Args:
        compared: the result of `compare(…)`.
    """
    return {
        (row.context, row.variant): (f"{row.dataset_label} · {row.model}", str(row.method_label))
        for row in compared.itertuples()
    }


def learning_curves(frame: pd.DataFrame, labels: Labels, path: Path, *, title: str) -> Path:
    """Plot validation accuracy, and below it the loss, against the epoch: one column per data set and model.

    A thick line is the mean over the seeds, at the epochs that each of them reached; a thin one is a single seed. The
    training loss is dashed, and a dot marks the epoch whose weights were tested, if there is a single seed.

    Args:
        frame: `read_records(…).frame`.
        labels: see `labels_of`.
        path: output file; the suffix selects the format.
        title: of the figure.
    """
    import matplotlib

    panels = list(dict.fromkeys(panel for panel, _ in labels.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.3 * len(panels), 5.6), dpi=200, layout="constrained")
        rows = figure.subplots(2, len(panels), squeeze=False, sharex="col")
        for upper, lower, panel in zip(*rows, panels, strict=True):
            upper.set_title(panel, loc="left", color=INK, fontsize=10)
            lower.set_xlabel("epoch", color=INK)
            for (context, variant), (own, name) in labels.items():
                runs = frame[(frame["context"] == context) & (frame["variant"] == variant)]
                if own == panel:
                    colour = COLOURS.get(str(runs["method"].iloc[0]), INK)
                    _line(upper, runs, "validation.accuracy", colour, factor=100.0, name=name)
                    _line(lower, runs, "validation.loss", colour)
                    _line(lower, runs, "train.loss", colour, dashed=True)
            for ax in (upper, lower):
                ax.grid(axis="y", color=FAINT, lw=0.6)
                ax.spines[["top", "right", "left"]].set_visible(False)
                ax.tick_params(length=0, colors="#555555")
                ax.xaxis.get_major_locator().set_params(integer=True)
            upper.legend(fontsize=8, frameon=False)
        rows[0][0].set_ylabel("validation accuracy, %", color=INK)
        rows[1][0].set_ylabel("loss", color=INK)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        legend = "thick: mean over seeds · thin: one seed · solid loss: validation · dashed: training"
        figure.supxlabel(legend, x=0.01, ha="left", fontsize=7.5, color="#666666")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path


def _line(
    ax: Axes, runs: pd.DataFrame, what: str, colour: str, *, factor: float = 1.0, name: str = "", dashed: bool = False
) -> None:
    seeds = [read_history(history)[what] for history in runs["epochs"]]
    style = "--" if dashed else "-"
    for series in seeds if len(seeds) > 1 else ():
        ax.plot(list(series), [factor * v for v in series.values()], style, color=colour, lw=0.7, alpha=0.35)
    means = [(epoch, estimate.mean) for epoch, estimate in over_seeds(seeds, factor)]
    ax.plot(*zip(*means, strict=True) if means else ((), ()), style, color=colour, lw=1.8, label=name or None)
    best = int(runs["validation_epoch"].iloc[0])
    if len(seeds) == 1 and not dashed and best in seeds[0]:
        ax.plot([best], [factor * seeds[0][best]], "o", color=colour, ms=5)
