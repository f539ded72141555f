"""All hostile inputs. `python -m tests.hostile.corpus` runs each of them and prints the messages as Markdown."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.hostile import archives, checkpoints, images, own, pretrained, records, tables, values, vectors, yamls
from tests.hostile.case import Case, Said

CASES: dict[str, tuple[Case, ...]] = {
    "Tables of text": tables.CASES,
    "Images": images.CASES,
    "PHEME's archive": archives.CASES,
    "Word vectors": vectors.CASES,
    "Pretrained models": pretrained.CASES,
    "Own data and models": own.CASES,
    "Checkpoints": checkpoints.CASES,
    "Records": records.CASES,
    "YAML files": yamls.CASES,
    "Values": values.CASES,
}


def sentence(said: Said, folder: Path | None = None) -> str:
    """Return stderr as a table cell, without the name of the temporary folder."""
    text = said.err.strip().removeprefix("error: ").replace("\n", "; ")
    if folder is not None:
        text = text.replace(f"{folder}/", "")
    return re.sub(r"([|<>*_`])", r"\\\1", text)


def main(only: Sequence[str] = ()) -> int:
    """Print the whole table, or `only` the sections with these titles."""
    count = 0
    print("# Broken inputs, and what is said of each\n")
    print("`python -m tests.hostile.corpus > results/survival/inputs.md`\n")
    for title, cases in CASES.items():
        if only and title not in only:
            continue
        print(f"## {title}\n\n| input | message | exit code |\n|---|---|---:|")
        for case in cases:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name).resolve()
                said = case.meet(folder)
                print(f"| {case.name} | {sentence(said, folder)} | {said.code} |", flush=True)
                count += 1
        print()
    print(f"{count} inputs.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
