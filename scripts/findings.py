"""Write the findings on DropAttack: results/findings.md, and the table in README.md between its two markers.

    python scripts/findings.py

Uses only the committed records: the same records give the same bytes.
"""

import argparse
import sys
from pathlib import Path

from dropattack.errors import UserError
from dropattack.runs import cli
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table

BEGIN, END = "<!-- findings: made by `make findings` -->", "<!-- end of findings -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="default: %(default)s")
    args = parser.parse_args()
    return cli.guarded(lambda: write(args.results, args.readme))


def write(results: Path, readme: Path) -> int:
    from dropattack.analysis.tables import save
    from dropattack.report.findings import findings

    asked = [load_table(CONF, path.stem) for path in sorted((CONF / "table").glob("*.yaml"))]
    page, table = findings(results, asked)
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{readme} has no place for the table: add a line {BEGIN} and below it a line {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    print(save(page, results / "findings.md"))
    print(save(f"{before}{BEGIN}\n\n{table}\n{END}{after}", readme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
