"""Test of the theory's prediction: are the gradients of input and weights smaller during a method's training?"""

import pandas as pd

from dropattack.analysis.compare import compare
from dropattack.analysis.formats import NOTHING, Table, p_value
from dropattack.analysis.history import NORMS, read_history
from dropattack.analysis.probes import interval_text, neutral


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
    """Return a table of every norm and method: mean over epochs and seeds, and paired difference to the baseline.

    Args:
        frame: the result of `with_norms`.
        baseline: the method that the others are compared with.
    """
    rows = []
    for norm, label in NORMS.items():
        for row in compare(frame, baseline, norm, factor=1.0).itertuples():
            rows.append((
                f"{row.dataset_label} / {row.model}", label, str(row.method_label), str(row.n),
                interval_text(row.score),
                "baseline" if row.method == baseline else row.why or interval_text(row.difference, sign=True),
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
