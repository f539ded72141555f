"""Write tables and figures from records: print them, or write them to a folder in results/."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console

from dropattack.analysis import figures, formats, tables
from dropattack.analysis.compare import compare, provenance
from dropattack.analysis.curves import gradient_figure
from dropattack.analysis.data_efficiency import data_efficiency_table, heading
from dropattack.analysis.encoders import seen_before
from dropattack.analysis.heatmap import heatmap
from dropattack.analysis.records import Records, read_records
from dropattack.analysis.references import read_references, with_references
from dropattack.analysis.settings import METHOD
from dropattack.analysis.training_gradients import gradient_table, with_norms
from dropattack.errors import UserError, counted
from dropattack.runs import store
from dropattack.runs.identity import NEUTRAL
from dropattack.runs.ranges import IN_TRAINER
from dropattack.statistics import Plan


def summarize(
    records: Records, table: Path | None, picture: Path | None, *, note: str = "", title: str, console: Console | None,
    baseline: str = "none",
) -> pd.DataFrame:  # fmt: skip
    """Print the comparison of all methods with `baseline`.

    Below the table come `note`, seeds that have no pair, other settings than those of the method, the provenance of the
    runs, and every record left out.

    Args:
        records: the runs.
        table: Markdown file to write, or None.
        picture: figure of gain against cost to write, or None; the suffix selects the format.
        note: printed below the table.
        title: of the figure.
        console: prints a table with rules and colours; None prints Markdown.
        baseline: the method that the others are compared with.

    Returns:
        The result of `compare`.
    """
    first = compare(records.frame, baseline)
    said = (note, *_unpaired(first, baseline), *_other_settings(first, baseline))
    compared, made, legend = _comparison(records, *filter(None, said), baseline=baseline)
    if console is None:
        print(formats.markdown(made), end="")
    else:
        shown = formats.narrow(made)
        console.print(formats.rich_table(shown))
        for line in shown.notes:
            console.print(line, style="dim", highlight=False, markup=False)
    if table is not None:
        formats.save(formats.markdown(made), table)
    if picture is not None:
        figures.gain_against_cost(compared, picture, title=title, note=legend, baseline=baseline)
    written = [f"{name:<8} {path}" for name, path in (("Table", table), ("Picture", picture)) if path is not None]
    if written:
        print("", *written, sep="\n")
    return compared


def _unpaired(compared: pd.DataFrame, baseline: str) -> Iterator[str]:
    """Name the seeds that a method or the baseline has alone."""
    for _, shared in compared.groupby("context", sort=False):
        plain = shared[shared["method"] == baseline]
        for row in shared[(shared["method"] != baseline) & (shared["pairs"] > 0)].itertuples():
            own, theirs = set(row.seeds), set(plain.iloc[0]["seeds"])
            apart = ((row.method_label, own - theirs), (baseline, theirs - own))
            alone = [f"{whose} alone has {', '.join(map(str, sorted(seeds)))}" for whose, seeds in apart if seeds]
            if alone:
                where = f"{row.method_label} on {row.dataset_label} / {row.model}"
                yield f"{where}: compared over {counted(row.pairs, 'seed')}; {'; '.join(alone)}."


def _other_settings(compared: pd.DataFrame, baseline: str) -> Iterator[str]:
    """Say which methods also differ from the baseline in settings that they do not set themselves."""
    for _, shared in compared.groupby("context", sort=False):
        plain = shared[shared["method"] == baseline]
        for row in shared[(shared["method"] != baseline) & (shared["why"] == "")].itertuples():
            own, theirs = row.settings, plain.iloc[0]["settings"]
            option = IN_TRAINER.get(row.method, ("",))[0]
            set_here = [*(("model.dropout",) if any(key.endswith(".rate") for key in (*own, *theirs)) else ()),
                        *(key for key in METHOD if option and key.startswith(f"trainer.{option}"))]  # fmt: skip
            pairs = {key: tuple(one.get(key, NEUTRAL.get(key, (None,))[0]) for one in (own, theirs))
                     for key in METHOD if key != "reg" and key not in set_here}  # fmt: skip
            if differing := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
                where = f"{row.method_label} on {row.dataset_label} / {row.model}"
                listed = (f"{key} is {mine}, and {other} for {baseline}" for key, (mine, other) in differing.items())
                yield f"{where}: {'; '.join(listed)}."


def render(
    name: str, folder: Path, *, title: str, kind: str, x: str | None = None, y: str | None = None, seeds: int = 0,
    published: Path | None = None, plan: Plan | None = None, names: Collection[str] | None = None,
) -> list[Path]:  # fmt: skip
    """Write `folder/table.{md,csv,tex}` and `folder/figure.{png,svg}` from the runs listed in `folder`.

    If runs measured gradient norms during training (`trainer.probe_gradients`), also write
    `folder/gradients.{md,png,svg}`.

    Args:
        folder: of the table.
        name: of the table; for the error message and as its key in `published`.
        title: of the table and figure.
        kind: `comparison` plots gain against cost; `curve` plots accuracy against the setting `x` and adds a table of
            data efficiency; `heatmap` draws the gain over the settings `x` and `y`.
        x: a setting, for `curve` and `heatmap`.
        y: a setting, for `heatmap`.
        seeds: number of seeds that a complete cell has.
        published: YAML file of published values.
        plan: the table's margin of equivalence and primary family.
        names: the runs of the table; None: all that `folder` lists.

    Returns:
        The paths of the files.

    Raises:
        UserError: there is no finished record in the folder.
    """
    records = read_records(folder, names=names) if store.is_table(folder) else None
    if records is None or records.frame.empty:
        raise UserError(f"table {name}: no finished record in {folder}; run the table first")
    known = tables.read_published(published) if published else {}
    plan = plan or Plan()
    compared, made, legend = _comparison(records, seeds=seeds, published=known.get(name), plan=plan)
    made = with_references(made, records.frame, read_references(folder.parent / "references.json"))
    second = data_efficiency_table(records.frame, x, margin=plan.margin) if kind == "curve" and x is not None else None
    more = f"\n## {heading(x)}\n\n{formats.markdown(second)}" if second and x else ""
    written = [
        formats.save(f"# {title}\n\n{formats.markdown(made)}{more}", folder / "table.md"),
        formats.save(tables.comparison_csv(compared), folder / "table.csv"),
        formats.save("\n".join(map(formats.latex, [made, *([second] if second else [])])), folder / "table.tex"),
    ]
    measured = with_norms(records.frame)
    if measured["method"].nunique() > 1:  # the baseline alone, from another table, shows nothing
        about = f"{title}: gradient norms while training"
        shown = f"# {about}\n\n{formats.markdown(gradient_table(measured))}"
        written.append(formats.save(shown, folder / "gradients.md"))
        written += [
            gradient_figure(measured, folder / f"gradients{suffix}", title=about) for suffix in (".png", ".svg")
        ]
    for path in (folder / "figure.png", folder / "figure.svg"):
        if kind == "heatmap" and x is not None and y is not None:
            written.append(heatmap(compared, x, y, path, title=title))
        elif kind == "curve" and x is not None:
            written.append(figures.accuracy_against(records.frame, x, path, title=title))
        else:
            written.append(figures.gain_against_cost(compared, path, title=title, note=legend))
    return written


def _comparison(
    records: Records,
    *notes: str,
    seeds: int = 0,
    published: tables.Published | None = None,
    plan: Plan | None = None,
    baseline: str = "none",
) -> tuple[pd.DataFrame, formats.Table, str]:
    """Return the comparison, its table with all notes, and the legend of its figure."""
    compared = compare(records.frame, baseline, plan=plan)
    ran = "; ".join(f"{what}: {', '.join(names)}" for what, names in provenance(records.frame).items())
    left_out = [f"Left out: {left}." for left in records.left_out]
    found = sorted({row.pairs for row in compared.itertuples() if row.pairs})
    seeds_of = " to ".join(map(str, sorted({found[0], found[-1]}))) if found else "no"
    legend = "mark: one seed"
    if max(found, default=0) > 1:
        legend = f"small {legend} · large mark: mean · line: 95 % interval over {seeds_of} pairs, cut where it is wide"
    notes = (*notes, *seen_before(records.frame["settings"]), f"Ran on {ran}.", *left_out)
    made = tables.comparison_table(compared, notes, baseline, seeds=seeds, published=published, plan=plan)
    return compared, made, legend
