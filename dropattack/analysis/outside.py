"""Compare methods on sets outside IMDB: the table, the CSV file and the figure of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dropattack.analysis.compare import compare
from dropattack.analysis.drawing import COLOURS, INK, MARKS, Panel, save
from dropattack.analysis.encoders import file_name
from dropattack.errors import UserError
from dropattack.runs import record
from dropattack.statistics import Plan, Primary


@dataclass(frozen=True)
class Measure:
    """A part of a set: its key in the store, and its label."""

    name: str
    part: str
    label: str


MEASURES = (
    Measure("counterfactual_test", "original", "reviews as written"),
    Measure("counterfactual_test", "revised", "revised reviews"),
    Measure("counterfactual_test", "pairs", "revised pairs"),
    Measure("contrast_test", "contrast", "contrast reviews"),
    Measure("contrast_test", "pairs", "contrast pairs"),
    Measure("mr", "all", "MR sentences"),
    Measure("sst2", "all", "SST-2 sentences"),
)
DEV = tuple(
    Measure(one.name.replace("_test", "_dev"), one.part, f"{one.label}, dev")
    for one in MEASURES
    if one.name.endswith("_test")
)
# The family was written down before any run was tested on these sets: DropAttack as it is tuned at midi, on all rows.
PLAN = Plan(primary=Primary("dropattack", "none", tuple(one.label for one in MEASURES),
                            {"reg.relative": True, "dataset.fraction": 1.0},
                            "before any run was tested on these sets"))  # fmt: skip
NOTES = (
    "All runs were trained without the reviews that are rewritten here. A pair is right if both of its texts are; the "
    "reviews as written are the same in the revised and in the contrast pairs.",
    "Revised: people changed a review so that its label flips (Kaushik et al. 2020). Contrast: the authors of the "
    "contrast sets did (Gardner et al. 2020). MR and SST-2: sentences of other reviews, with the vocabulary of IMDB.",
)


def measured(frame: pd.DataFrame, found: Mapping[str, Mapping[str, Any]], measures: tuple[Measure, ...]) -> Any:
    """Return one row per run and measure, as a data set each, with the test accuracy and correct rows of that measure.

    Args:
        frame: `read_records(…).frame`.
        found: `runs.outside.stored(…)`; runs without a line are left out.
        measures: the measures.

    Raises:
        UserError: runs were tested on different versions of a set, or a line is damaged.
    """
    keys = [f"{Path(row.path).stem} {str((row.commit or {}).get('hash', '-'))[:10]}" for row in frame.itertuples()]
    there = frame.assign(line=[found.get(key) for key in keys])
    there = there[there["line"].notna()]
    made = []
    for one in measures:
        results = [line["sets"].get(one.name) for line in there["line"]]
        if any(result is None or one.part not in result for result in results):
            raise UserError(f"some runs have no results on {one.name}: evaluate them again")
        if len({result["fingerprint"] for result in results}) > 1:
            raise UserError(f"the runs were tested on different versions of {one.name}: evaluate them again")
        parts = [result[one.part] for result in results]
        made.append(there.assign(
            dataset=one.label, context=[f"{context}/{one.label}" for context in there["context"]],
            test_accuracy=[float(part["accuracy"]) for part in parts],
            correct=[_unpacked(part, one.name) for part in parts],
        ))  # fmt: skip
    return pd.concat(made, ignore_index=True)


def _unpacked(part: Mapping[str, Any], name: str) -> Any:
    import numpy as np

    try:
        return np.array(record.unpack_correct(part["correct"], int(part["rows"])))
    except ValueError as error:
        raise UserError(f"the results on {name} are damaged ({error}): evaluate again") from error


def plan_of(frame: pd.DataFrame) -> Plan:
    """Return `PLAN`, or one without a primary family if several rows on one measure would belong to it.

    Args:
        frame: the result of `measured`.
    """
    family = PLAN.primary
    if family is None:
        return PLAN
    anywhere = replace(family, datasets=())  # they are the measures, on one data set
    own = frame[[anywhere.has(row.dataset, row.method, family.against, row.settings) for row in frame.itertuples()]]
    rows = own.drop_duplicates(["context", "variant"])
    return Plan() if rows["dataset"].duplicated().any() else PLAN


def compare_outside(frame: pd.DataFrame, measures: tuple[Measure, ...], plan: Plan) -> pd.DataFrame:
    """Return the comparison of the methods on each measure, in the order of `measures`.

    Args:
        frame: the result of `measured`.
        measures: its measures.
        plan: of the comparisons; see `compare`.
    """
    compared = compare(frame, plan=plan)
    rank = {one.label: place for place, one in enumerate(measures)}
    order = sorted(range(len(compared)), key=lambda row: rank[compared["dataset"].iloc[row]])  # stable
    return compared.iloc[order].reset_index(drop=True)


def forest(compared: pd.DataFrame, path: Path, *, title: str, baseline: str = "none") -> Path:
    """Draw each method's difference to the baseline with its 95 % interval over seeds: one block per measure.

    Args:
        compared: the result of `compare_outside`.
        path: output file; the suffix selects the format.
        title: of the figure.
        baseline: the method that the others are compared with.

    Returns:
        `path`.
    """
    rows = compared[(compared["method"] != baseline) & (compared["why"] == "")]
    labels = list(dict.fromkeys(rows["dataset_label"]))
    methods = list(dict.fromkeys(rows["method_label"]))
    step = 0.8 / max(1, len(methods))

    def draw(ax: Axes) -> None:
        for row in rows.itertuples():
            place = labels.index(row.dataset_label) - 0.4 + step * (methods.index(row.method_label) + 0.5)
            colour, known = COLOURS.get(row.method, INK), row.difference
            if known.n > 1:
                ax.hlines(place, known.low, known.high, color=colour, lw=1.8, alpha=0.55)
            first = row.dataset_label == labels[0]
            mark = MARKS.get(row.method, "o")
            ax.plot([known.mean], [place], mark, color=colour, ms=4.5, label=row.method_label if first else None)
        ax.axvline(0, color=INK, lw=0.8)
        ax.set_yticks(range(len(labels)), labels)
        ax.invert_yaxis()
        ax.set_xlabel(f"accuracy, difference to {baseline} (percentage points, paired by seed)", color=INK)

    panel = Panel("", "", draw, "", width=7.0, height=max(1.0, 0.22 * len(rows)), grid="x")
    return save([panel], path, title=title, note="mark: mean over seeds · line: 95 % interval, Student's t")


def render(frame: pd.DataFrame, found: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `imdb-<model>.{md,csv,png,svg}` into `folder` for each model of the runs.

    Args:
        frame: `read_records(…).frame`.
        found: `runs.outside.stored(…)`.
        folder: the output folder.

    Returns:
        The paths of the files.

    Raises:
        UserError: no run has results, or as in `measured`.
    """
    from dropattack.analysis import formats, tables

    main = measured(frame, found, MEASURES) if found else pd.DataFrame()
    if main.empty:
        raise UserError("no run of these records was tested on the outside sets: run dropattack outside first")
    dev, written = measured(frame, found, DEV), []
    for model in sorted(main["model"].unique()):
        own, own_dev = main[main["model"] == model], dev[dev["model"] == model]
        plan = plan_of(own)
        compared, second = compare_outside(own, MEASURES, plan), compare_outside(own_dev, DEV, Plan())
        title = f"IMDB · {model}: outside the test set"
        made, more = tables.comparison_table(compared, NOTES, plan=plan), tables.comparison_table(second)
        more = replace(more, notes=tuple(note for note in more.notes if note.startswith("Differences")))
        name = folder / f"imdb-{file_name(model)}"
        text = f"# {title}\n\n{formats.markdown(made)}\n## Development parts\n\n{formats.markdown(more)}"
        written += [
            formats.save(text, name.with_suffix(".md")),
            formats.save(tables.comparison_csv(pd.concat([compared, second])), name.with_suffix(".csv")),
            *(forest(compared, name.with_suffix(suffix), title=title) for suffix in (".png", ".svg")),
        ]
    return written
