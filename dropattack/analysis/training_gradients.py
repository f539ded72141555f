"""Test of the theory's prediction: are the gradients of input and weights smaller during a method's training?"""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from dropattack.analysis.compare import compare
from dropattack.analysis.figures import COLOURS, FAINT, INK, STYLE, no_date, plain_log_ticks
from dropattack.analysis.history import NORMS, over_seeds, read_history
from dropattack.analysis.probes import interval, neutral
from dropattack.analysis.tables import NOTHING, Table, p_value


def with_norms(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that measured gradient norms while training; add `history` and the mean of each norm over epochs.

    Args:
        frame: `read_records(…).frame`.
    """
    found = [(i, read_history(epochs)) for i, epochs in zip(frame.index, frame["epochs"], strict=True)]
    found = [(i, history) for i, history in found if all(history[norm] for norm in NORMS)]
    rows = frame.loc[[i for i, _ in found]]
    means = {norm: [sum(h[norm].values()) / len(h[norm]) for _, h in found] for norm in NORMS}
    return rows.assign(history=[history for _, history in found], **means)


def gradient_table(frame: pd.DataFrame, baseline: str = "none") -> Table:
    """Tabulate every norm and method: mean over epochs and seeds, and paired difference to the baseline.

    Args:
        frame: the result of `with_norms`.
        baseline: the method that the others are compared with.
    """
    rows = []
    for norm, label in NORMS.items():
        for row in compare(frame, baseline, norm, factor=1.0).itertuples():
            rows.append((
                f"{row.dataset_label} / {row.model}", label, str(row.method_label), str(row.n), interval(row.score),
                "baseline" if row.method == baseline else row.why or interval(row.difference, sign=True),
                p_value(row.p_holm), neutral(row.verdict) or NOTHING,
            ))  # fmt: skip
    columns = ("data / model", "norm", "method", "n", "mean over the epochs [95 % interval]",
               f"difference to {baseline} [95 % interval]", "p (Holm)", "verdict")  # fmt: skip
    note = (
        "Norms after each epoch on the same training batches in eval mode, of the mean loss (‖∂L/∂x‖: of each "
        "example's), averaged over the epochs. Differences are paired by seed; p-values are corrected by Holm for each "
        "norm apart. Equivalence is not tested, because no margin is defined for norms."
    )
    return Table(columns, tuple(sorted(rows, key=lambda row: row[0])), 3, (note,))


def draw(frame: pd.DataFrame, path: Path, *, title: str) -> Path:
    """Plot norms on a log scale against the epoch: one row per data set and model, one panel per norm.

    Args:
        frame: the result of `with_norms`.
        path: output file; the suffix selects the format.
        title: of the figure.
    """
    cells = list(frame.groupby(["dataset", "model"], sort=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.9 + 2.6 * len(cells)), dpi=200, layout="constrained")
        axes = figure.subplots(len(cells), len(NORMS), squeeze=False)
        for line, ((dataset, model), rows) in zip(axes, cells, strict=True):
            for ax, (norm, label) in zip(line, NORMS.items(), strict=True):
                for row in compare(rows).itertuples():
                    own = rows[(rows["context"] == row.context) & (rows["variant"] == row.variant)]
                    curve = over_seeds([history[norm] for history in own["history"]])
                    epochs, colour = [epoch for epoch, _ in curve], COLOURS.get(row.method, INK)
                    ax.plot(epochs, [e.mean for _, e in curve], color=colour, lw=1.6, label=row.method_label)
                    ax.fill_between(epochs, [max(e.low, 0.3 * e.mean) for _, e in curve], [e.high for _, e in curve],
                                    color=colour, alpha=0.12, lw=0)  # fmt: skip
                ax.set_yscale("log")
                plain_log_ticks(ax.yaxis)
                ax.set_title(f"{dataset} · {model}: {label}", loc="left", color=INK, fontsize=9)
                ax.xaxis.get_major_locator().set_params(integer=True)
                ax.grid(axis="y", color=FAINT, lw=0.6)
                ax.spines[["top", "right", "left"]].set_visible(False)
                ax.tick_params(length=0, which="both", colors="#555555")
        for ax in axes[-1]:
            ax.set_xlabel("epoch", color=INK)
        axes[0][0].legend(frameon=False, fontsize=7, labelcolor="linecolor", handlelength=1)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        note = "line: mean over seeds · band: 95 % interval, cut at 0.3 of the mean below"
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#666666")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=no_date(path))
    return path
