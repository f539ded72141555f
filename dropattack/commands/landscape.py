"""Loss landscapes: around finished runs along the same random directions, or on the line between two runs.

    dropattack landscape outputs/tables/records/mnist-cnn-*-s0-*.json --grid 51 --span 1.5
    dropattack landscape A.json B.json --line
    dropattack landscape results/mini/probes.jsonl --draw --match 'mnist-cnn-*' --output elsewhere

Writes one line of values per run to --store, and one set of figures per data set and model to --output. An interrupted
grid is resumed and a finished one is not recomputed. Figures are made from the store alone.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropattack.analysis.encoders import dataset_label
from dropattack.commands.parsing import add_finished_runs, add_store, add_tracker, new_parser
from dropattack.errors import UserError
from dropattack.progress import bar
from dropattack.runs import cli, store

if TYPE_CHECKING:
    from dropattack.probes.landscape import Points
    from dropattack.probes.restored import Restored


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("landscape", __doc__)
    add_finished_runs(parser, "records of finished runs, or a table's folder; with --draw, stores")
    add_store(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/landscape"), help="folder of the figures (default: %(default)s)"
    )
    parser.add_argument("--grid", type=int, default=51, help="points per side, odd (default: %(default)s)")
    parser.add_argument("--span", type=float, default=1.5, help="grid from −span to span (default: %(default)s)")
    parser.add_argument("--rays", type=int, default=0, help="instead of a plane, cuts along this many directions")
    parser.add_argument(
        "--line", action="store_true", help="instead of a plane, the line from the first record to the second"
    )
    parser.add_argument("--normalise", default="filter", choices=("filter", "tensor", "authors"))
    parser.add_argument("--seed", type=int, default=0, help="seed of the directions (default: %(default)s)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--rows", type=int, help="rows of the split (default: all)")
    parser.add_argument("--batch", type=int, default=100, help="batch size (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="concurrent points (default: %(default)s)")
    add_tracker(parser)
    parser.add_argument("--draw", action="store_true", help="only draw figures, from the values in stores")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    contents = _stored(args.records, args.match) if args.draw else _measured(args)
    from dropattack.analysis.landscapes import draw
    from dropattack.sweeps.publish import publish

    if not args.draw:
        print(args.store)
    for name, some in _together(contents).items():
        print(*(drawn := draw(some, args.output, name)), sep="\n")
        about = {key: some[0]["description"][key] for key in ("dataset", "model", "scale", "split")}
        where = [f"paths.output={args.runs}"] if args.runs else []
        publish(drawn, name=f"landscape-{name}", kind="landscape", about=about,
                group=args.group or f"{about['dataset']}-{about['model']}-{about['scale']}",
                overrides=[f"tracker={args.tracker}", *where])  # fmt: skip
    return 0


APART = ("run_id", "method", "seed", "result", "from", "to")  # in which landscapes of one figure may differ


def _together(contents: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the landscapes of each set of figures, by its name; sets of one data set and model are numbered.

    Landscapes of other rows, directions or grids are not drawn on one scale.
    """
    sets: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for content in contents:
        about = content["description"]
        name = content["run"] if content["kind"] == "line" else f"{about['dataset']}-{about['model']}"
        way = {key: value for key, value in about.items() if key not in APART}
        sets[f"{name}-{content['kind']}"][json.dumps([way, content["axes"]], sort_keys=True)].append(content)
    return {
        f"{name}-{number}" if len(ways) > 1 else name: some
        for name, ways in sets.items() for number, some in enumerate(ways.values(), 1)
    }  # fmt: skip


def _stored(paths: Sequence[Path], match: str) -> list[dict[str, Any]]:
    """Return the landscapes in stores whose run's name matches."""
    from dropattack.probes import store

    found = [content for path in paths for content in store.landscapes(path) if fnmatchcase(content["run"], match)]
    if not found:
        raise UserError(f"there are no landscapes in {', '.join(map(str, paths))}")
    return found


def _measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the landscapes of the records, computing missing points."""
    from dropattack.probes.landscape import line, plane, rays
    from dropattack.runs.restore import restore

    records = store.places(args.records, args.runs, args.match)
    if args.line and len(records) != 2:
        raise UserError(f"--line needs two records, got {len(records)}")
    common = {"grid": args.grid, "span": args.span, "seed": args.seed, "normalise": args.normalise}
    restored = partial(restore, data=args.data, output=args.runs, device=args.device)
    if args.line:
        (one, first), (other, second) = ((path.stem, restored(path)) for path in records)
        ends = {"from": one, "to": other}
        return [_values(args, first, line(first.model, second.model, grid=args.grid), f"{one}--{other}", ends)]
    contents = []
    about = {"normalise": args.normalise, "direction_seed": args.seed}
    for path in records:
        found = restored(path)
        grid = rays(found.model, **common, count=args.rays) if args.rays else plane(found.model, **common)
        contents.append(_values(args, found, grid, path.stem, about))
    return contents


def _values(
    args: argparse.Namespace, found: Restored, grid: Points, run: str, about: Mapping[str, object]
) -> dict[str, Any]:
    """Measure `grid` with a progress bar, and return its line in the store."""
    from dropattack.probes.landscape import measure
    from dropattack.probes.scratch import Crew
    from dropattack.probes.suite import result_of

    config = found.record["config"]
    description = {
        "run_id": found.record["run_id"],
        **{group: config[group]["name"] for group in ("dataset", "model", "scale")},
        "dataset": dataset_label(config["dataset"]), "fingerprint": found.record["data"]["fingerprint"],
        "method": config["reg"]["name"], "seed": config["seed"], "split": args.split,
        "rows": len(found.split(args.split, args.rows)), "result": result_of(found.record), **about,
    }  # fmt: skip
    with bar() as shown:
        task = shown.add_task(f"{run}-{grid.kind}", total=len(grid.offsets))
        content = measure(
            grid, lambda: Crew(found.model, found.batches(args.split, rows=args.rows, size=args.batch), args.workers),
            args.store, run, description, step=lambda done, total: shown.update(task, completed=done),
        )  # fmt: skip
        shown.update(task, completed=len(grid.offsets))
    return content
