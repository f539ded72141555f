"""Write the findings: results/findings.md and the README's answer and table on DropAttack; results/methods.md on all.

    python scripts/findings.py

Uses only the committed records: the same records give the same bytes.
"""

import argparse
import sys
from pathlib import Path

from dropattack.runs import cli
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table, load_tables
from dropattack.sweeps.tuning import tuned_cells

COMMAND = "make findings"
PARTS = {"answer": "answer", "findings": "table"}  # part of the README: the attribute of `Findings`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="default: %(default)s")
    args = parser.parse_args()
    return cli.guarded(lambda: write(args.results, args.readme))


def methods() -> set[str]:
    """Return the methods of the table of all methods."""
    from dropattack.report.methods import TABLE

    return {method for _, _, method in tuned_cells(load_table(CONF, TABLE))}


def write(results: Path, readme: Path) -> int:
    from dropattack.analysis.formats import save
    from dropattack.report import gather
    from dropattack.report.claims import read_claims
    from dropattack.report.findings import findings
    from dropattack.report.methods import methods_page
    from dropattack.report.places import filled

    asked = load_tables(CONF)
    found, _ = gather.tables(results, asked)
    made = findings(results, found, read_claims(CONF / "claims.yaml", [table.name for table in asked]))
    parts = {part: getattr(made, name) for part, name in PARTS.items()}
    text = filled(readme.read_text(encoding="utf-8"), parts, page=readme, command=COMMAND)
    print(save(made.page, results / "findings.md"))
    print(save(methods_page(found, methods()), results / "methods.md"))
    print(save(text, readme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
