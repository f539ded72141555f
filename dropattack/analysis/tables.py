"""A table in four formats: Markdown, CSV, LaTeX (booktabs) and terminal. No number is computed here."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table as RichTable

from dropattack.errors import counted
from dropattack.runs.yaml_io import read_yaml
from dropattack.statistics import BETTER, MIN_SEEDS, WORSE, Estimate, FoundRow, PairedDifference, Plan
from dropattack.statistics.rows import RowComparison

LATEX = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
FORMULA = ("=", "+", "-", "@")  # beginnings of cells that spreadsheets compute
WIDE = ("detects, points", "seeds for +1", "[rows and seeds]", "p (McNemar)")  # left out on a terminal
MINUS, NOTHING = "−", "–"
METRICS = {"f1": "F1, %", "matthews": "Matthews, %"}  # columns for the further metrics of a data set


@dataclass(frozen=True)
class Table:
    """Formatted cells. The first `text_columns` columns are text (left-aligned), the others numbers (right-aligned)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Published values for a table: `accuracy[dataset][method]` in percent (None: not transcribed), and the source."""

    source: str
    accuracy: Mapping[str, Mapping[str, float | None]]

    def cell(self, dataset: str, method: str) -> str:
        known = self.accuracy.get(dataset, {})
        if method not in known:
            return NOTHING
        value = known[method]
        return "not transcribed" if value is None else f"{value:g}"

    def knows(self, datasets: Iterable[str]) -> bool:
        """Return whether a value of one of these data sets is known."""
        return any(value is not None for name in set(datasets) for value in self.accuracy.get(name, {}).values())


def read_published(path: Path) -> dict[str, Published]:
    """Return the published values of each table; nothing if the file does not exist.

    Raises:
        UserError: the file is not valid YAML.
    """
    known = read_yaml(path) if path.exists() else {}
    made = {}
    for name, values in known.items():
        if isinstance(values, Mapping) and "source" in values:
            accuracy = {key: dict(value) for key, value in values.items() if isinstance(value, Mapping)}
            made[name] = Published(str(values["source"]), accuracy)
    return made


def comparison_table(
    compared: pd.DataFrame, notes: tuple[str, ...] = (), baseline: str = "none", *, seeds: int = 0,
    published: Published | None = None, plan: Plan | None = None,
) -> Table:  # fmt: skip
    """Return the result of `compare(…)` as a table: one row per method; cells without a value say why.

    Columns that no row has a value for are left out.

    Args:
        compared: the result of `compare(…)`.
        notes: printed below the table.
        baseline: the method that the others are compared with.
        seeds: number of seeds that a complete cell has, where the plan does not say; incomplete cells are marked.
        published: values for an extra column.
        plan: the plan that `compared` was made with; its rows that have no run are named.
    """
    plan = plan or Plan()
    weighed = bool(compared["memory"].notna().any())
    by_row = bool(compared["rows"].notna().any())
    planned = plan.primary is not None
    further = [name for name in METRICS if any(name in metrics for metrics in compared["metrics"])]
    shown = published if published and published.knows(compared["dataset"]) else None
    columns = (
        *(
            "data / model",
            "method",
            "n",
            "test accuracy, %",
            *(METRICS[name] for name in further),
            *(("published, %",) if shown else ()),
        ),
        *(f"difference to {baseline} [95 % interval]", "p (Holm)", "verdict", *(("family",) if planned else ())),
        *("detects, points", "seeds for +1", *(("[rows and seeds]", "p (McNemar)") if by_row else ())),
        *("passes a step", "time a step", *(("memory",) if weighed else ())),
    )
    rows = tuple(
        (
            f"{row.dataset_label} / {row.model}",
            str(row.method_label),
            _count(row.n, plan.seeds(FoundRow(row.dataset, row.model, row.method, row.settings)) or seeds),
            mean_and_spread(row.score),
            *(mean_and_spread(row.metrics[name]) if name in row.metrics else NOTHING for name in further),
            *((shown.cell(str(row.dataset), str(row.method_label)),) if shown else ()),
            "baseline" if row.method == baseline else row.why or difference_and_interval(row.difference),
            p_value(row.p_holm),
            row.verdict or NOTHING,
            *((row.family or NOTHING,) if planned else ()),
            NOTHING if math.isnan(row.detects) else f"{row.detects:.2f}",
            seed_count(row.seeds_for_one),
            *(by_rows(row.rows) if by_row else ()),
            f"{row.passes:.3g}",
            *(NOTHING if math.isnan(ratio) else f"{ratio:.1f}×" for ratio in (row.cost, row.memory)[: 1 + weighed]),
        )
        for row in compared.itertuples()
    )
    explained = (
        "± is the sample standard deviation over the n seeds.",
        *(("F1 is that of the last class, and Matthews the correlation of Matthews, times 100.",) if further else ()),
        "Differences are paired by seed; the interval is Student's t at 95 %, not corrected; p-values of the paired "
        f"t-test are corrected by Holm {_families(compared, plan)}.",
        *((_EQUAL,) if any(d.n > 1 and d.sd == 0 and abs(d.mean) > 1e-12 for d in compared["difference"]) else ()),
        f"Verdicts: better or worse if the corrected p is below 5 %; equivalent if it is not, and two one-sided paired "
        f"t-tests at 5 %, not corrected, show that the difference is within ± {plan.margin:g} points; otherwise not "
        f"known, as with fewer than {MIN_SEEDS} seeds.",
        "Detects: the smallest difference that a paired t-test would detect with 80 % power, given the row's own n and "
        "standard deviation of differences, at 5 % divided by the comparisons in its family (Holm's strictest step). "
        "Seeds for +1: how many seeds would detect one point. Both are as rough as a standard deviation of n seeds.",
        *((_BY_ROW,) if by_row else ()),
        *((_UNTIMED,) if not plan.timed else ()),
        f"Time a step {'and peak memory on the GPU are' if weighed else 'is'} relative to {baseline} (medians over the "
        "runs on the same kind of machine; on a CPU, of CPU time, which other processes on the machine can lengthen"
        f"{'; on a GPU, over the runs that did not share it' if weighed else ''}).",
        *((_LONGER,) if (compared["method"] == "longer").any() else ()),
        *((f"Published: {published.source}.",) if published else ()),
        *((f"Planned, but without a finished run: {missing}.",) if (missing := _missing(compared, plan)) else ()),
    )
    return Table(columns, rows, 2, (*explained, *notes))


def _count(n: int, planned: int) -> str:
    return str(n) if n >= planned else f"{n} of {planned}"


def _missing(compared: pd.DataFrame, plan: Plan) -> str:
    """Return the rows of the plan that have no run, by data set: `imdb: dropout, fgm; mnist: pgd`."""
    found = [FoundRow(row.dataset, row.model, row.method, row.settings) for row in compared.itertuples()]
    of: dict[str, list[str]] = {}
    for row in plan.missing(found):
        of.setdefault(row.dataset, []).append(str(row))
    return "; ".join(f"{dataset}: {', '.join(rows)}" for dataset, rows in of.items())


_LONGER = (
    "Longer training has more steps than the other methods: its passes and its time are those of all its steps, for "
    "each step of theirs."
)
_UNTIMED = "Times are not shown, because the runs shared their cores with other work."
_EQUAL = (
    "Where all n differences of a row are equal, its interval has no width, but no t-test is possible: its p, before "
    "the correction, is that of the exact sign-flip test, 2^(1 − n)."
)
_BY_ROW = (
    "[Rows and seeds]: 95 % percentile interval of the difference, in points, when test rows and seeds are both drawn "
    "again; with few seeds it is too narrow. p (McNemar): exact test on the majority votes over the seeds, and in how "
    "many seeds the two runs' own test is below 5 %. Both are empty for records without the rows."
)


def _families(compared: pd.DataFrame, plan: Plan) -> str:
    tested = compared["p"].notna()
    if plan.primary is None:
        return f"over the {counted(int(tested.sum()), 'comparison')} of this table"
    own = tested & (compared["family"] == "primary")
    family, made = plan.primary, int(own.sum())
    planned = max(len(family.datasets), made)
    where = ", ".join(f"{key.rpartition('.')[2]}={str(value).lower()}" for key, value in family.where.items())
    declared = f"; declared {family.declared}" if family.declared else ""
    others = int(tested.sum()) - made
    rest = "the other one, which is" if others == 1 else f"the {others} others, which are"
    kinds = ("two families: the primary one", f", and {rest} secondary") if others else ("the primary family", "")
    return (
        f"within {kinds[0]}, {family.method}{f' ({where})' if where else ''} against "
        f"{family.against}, one comparison per data set ({planned} planned, {made} made; those not made count in the "
        f"correction{declared}){kinds[1]}"
    )


def seed_count(seeds: float) -> str:
    """Format a number of seeds; infinity becomes `>100,000`, and NaN (not known) a dash."""
    return NOTHING if math.isnan(seeds) else ">100,000" if math.isinf(seeds) else f"{seeds:,.0f}"


def by_rows(rows: RowComparison | None) -> tuple[str, str]:
    """Format the interval over rows and seeds in points, and McNemar's p: `[−0.1, +1.2]`, `0.012 (3 of 5)`."""
    if rows is None:
        return NOTHING, NOTHING
    ends = f"[{signed(100 * rows.low)}, {signed(100 * rows.high)}]"
    return ends, f"{p_value(rows.p)} ({rows.shown} of {rows.pairs})"


