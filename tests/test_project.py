"""Promises of the project about its commands, documents, imports and versions."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import dropattack

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    *("accelerate", "datasets", "hydra", "matplotlib", "omegaconf", "pandas", "pyarrow", "rich", "scipy", "sklearn"),
    *("statsmodels", "torchvision", "transformers", "wandb"),
)


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def project_files() -> list[Path]:
    """Every file that is tracked or would be, so not ignored by .gitignore."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def pins() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_make_help_explains_every_target():
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.+)$", run("make", "--no-print-directory"), re.MULTILINE))
    assert set(listed) == set(" ".join(targets).split())


def test_every_make_command_in_the_documents_exists():
    targets = set(" ".join(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
    targets |= {f"table-{path.stem}" for path in (ROOT / "conf" / "table").glob("*.yaml")}
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"`make ([a-z_-]+)|^make ([a-z_-]+)", document.read_text(), re.MULTILINE):
            assert "".join(target) in targets, document.name


def test_the_library_imports_torch_alone_and_costs_little_beyond_it():
    """torch._dynamo takes longer to import than torch itself, and a decorator is enough to import it."""
    code = """
import sys, time, torch
before, start = set(sys.modules), time.process_time()
from dropattack import DropAttack, FreeLB
spent = time.process_time() - start
FreeLB(torch.nn.Linear(2, 2), "<input>").backward
print(spent, len(set(sys.modules) - before), *sys.modules)
"""
    spent, count, *loaded = run(sys.executable, "-c", code).split()
    assert "torch._dynamo" not in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
    assert int(count) < 60
    assert float(spent) <= 0.15


def test_naming_the_package_costs_nothing():
    code = "import sys, dropattack, dropattack.errors, dropattack.runs.record; print('torch' in sys.modules)"
    assert run(sys.executable, "-c", code).strip() == "False"


def test_one_version():
    assert 'version = { attr = "dropattack.__version__" }' in (ROOT / "pyproject.toml").read_text()
    if any(d.metadata["Name"] == "dropattack" for d in importlib.metadata.distributions()):
        assert importlib.metadata.version("dropattack") == dropattack.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", dropattack.__version__)
    assert f"\nversion: {dropattack.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_types_are_packaged():
    assert (ROOT / "dropattack" / "py.typed").is_file()
    assert '\n"dropattack" = ["py.typed"]\n' in (ROOT / "pyproject.toml").read_text()


def test_every_dependency_has_a_tested_version():
    lists = re.findall(
        r"^(?:dependencies|experiments|dev|docs) = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    names = set(re.findall(r'"([A-Za-z0-9-]+)[><=]', " ".join(lists)))
    assert len(names) > 20
    assert names <= set(pins())


def test_the_oldest_torch_that_is_allowed_is_tested():
    (bound,) = re.findall(r'^dependencies = \["torch>=([\d.]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    (tested,) = re.findall(r"^torch==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE)
    assert f"{bound}.0".startswith(tested)
    assert "-c constraints-lowest.txt" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_pre_commit_runs_the_linter_that_ci_runs():
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    (rev,) = re.findall(r"ruff-pre-commit\n\s+rev: v(\S+)", config)
    assert pins()["ruff"] == {rev}


def test_pre_commit_refuses_large_files():
    assert "id: check-added-large-files" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_file_names_anyones_machine():
    absolute = re.compile(rb"(?<![\w.:/}])/(?:work|root|home|Users|mnt|scratch|opt/pypi)/[\w.-]+")
    beside = re.compile(rb"\.\./shared/")
    for path in project_files():
        text = path.read_bytes()
        if b"\0" in text or path == Path(__file__).resolve():
            continue
        assert not absolute.search(text), f"{path.relative_to(ROOT)}: {absolute.search(text)}"
        if path != ROOT / ".ci" / "run":
            assert not beside.search(text), path.relative_to(ROOT)
