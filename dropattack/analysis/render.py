"""A folder of records → the files of one table: Markdown, CSV, LaTeX and a picture."""

from pathlib import Path

from dropattack.analysis import compare, figures, tables
from dropattack.analysis.records import read_records
from dropattack.errors import UserError


def render(name: str, title: str, kind: str, folder: Path, *, x: str | None = None) -> list[Path]:
    """Write `table.md`, `table.csv`, `table.tex` and the figure beside `folder/records`; returns the paths.

    Args:
        kind: `comparison` draws gain against cost; `curve` draws accuracy against the setting `x`.

    Raises:
        UserError: there is no finished record in the folder.
    """
    records = folder / "records"
    read = read_records(records) if records.is_dir() else None
    if read is None or read.frame.empty:
        raise UserError(f"table {name}: there is no finished record in {records}; run it first")
    compared = compare.compare(read.frame)
    ran = "; ".join(f"{what}: {', '.join(names)}" for what, names in compare.provenance(read.frame).items())
    table = tables.comparison_table(compared, (f"{ran}.", *(f"Left out: {left}." for left in read.left_out)))
    written = [
        tables.save(f"# {title}\n\n{tables.markdown(table)}", folder / "table.md"),
        tables.save(tables.comparison_csv(compared), folder / "table.csv"),
        tables.save(tables.latex(table), folder / "table.tex"),
    ]
    for suffix in ("png", "svg"):
        path = folder / f"figure.{suffix}"
        note = "small dot: one seed · large dot: mean · line: 95 % interval"
        if kind == "curve" and x is not None:
            written.append(figures.accuracy_against(read.frame, x, path, title=title))
        else:
            written.append(figures.gain_against_cost(compared, path, title=title, note=note))
    return written