def mean_and_spread(score: Estimate) -> str:
    """Format as `91.23 ± 0.45`; one seed has no spread: `91.23`."""
    return f"{score.mean:.2f}" if score.n < 2 else f"{score.mean:.2f} ± {score.sd:.2f}"


def difference_and_interval(difference: PairedDifference) -> str:
    """Format as `+0.31 [−0.20, +0.82]`; one pair has no interval: `+0.31`."""
    if difference.n == 0:
        return NOTHING
    text = signed(difference.mean)
    return text if difference.n < 2 else f"{text} [{signed(difference.low)}, {signed(difference.high)}]"


def p_value(p: float) -> str:
    """Format with three digits; very small values become `<0.001`, and NaN (not tested) a dash."""
    return NOTHING if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float) -> str:
    """Format as `p = 0.012` or `p < 0.001`."""
    text = p_value(p)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def signed(value: float) -> str:
    """Format with a sign, a typographic minus, and no negative zero."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def markdown(table: Table) -> str:
    """Format as GitHub Markdown, padded so that the source is readable too."""
    cells = [[_escape_pipe(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.columns))]
    lines = [_line(row, widths, table.text_columns) for row in cells]
    rule = ["-" * width if i < table.text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return "\n".join(lines) + "\n" + notes


def latex(table: Table) -> str:
    r"""Format as a booktabs `tabular` (needs `\usepackage{booktabs}`), with the notes as comments above it."""
    form = "l" * table.text_columns + "r" * (len(table.columns) - table.text_columns)
    lines = [*(f"% {' '.join(note.split())}" for note in table.notes), rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
    lines += [" & ".join(map(_escape_latex, table.columns)) + r" \\", r"\midrule"]
    previous = None
    for row in table.rows:
        if previous not in (None, row[0]):
            lines.append(r"\addlinespace")
        previous = row[0]
        lines.append(" & ".join(map(_escape_latex, row)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comparison_csv(compared: pd.DataFrame) -> str:
    """Return the numbers of `compare(…)` at full precision, accuracies in percent."""
    numbers = pd.DataFrame(
        {
            "seeds": [" ".join(map(str, seeds)) for seeds in compared["seeds"]],
            **{key: [getattr(score, key) for score in compared["score"]] for key in ("mean", "sd", "low", "high")},
            "difference": [difference.mean for difference in compared["difference"]],
            "difference_low": [difference.low for difference in compared["difference"]],
            "difference_high": [difference.high for difference in compared["difference"]],
        },
        index=compared.index,
    )
    names = compared[["dataset", "model", "dataset_label", "method", "method_label", "n"]]
    rest = compared[["pairs", "p", "p_holm", "verdict", "family"]]
    power = pd.DataFrame({key: [_digits(value) for value in compared[key]] for key in ("detects", "seeds_for_one")},
                         index=compared.index)  # fmt: skip
    by_row = pd.DataFrame(
        {
            f"rows_{key}": [None if one is None else getattr(one, key) for one in compared["rows"]]
            for key in ("low", "high", "p", "shown")
        },
        index=compared.index, dtype=object,
    )  # fmt: skip
    cost = compared[["passes", "cost", "memory", "why"]]
    further = pd.DataFrame(
        {f"{name}_{key}": [getattr(one[name], key) if name in one else None for one in compared["metrics"]]
         for name in METRICS if any(name in one for one in compared["metrics"]) for key in ("mean", "sd")},
        index=compared.index,
    )  # fmt: skip
    return csv(pd.concat([names, numbers, rest, power, by_row, cost, further], axis=1))


def _digits(value: float) -> str:
    """Format with six digits: more of them depend on the platform's numerical integration."""
    return "" if math.isnan(value) else f"{value:.6g}"


