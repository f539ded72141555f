"""Tests and measurements that need a GPU, within a time limit: `make gpu BUDGET=540`.

  python scripts/gpu.py pack --to .gpu               pack the data for a machine without it, in parts
  python scripts/gpu.py run --budget 540 --to DIR    tests, costs, concurrency, full-size cells, most important first
  python scripts/gpu.py unpack DIR                   import the output into results/
  python scripts/gpu.py page                         write the numbers of docs/gpu.md

`run` resumes where it was cut off. `--device cpu --scale smoke` rehearses everything on a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from importlib import util
from pathlib import Path

from dropattack import provenance
from dropattack.files import write_atomically
from dropattack.gpu import cells, mps, parts, plan, results, stages
from dropattack.runs import cli, experiment, record, store
from dropattack.runs.resolvers import SCALES

ROOT = experiment.CONF.parent
WHEELS = ("hydra-core==1.3.8", "omegaconf==2.3.1", "antlr4-python3-runtime==4.9.3")  # pure Python
MIB = 1 << 20
PAGE = Path("docs/gpu.md")


def pack(args: argparse.Namespace) -> int:
    wanted = cells.cells_of(args.tables, scale=args.scale, output=Path("outputs/gpu"))
    commit = provenance.commit()
    if commit is None or commit["dirty"]:
        print("the code differs from its commit: commit first, or records will be marked dirty", file=sys.stderr)
    for folder, size in parts.pack(wanted, to=args.to, limit=int(args.limit * MIB), wheels=args.wheels):
        print(f"{folder}: {size / MIB:.1f} MiB")
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            print(f"  {file.stat().st_size / MIB:7.2f}  {file.relative_to(folder)}")
    write_atomically(args.to / "commit.json", json.dumps(commit).encode())
    return 0


def run(args: argparse.Namespace) -> int:
    folder = args.to.absolute()
    planned = plan.stages(folder, device=args.device, scale=args.scale, tables=args.tables, jobs=args.jobs)
    if args.only:
        planned = [stage for stage in planned if stage.name in args.only]
    outcomes = stages.run_stages(planned, budget=args.budget, folder=folder, root=ROOT)
    print(results.summary(outcomes))
    if args.archive:
        for name in stages.bundle(folder, args.archive):
            print(f"too large for the archive: {name}", file=sys.stderr)
    return int(any(outcome.state == "failed" for outcome in outcomes))


def tests(args: argparse.Namespace) -> int:
    """Run the tests that need a GPU; collect only their files, because packages that others need may be missing."""
    files = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in f.read_text())
    options = ["-m", "gpu", "-rs", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    if not args.collect_only and util.find_spec("xdist") and (cores := os.cpu_count() or 1) >= 4:
        options += ["-n", str(min(8, cores // 2))]  # a test uses the GPU for moments
    command = [sys.executable, "-m", "pytest", *options, *files]
    return subprocess.run([*command, *(["--collect-only"] * args.collect_only)], cwd=ROOT, check=False).returncode


def run_cells(args: argparse.Namespace) -> int:
    jobs, under_mps = plan.concurrency(args.to.parent) if args.jobs is None else (args.jobs, args.mps)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", provenance.JOBS: str(jobs)}
    extra = ["tracker=none", "trainer.threads=1", f"trainer.device={args.device}", "trainer.progress=none"]
    if args.device == "cuda":  # midi's pinned CPU kernels must be set before torch is imported
        extra.append("trainer.kernels=native")
    found = cells.cells_of(args.tables, scale=args.scale, output=args.to / "runs", extra=[*extra, *args.override])
    wanted = {cell: path for cell, path in found.items() if set(args.only) <= set(cell)}
    committed = store.read(ROOT / "results" / args.scale / store.RECORDS).values()
    known = [found["run_id"] for found in committed if found["status"] in record.DONE]
    with mps.mps() if under_mps else nullcontext():
        return int(cells.run_cells(wanted, jobs=jobs, known=known, records=args.to / plan.RECORDS) > 0)


def unpack(args: argparse.Namespace) -> int:
    print(*results.unpack(args.folder, args.results, args.tables), sep="\n")
    return 0


def page_of(text: str, folder: Path) -> str:
    """Return docs/gpu.md with its table written again, from the committed results in `folder`."""
    from dropattack.report import gpu, places

    return places.filled(text, {"table": gpu.table(folder)}, page=PAGE, command="python scripts/gpu.py page")


def page(args: argparse.Namespace) -> int:
    path = ROOT / PAGE
    write_atomically(path, page_of(path.read_text(encoding="utf-8"), args.results).encode())
    print(path)
    return 0


ACTIONS = {"pack": pack, "run": run, "tests": tests, "cells": run_cells, "unpack": unpack, "page": page}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    own = {name: commands.add_parser(name) for name in ACTIONS}
    own["pack"].add_argument("--to", type=Path, default=Path(".gpu"), help="folder of the parts (%(default)s)")
    own["pack"].add_argument("--limit", type=float, default=60.0, help="MiB per part (%(default)s)")
    own["pack"].add_argument("--wheels", nargs="*", default=WHEELS, help="wheels that the machine lacks (%(default)s)")
    own["run"].add_argument("--budget", type=float, default=540, help="seconds for all stages (%(default)s)")
    own["run"].add_argument(
        "--to", type=Path, default=Path("outputs/gpu"), help="output folder of the stages (%(default)s)"
    )
    own["run"].add_argument("--archive", type=Path, help="also bundle the results into this .tar.gz")
    own["run"].add_argument("--only", nargs="+", metavar="STAGE", help="run only these stages")
    own["tests"].add_argument("--collect-only", action="store_true")
    own["cells"].add_argument("--to", type=Path, required=True, help="output folder of the runs")
    own["cells"].add_argument("--mps", action="store_true", help="run under NVIDIA's Multi-Process Service")
    own["cells"].add_argument("--override", nargs="*", default=[], help="more overrides for all cells")
    own["cells"].add_argument(
        "--only", action="append", default=[], metavar="OVERRIDE", help="run only these cells, such as dataset=mnist"
    )
    for name in ("unpack", "page"):
        own[name].add_argument("--results", type=Path, default=Path("results"), help="%(default)s")
    own["unpack"].add_argument("folder", type=Path, help="the folder or archive that `run` wrote")
    for name in ("pack", "run", "cells", "unpack"):
        own[name].add_argument(
            "--tables", nargs="+", default=list(plan.TABLES), help="tables in conf/table/ (%(default)s)"
        )
    for name in ("pack", "run", "cells"):
        own[name].add_argument("--scale", default="full", choices=SCALES)
    for name in ("run", "cells"):
        own[name].add_argument("--device", default="cuda", choices=("cuda", "cpu"))
        own[name].add_argument("--jobs", type=int, help="cells at a time (default: the best measured number)")
    args = parser.parse_args()
    return cli.guarded(lambda: ACTIONS[args.command](args))


if __name__ == "__main__":
    sys.exit(main())
