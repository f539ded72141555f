"""Write the claims of conf/claims.yaml with their verdicts: results/claims.md and its picture.

    python scripts/claims.py

Uses only the committed records and probes: the same files give the same page.
"""

import argparse
import sys
from pathlib import Path

from dropattack.runs import cli
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--claims", type=Path, default=CONF / "claims.yaml", help="default: conf/claims.yaml")
    args = parser.parse_args()
    return cli.guarded(lambda: run(args.results, args.claims))


def run(results: Path, path: Path) -> int:
    from dropattack.report import gather
    from dropattack.report.claim_page import write
    from dropattack.report.claims import read_claims

    asked = [load_table(CONF, table.stem) for table in sorted((CONF / "table").glob("*.yaml"))]
    claims = read_claims(path, [table.name for table in asked])
    found, _ = gather.tables(results, asked)
    print(*write(results, claims, found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
