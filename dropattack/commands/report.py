"""Write all results as one page: tables, curves, landscapes, costs and method cards.

    dropattack report
    dropattack report mine.yaml --results outputs/tables/results

The page is one self-contained file, made only from the records, probes, landscapes and benchmarks in --results; the
same files give the same bytes. Missing parts are left out, with a sentence naming the command that makes them. Name the
file of each table of your own: the page takes its title and its kind from there.
"""

import gc
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import add_results, check_results, new_parser
from dropattack.errors import UserError
from dropattack.runs import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("report", __doc__)
    parser.add_argument(
        "tables", nargs="*", default=[], metavar="TABLE.yaml", help="files of tables of your own, shown first"
    )
    add_results(parser)
    parser.add_argument("--output", type=Path, help="default: report.html in the folder of --results")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: write(args.results, args.output or args.results / "report.html", args.tables))


def write(results: Path, output: Path, files: Sequence[str] = ()) -> int:
    check_results(results)
    from dropattack.files import write_atomically
    from dropattack.report.claims import read_claims
    from dropattack.report.page import build
    from dropattack.runs import store
    from dropattack.runs.experiment import CONF, say
    from dropattack.sweeps.table import KINDS, is_file, load_table, load_tables

    if others := [name for name in files if not is_file(name)]:
        raise UserError(f"{others[0]} is not a file that ends with .yaml; tables of conf/table/ need no name")
    tables, own = load_tables(CONF), [load_table(CONF, name) for name in files]
    there = [folder for folder in sorted(results.glob("*/*/")) if store.is_table(folder)]
    known, mine = {table.name for table in tables}, {table.name for table in own}
    for folder in there:
        if folder.name not in known | mine:
            say(f"{folder} is left out: name its file, as in `dropattack report {folder.name}.yaml`")
    if own and not any(folder.name in known - mine for folder in there):
        tables = []  # a page of one's own tables alone, without the claims that this project tests
    # First tables that are tuned and compare several seeds, last those with one seed.
    kinds = list(KINDS)
    tables.sort(key=lambda t: (t.seeds == 1, kinds.index(t.kind), "settings=tuned" not in t.grids[0], t.name))
    if any(results.glob("*/probes.jsonl")):
        import dropattack.report.probes  # noqa: F401
    gc.freeze()  # statsmodels collects garbage at every correction; skip all imported objects
    claims = read_claims(CONF / "claims.yaml", sorted(known)) if tables else None
    page = build(results, tables=[*own, *tables], docs=CONF.parent / "docs", claims=claims)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page.encode())
    except OSError as error:
        raise UserError(f"cannot write the report to {output} ({error.strerror})") from error
    print(output)
    return 0
