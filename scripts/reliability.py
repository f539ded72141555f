"""Write the numbers of docs/reliability.md: the faults, the kills and the long sweeps.

    python scripts/reliability.py

Uses only what is committed in results/survival/: the same files give the same bytes.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dropattack.files import write_atomically
from dropattack.report.places import filled
from dropattack.runs import cli

PAGE = Path("docs/reliability.md")
COMMAND = "python scripts/reliability.py"
RESULTS = Path("results/survival")
PLACES = ("preparation", "training", "checkpoint", "result")


def body(page: Path) -> str:
    """Return a page without its title, with its headings one level lower and its pictures found from docs/."""
    text = page.read_text(encoding="utf-8").partition("\n")[2].strip()
    return text.replace("\n## ", "\n### ").replace("](soak.svg)", f"](../{RESULTS.as_posix()}/soak.svg)")


def kills(folder: Path) -> str:
    """Return a sentence, and the kills of each method by what they interrupted."""
    found = json.loads((folder / "kills.json").read_text(encoding="utf-8"))
    methods: dict[str, Counter[str]] = {}
    for row in found["rows"]:
        counts = methods.setdefault(row["cell"].split("-", 2)[2], Counter())
        counts.update([row["within"], "kills", *(["equal"] if not row["differs"] else [])])
    counted = [(name, *(counts[key] for key in ("kills", *PLACES, "equal"))) for name, counts in methods.items()]
    totals = ("all", *(sum(column) for column in list(zip(*counted, strict=True))[1:]))
    lines = ["| method | kills | in preparation | in training | writing a checkpoint | writing the result | equal |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
             *(f"| {' | '.join(map(str, line))} |" for line in [*counted, totals])]  # fmt: skip
    head = f"Of {found['kills']} kills, {found['equal']} ended like the run that nobody killed: the same record"
    command = (
        f"`python -m tests.survival --kills {found['planned']} --seed {found['seed']} --json {RESULTS}/kills.json`"
    )
    rest = found["planned"] - found["kills"]
    left = f" {rest} more are planned but not made yet." if rest else ""
    return f"{head} but for its times, and the same weights by their SHA-256.{left}\n\n{command}\n\n" + "\n".join(lines)


PARTS: dict[str, Callable[[Path], str]] = {
    "scorecard": lambda folder: body(folder / "scorecard.md"),
    "kills": kills,
    "soak": lambda folder: body(folder / "soak.md"),
}


def written(text: str, folder: Path) -> str:
    """Return the page with its parts written again."""
    return filled(text, {part: make(folder) for part, make in PARTS.items()}, page=PAGE, command=COMMAND)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_atomically(PAGE, written(PAGE.read_text(encoding="utf-8"), RESULTS).encode())
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
