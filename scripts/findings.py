"""Write what the tables say of DropAttack: results/findings.md, and the table in README.md between its two marks.

    python scripts/findings.py

From the committed records alone: the same records give the same bytes.
"""

import argparse
import sys
from pathlib import Path

from dropattack import cli
from dropattack.errors import UserError

SHOWN = ("text", "vision", "bert", "all_rows", "notebooks")  # tables that the README shows, in their order
NOTE = (
    "Mean ± standard deviation over the seeds. Differences are paired by seed; their intervals are not corrected; "
    "p is, by Holm over the comparisons of each table, so that the same runs can get another verdict in another table."
)
TUNED = (
    "Settings of {tables}: every method's learning rate and strength were chosen on validation with as many trials "
    "each, DropAttack's ε as a fraction of what it attacks (`reg.relative=true`, which is not the paper's)."
)
AUTHORS = "notebooks: the authors' own ε = 5, on embeddings that start at random and not from GloVe as theirs did."
BEGIN, END = "<!-- findings: made by `make findings` -->", "<!-- end of findings -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="default: %(default)s")
    args = parser.parse_args()
    return cli.guarded(lambda: write(args.results, args.readme))


def write(results: Path, readme: Path) -> int:
    from dropattack.analysis.tables import save

    page, table = findings(results)
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{readme} has no place for the table: a line {BEGIN} and below it a line {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    print(save(page, results / "findings.md"))
    print(save(f"{before}{BEGIN}\n\n{table}\n{END}{after}", readme))
    return 0


def findings(results: Path) -> tuple[str, str]:
    """(the page, the table of the README)."""
    from dropattack import sweep
    from dropattack.analysis import tables
    from dropattack.analysis.findings import beside_none, beside_others, chosen_settings, rivals
    from dropattack.experiment import CONF
    from dropattack.report import gather

    asked = [sweep.load(CONF, path.stem) for path in sorted((CONF / "table").glob("*.yaml"))]
    asked = [table for table in asked if table.kind == "comparison" and table.seeds > 1]
    found, _ = gather.tables(results, asked)
    if not found:
        raise UserError(
            f"there is no finished table of several seeds in {results}: make one first, `make table-vision`"
        )
    found.sort(key=lambda one: SHOWN.index(one.table.name) if one.table.name in SHOWN else len(SHOWN))
    frames = {f"{one.table.name}, {one.scale}": one.frame for one in found}
    there = {one.table.name for one in found}
    note = [NOTE, TUNED.format(tables=", ".join(name for name in SHOWN if name in there and name != "notebooks"))]
    note = "\n\n".join([*note, *([AUTHORS] if "notebooks" in there else [])])
    against_none = beside_none(frames)
    against_others = beside_others(rivals(frames))
    page = (
        "# What the tables say of DropAttack\n\nMade by `make findings` from the records in this folder.\n\n"
        f"## Beside none\n\n{tables.markdown(against_none)}\n{note}\n\n"
        f"## Beside the other methods\n\n{tables.markdown(against_others)}\n"
        f"## The settings\n\n{tables.markdown(chosen_settings(results / 'tuning'))}"
    )
    shown = [row for row in against_none.rows if row[2].partition(",")[0] in SHOWN]
    return page, f"{tables.markdown(tables.Table(against_none.columns, tuple(shown), 3))}\n{note}\n"


if __name__ == "__main__":
    sys.exit(main())
