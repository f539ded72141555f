"""Records → the table and the picture of one comparison: printed, and written beside each other."""

from pathlib import Path

from rich.console import Console

from dropattack.analysis.compare import compare, provenance
from dropattack.analysis.figures import gain_against_cost
from dropattack.analysis.records import Records
from dropattack.analysis.tables import comparison_table, markdown, rich_table, save


def summarize(records: Records, table: Path, picture: Path, *, note: str, title: str, console: Console) -> None:
    """Print the comparison of all methods with `none`; write it to `table` (Markdown) and `picture`.

    Under the table stand `note`, what the runs ran on, and every record that was left out.
    """
    compared = compare(records.frame)
    ran = "; ".join(f"{what}: {', '.join(names)}" for what, names in provenance(records.frame).items())
    notes = (note, f"Ran on {ran}.", *(f"Left out: {left}." for left in records.left_out))
    made = comparison_table(compared, notes)
    console.print(rich_table(made))
    for line in made.notes:
        console.print(line, style="dim", highlight=False, markup=False)
    save(markdown(made), table)
    seeds = sorted({row.n for row in compared.itertuples()})
    counted = f"{' to '.join(map(str, {seeds[0], seeds[-1]}))} seeds" if seeds else "no seeds"
    legend = f"small dot: one seed · large dot: mean · line: 95 % interval over {counted}"
    gain_against_cost(compared, picture, title=title, note=legend)
    console.print(f"\nTable    {table}\nPicture  {picture}", highlight=False, markup=False)