def csv(frame: pd.DataFrame, float_format: str | None = None) -> str:
    """Format as CSV. Text that a spreadsheet would take for a formula gets an apostrophe in front."""

    def text(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        one = cell.replace("\r", " ")  # pandas does not quote it
        return f"'{one}" if one.lstrip().startswith(FORMULA) else one

    texts = {
        name: pd.Series([text(cell) for cell in frame[name]], frame.index, object)
        for name in frame
        if not pd.api.types.is_numeric_dtype(frame[name])
    }
    return frame.assign(**texts).to_csv(index=False, lineterminator="\n", float_format=float_format)


def narrow(table: Table) -> Table:
    """Return the table for a terminal: it drops the columns on power and on test rows, and their notes."""
    kept = [i for i, column in enumerate(table.columns) if column not in WIDE]
    return Table(
        tuple(table.columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
        table.text_columns,
        tuple(note for note in table.notes if not note.startswith(("Detects:", "[Rows and seeds]:"))),
    )


def rich_table(table: Table, title: str | None = None) -> RichTable:
    """Format for the terminal: a rule between data sets, each name once, coloured verdicts."""
    shown = RichTable(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for i, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if i < table.text_columns else "right")
    colours = {BETTER: "green", WORSE: "red"}
    for i, row in enumerate(table.rows):
        again = i > 0 and table.rows[i - 1][0] == row[0]
        last = i + 1 == len(table.rows) or table.rows[i + 1][0] != row[0]
        cells = [f"[{colours[cell]}]{cell}[/]" if cell in colours else escape(cell) for cell in row]
        shown.add_row("" if again else cells[0], *cells[1:], end_section=last)
    return shown


def save(text: str, path: Path) -> Path:
    """Write `text` as UTF-8, creating the folder, and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _line(cells: list[str], widths: list[int], text_columns: int) -> str:
    padded = (
        c.ljust(w) if i < text_columns else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join(padded) + " |"


def _escape_pipe(cell: str) -> str:
    return cell.replace("|", r"\|")


def _escape_latex(cell: str) -> str:
    # Character by character, because a replacement must not be escaped again.
    cell = "".join(LATEX.get(c, f"\\{c}" if c in "&%_#${}" else c) for c in cell)
    for symbol, tex in ((MINUS, "$-$"), ("±", r"$\pm$"), ("×", r"$\times$"), (NOTHING, "--"), ("ε", r"$\epsilon$")):
        cell = cell.replace(symbol, tex)
    return cell
