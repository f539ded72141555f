"""The disk space of an installation and the memory of small programs, as a page: results/bench/footprint.md.

python -m benchmarks.footprint > results/bench/footprint.md

Disk space is the sum of the installed files of packages and of everything that they require. Memory is the peak
resident set of a fresh process on a CPU.
"""

import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from dropattack import provenance

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[A-Za-z0-9._-]+")
RUN = ["run.py", "dataset=digits", "model=cnn", "reg=dropattack", "reg.relative=true", "tracker=none", "seed=0"]
PROGRAMS = {
    "`import torch`": ["-c", "import torch"],
    "`from dropattack import DropAttack`": ["-c", "from dropattack import DropAttack"],
    "`python examples/plain.py`": ["examples/plain.py", "--steps", "50"],
    "`python run.py dataset=digits model=cnn reg=dropattack`, `scale=smoke`": [*RUN, "scale=smoke", "paths.output={}"],
}
# Prints the peak in bytes after the program: Linux counts it in KiB, macOS in bytes.
WATCH = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
sys.exit(code)
"""


def closure(names: Iterable[str]) -> set[str]:
    """Return the installed packages that `names` need, themselves included; extras of others are left out."""
    todo, found = list(names), set()
    while todo:
        name = normal(todo.pop())
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not for this system or this Python
            continue
        if name not in found:
            found.add(name)
            todo += [NAME.match(line)[0] for line in needed if "extra ==" not in line]  # type: ignore[index]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def extra(name: str) -> list[str]:
    """Return the packages of one of this project's extras, as pyproject.toml lists them."""
    lists = re.search(rf"^{name} = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert lists, name
    return re.findall(r'"([A-Za-z0-9._-]+)', lists[1])


def size(names: Iterable[str]) -> int:
    """Return the bytes of all files of these installed packages."""
    files = (Path(file.locate()) for name in names for file in metadata.files(name) or [])
    return sum(path.stat().st_size for path in files if path.is_file())


def peak(command: list[str]) -> int:
    """Return the peak resident set, in bytes, of `python command…` in the project's root."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [word.format(folder) if word.startswith("paths.") else word for word in command]
        shown = subprocess.run(
            [sys.executable, "-c", WATCH, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        )
    return int(shown.stdout)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * (len(head) - 1) + ("--:",), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    library = closure(["torch"])
    everything = {"experiments": extra("experiments"), "dev": extra("dev"), "docs": extra("docs")}
    disk, so_far = [("`pip install -e .` (torch and what it needs)", library)], set(library)
    for name, packages in everything.items():
        so_far = so_far | closure(packages)
        disk.append((f"with the extra `{name}` as well", set(so_far)))
    versions, machine = provenance.versions(), provenance.hardware()
    commit = provenance.commit() or {}
    return "\n\n".join([
        "# Disk space and memory",
        "Made by `python -m benchmarks.footprint`. Disk space is the sum of the installed files, torch with its CUDA "
        "libraries; memory is the peak of a fresh process on a CPU, with one thread.",
        table(
            ("installed", "packages", "GB"),
            [(what, str(len(names)), f"{size(names) / 1e9:.1f}") for what, names in disk],
        ),
        table(("program", "peak memory, MB"), [(name, f"{peak(args) / 1e6:,.0f}") for name, args in PROGRAMS.items()]),
        f"Ran on commit: {str(commit.get('hash', 'unknown'))[:10]}; torch: {versions.get('torch', 'unknown')}; "
        f"Python: {platform.python_version()}; {machine['cpu'] or machine['machine']}, {machine['cores']} cores.",
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    print(page(), end="")
