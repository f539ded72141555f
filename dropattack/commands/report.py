"""Write all results as one page: tables, curves, landscapes, costs and method cards.

    dropattack report
    dropattack report --results results --output results/report.html

The page is one self-contained file, made only from the records, probes, landscapes and benchmarks in --results; the
same files give the same bytes. Missing parts are left out, with a sentence naming the command that makes them.
"""

import gc
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import add_results, check_results, new_parser
from dropattack.errors import UserError
from dropattack.runs import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("report", __doc__)
    add_results(parser)
    parser.add_argument("--output", type=Path, default=Path("results/report.html"), help="default: %(default)s")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: write(args.results, args.output))


def write(results: Path, output: Path) -> int:
    check_results(results)
    from dropattack.files import write_atomically
    from dropattack.report.claims import read_claims
    from dropattack.report.page import build
    from dropattack.runs.experiment import CONF
    from dropattack.sweeps.table import KINDS, load_tables

    tables = load_tables(CONF)
    # First tables that are tuned and compare several seeds, last those with one seed.
    kinds = list(KINDS)
    tables.sort(key=lambda t: (t.seeds == 1, kinds.index(t.kind), "settings=tuned" not in t.grids[0], t.name))
    if any(results.glob("*/probes.jsonl")):
        import dropattack.report.probes  # noqa: F401
    gc.freeze()  # statsmodels collects garbage at every correction; skip all imported objects
    claims = read_claims(CONF / "claims.yaml", [table.name for table in tables])
    page = build(results, tables=tables, docs=CONF.parent / "docs", claims=claims)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page.encode())
    except OSError as error:
        raise UserError(f"cannot write the report to {output} ({error.strerror})") from error
    print(output)
    return 0
