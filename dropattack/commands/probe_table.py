"""Make tables and figures from the values of `dropattack probe`, for each data set and model.

    dropattack probe-table --records results/mini/vision --store results/mini/probes.jsonl

Writes <dataset>-<model>.md and .csv, and the figures, to `probe_tables/` in the folder of the records.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dropattack.commands.parsing import add_store, add_tracker, new_parser
from dropattack.errors import UserError
from dropattack.runs import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("probe-table", __doc__)
    parser.add_argument("--records", type=Path, required=True, help="a table's folder, or a folder of records")
    add_store(parser)
    parser.add_argument("--output", type=Path, help="output folder (default: probe_tables/ in the folder of --records)")
    add_tracker(parser)
    args = parser.parse_args(argv)
    return cli.guarded(lambda: run(args, args.output or args.records / "probe_tables"))


def run(args: argparse.Namespace, output: Path) -> int:
    from dropattack.analysis import formats, probe_figures
    from dropattack.analysis.encoders import file_name
    from dropattack.analysis.probes import compare_probes, probe_csv, probe_table, with_probes
    from dropattack.analysis.records import read_records
    from dropattack.sweeps.publish import publish

    if not args.records.is_dir():
        raise UserError(f"there is no folder {args.records}")
    found = read_records(args.records)
    frame = with_probes(found.frame, args.store)
    if frame.empty:
        raise UserError(f"no record in {args.records} has probes in {args.store}: run dropattack probe first")
    compared = compare_probes(frame)
    names: Counter[str] = Counter()
    for (label, model, context), rows in compared.groupby(["dataset_label", "model", "context"], sort=False):
        own = frame[frame["context"] == context]
        dataset = own["dataset"].iloc[0]
        name, title = f"{dataset}-{file_name(model)}", f"{label} · {model}"
        names[name] += 1
        name += f"-{names[name]}" * (names[name] > 1)
        scale = own["scale"].iloc[0]
        made = formats.markdown(probe_table(rows))
        left_out = "".join(f"\nLeft out: {left}.\n" for left in found.left_out)
        written = [formats.save(f"# {title}: beyond accuracy\n\n{made}{left_out}", output / f"{name}.md"),
                   formats.save(probe_csv(rows), output / f"{name}.csv")]  # fmt: skip
        for figure in (probe_figures.robustness, probe_figures.gradients):
            for suffix in (".png", ".svg"):
                if path := figure(own, output / f"{name}-{figure.__name__}{suffix}", title=title):
                    written.append(path)
        print(*written, sep="\n")
        about = {"dataset": dataset, "model": model, "scale": scale}
        publish(written, name=f"probes-{name}", kind="probes", group=args.group or f"{name}-{scale}", about=about,
                overrides=[f"tracker={args.tracker}"])  # fmt: skip
    return 0
