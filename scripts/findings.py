"""Write the findings on DropAttack: results/findings.md, and the answer and the table in README.md.

    python scripts/findings.py

Uses only the committed records: the same records give the same bytes.
"""

import argparse
import sys
from pathlib import Path

from dropattack.errors import UserError
from dropattack.runs import cli
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_tables

MARKERS = {  # part of the README: its first and its last line
    "answer": ("<!-- answer: made by `make findings` -->", "<!-- end of answer -->"),
    "table": ("<!-- findings: made by `make findings` -->", "<!-- end of findings -->"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="default: %(default)s")
    args = parser.parse_args()
    return cli.guarded(lambda: write(args.results, args.readme))


def write(results: Path, readme: Path) -> int:
    from dropattack.analysis.tables import save
    from dropattack.report import gather
    from dropattack.report.claims import read_claims
    from dropattack.report.findings import findings

    asked = load_tables(CONF)
    found, _ = gather.tables(results, asked)
    made = findings(results, found, read_claims(CONF / "claims.yaml", [table.name for table in asked]))
    text = readme.read_text(encoding="utf-8")
    for part, (begin, end) in MARKERS.items():
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UserError(f"{readme} has no place for the {part}: add a line {begin} and below it a line {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{getattr(made, part)}\n{end}{rest.partition(end)[2]}"
    print(save(made.page, results / "findings.md"))
    print(save(text, readme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
