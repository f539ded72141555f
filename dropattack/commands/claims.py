"""Write the claims of conf/claims.yaml with their verdicts: results/claims.md and its picture.

    dropattack claims

Uses only the committed records and probes: the same files give the same page.
"""

from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import add_results, check_results, new_parser
from dropattack.runs import cli
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_tables


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("claims", __doc__)
    add_results(parser)
    parser.add_argument("--claims", type=Path, default=CONF / "claims.yaml", help="default: conf/claims.yaml")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args.results, args.claims))


def run(results: Path, path: Path) -> int:
    check_results(results)
    from dropattack.report import gather
    from dropattack.report.claim_page import write
    from dropattack.report.claims import read_claims

    asked = load_tables(CONF)
    claims = read_claims(path, [table.name for table in asked])
    found, _ = gather.tables(results, asked)
    print(*write(results, claims, found), sep="\n")
    return 0
