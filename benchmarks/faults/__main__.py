"""Put a run into trouble in some forty ways, with four trainers, and see how each ends: `python -m benchmarks.faults`.

All train the same network on the same data with their defaults, save every third step (DropAttack: each), and are
started again with the same command after a fault, at most twice, as their documentation says. Each is compared with
its own unbroken run. "Survived exactly": the final weights are the same, bit for bit. "Survived with a loss": the
weights are finite, and either the loss was reported, or every epoch read each row once, so that only random numbers
or the order of rows differ. "Wrong silently": exit code 0, and neither. "Died": no run finishes.

The JSON keeps what is measured, so the command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", WANDB_MODE="disabled",
                  CUDA_VISIBLE_DEVICES="")  # fmt: skip

import lightning

from benchmarks.faults.faults import FAULTS, OURS
from benchmarks.faults.judge import OUTCOMES, judged, unbroken
from benchmarks.faults.task import composed
from benchmarks.faults.trainers import TRAINERS
from dropattack import provenance
from dropattack.files import write_atomically
from dropattack.runs import experiment, record

COMMAND = "python -m benchmarks.faults --json results/survival/scorecard.json"


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--trainers", nargs="*", choices=TRAINERS, default=[*TRAINERS], help="(default: all)")
    parser.add_argument("--json", type=Path, help="where the result goes, and its table as .md beside it")
    parser.add_argument("--rerun", action="store_true", help="repeat the chosen faults that the JSON has")
    args = parser.parse_args()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if args.json and args.json.exists():
        rows = {(row["fault"], row["trainer"]): row for row in json.loads(args.json.read_text())["rows"]}
    wanted: dict[Any, Any] = {}
    config = composed()
    record.code(experiment.resolve(config))  # parsed once, for all processes
    todo = [(trainer, fault) for fault in FAULTS for trainer in args.trainers
            if trainer in fault.trainers and args.only in fault.name
            and (args.rerun or (fault.name, trainer) not in rows)]  # fmt: skip
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where waiting for the disk takes no time
    gc.freeze()  # or each fork would copy what it collects
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        place = Path(folder) / "run"
        for trainer, fault in todo:
            key = (trainer, *map(str, fault.settings.items()))
            if key not in wanted:
                wanted[key] = unbroken(trainer, config, place, fault.settings)
            row = rows[fault.name, trainer] = judged(trainer, fault, config, place, wanted[key])
            row["commit"] = (provenance.commit() or {}).get("hash", "-")[:10]
            print(f"{trainer}: {fault.name}: {row['outcome']} ({', '.join(row['ends'])})", flush=True)
            if args.json:
                write(args.json, rows)
    return 0


def write(path: Path, rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Write the JSON, and the table as Markdown beside it."""
    versions = {**provenance.versions(), "lightning": lightning.__version__}
    found = {"commit": provenance.commit(), "versions": versions, "hardware": provenance.hardware(),
             "rows": list(rows.values())}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
    write_atomically(path.with_suffix(".md"), markdown(rows, versions).encode())


def markdown(rows: dict[tuple[str, str], dict[str, Any]], versions: dict[str, str]) -> str:
    """Return the table of outcomes, their counts, and the faults that another trainer took better than ours."""
    trainers = [name for name in TRAINERS if any(trainer == name for _, trainer in rows)]
    faults = [fault.name for fault in FAULTS if any(name == fault.name for name, _ in rows)]

    def cell(fault: str, trainer: str) -> str:
        row = rows.get((fault, trainer))
        return "" if row is None else row["outcome"] + ", after it hung" * ("hung" in row["ends"])

    def line(cells: Any) -> str:
        return f"| {' | '.join(cells)} |"

    def rank(fault: str, trainer: str) -> int:
        return 2 * OUTCOMES.index(rows[fault, trainer]["outcome"]) + ("hung" in rows[fault, trainer]["ends"])

    counts = {name: Counter(row["outcome"] for (_, trainer), row in rows.items() if trainer == name)
              for name in trainers}  # fmt: skip
    lost = []
    for fault in [fault for fault in faults if (fault, OURS[0]) in rows]:
        if better := [n for n in trainers if (fault, n) in rows and rank(fault, n) < rank(fault, OURS[0])]:
            others = ", ".join(f"{name} ({cell(fault, name)})" for name in better)
            lost.append(f"- {fault}: {cell(fault, OURS[0])}; better: {others}")
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "lightning", "accelerate"))
    head = [line(["fault", *trainers]), line(["---"] * (1 + len(trainers)))]
    sums = [line(["outcome", *trainers]), line(["---"] * (1 + len(trainers)))]
    parts = [
        "# Faults, and how runs end",
        f"`{COMMAND}` ({used})",
        __doc__.split("\n\n")[1].replace("\n", " "),
        "\n".join([*sums, *(line([o, *(str(counts[n][o]) for n in trainers)]) for o in OUTCOMES)]),
        "\n".join([*head, *(line([fault, *(cell(fault, n) for n in trainers)]) for fault in faults)]),
        "## Where another trainer does better than DropAttack",
        "\n".join(lost) or "Nowhere in this table.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
