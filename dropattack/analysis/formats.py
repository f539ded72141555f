"""A table as Markdown, CSV, LaTeX (booktabs) and on a terminal, and numbers as text. No number is computed here."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table as RichTable

from dropattack.statistics import BETTER, WORSE, Estimate, PairedDifference

LATEX = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
FORMULA = ("=", "+", "-", "@")  # beginnings of cells that spreadsheets compute
WIDE = ("detects, points", "seeds for +1", "[rows and seeds]", "p (McNemar)")  # left out on a terminal
MINUS, NOTHING = "−", "–"


@dataclass(frozen=True)
class Table:
    """Formatted cells. The first `text_columns` columns are text (left-aligned), the others numbers (right-aligned)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    notes: tuple[str, ...] = ()


def seed_count(seeds: float) -> str:
    """Format a number of seeds; infinity becomes `>100,000`, and NaN (not known) a dash."""
    return NOTHING if math.isnan(seeds) else ">100,000" if math.isinf(seeds) else f"{seeds:,.0f}"


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
