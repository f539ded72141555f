"""Repeat a committed run with the current code, and if every number is bit-equal, record that in results/.

  python scripts/equivalent.py pheme-bigru-none-s0-c842d833c2a4     a name of results/<scale>/<table>/runs.txt

One run shows it for all runs of its context (data, model, training), and for its method. Numbers can only be equal on
the kind of CPU that made the record, or if the network's kernels are the same on both (as for a GRU). Runs with
portable kernels (midi) need the environment variables that the error names.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from dropattack.analysis import equivalent
from dropattack.analysis.records import code_of, read_records
from dropattack.errors import UserError
from dropattack.runs import cli, experiment, record, restore, store

RESULTS = experiment.CONF.parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", help="names of committed runs")
    parser.add_argument("--scale", default="mini", help="scale of the runs (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: that of conf/config.yaml)")
    args = parser.parse_args()
    return cli.guarded(lambda: sum(show(name, args) for name in args.run))


def show(name: str, args: argparse.Namespace) -> int:
    kept = store.read(args.results / args.scale / store.RECORDS)
    found = [one for key, one in kept.items() if key.partition(" ")[0] == name]
    if not found:
        raise UserError(f"{args.results / args.scale / store.RECORDS} has no run {name}")
    with tempfile.TemporaryDirectory() as folder:
        config = restore.complete(found[0]["config"], data=args.data, output=Path(folder))
        now = record.read(experiment.run_anyway(experiment.Run.of_values(config)))
        rows = [_row(one, Path(folder) / "rows" / str(number)) for number, one in enumerate((*found, now))]
    failed = 0
    for before, row in zip(found, rows[:-1], strict=True):
        of = f"{name} of commit {(before['commit'] or {}).get('hash', '-')[:10]}"
        if differing := equivalent.differences(before, now):
            print(f"{of}: differs in {', '.join(differing[:5])}{' …' * (len(differing) > 5)}", file=sys.stderr)
            failed = 1
        else:
            declare(args.results / equivalent.FILE.name, name, row, rows[-1])
            print(f"{of}: bit-equal to the result of the current code")
    return failed


def _row(one: dict, folder: Path) -> dict:
    return read_records(record.write(folder / "record.json", one)).frame.iloc[0].to_dict()


def declare(file: Path, name: str, old: dict, new: dict) -> None:
    """Add both digests to the file, which is sorted."""
    entries = yaml.safe_load(file.read_text()) or {} if file.exists() else {}
    entry = entries.setdefault(name, {"context": old["context"], "reg": old["method"], "code": [], "method": []})
    for row in (old, new):
        for key, digest in zip(("code", "method"), code_of(row), strict=True):
            entry[key] += [digest] * (digest not in entry[key])
    header = (
        "# Codes whose runs are bit-equal, by the run that showed it: scripts/equivalent.py. Not written by hand.\n"
    )
    file.write_text(header + yaml.safe_dump(entries, default_flow_style=None))


if __name__ == "__main__":
    sys.exit(main())
