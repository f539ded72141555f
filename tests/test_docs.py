"""The documents are correct: their Python runs, their commands compose, their links resolve.

A ```python block whose first line starts with `# not run` is only compiled. Blocks of one file share their names.
"""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropattack
from dropattack import FGM, DropAttack
from dropattack.errors import UserError
from dropattack.report import gather
from dropattack.report.claim_page import page
from dropattack.report.claims import read_claims
from dropattack.report.findings import findings
from dropattack.report.methods import methods_page
from dropattack.report.places import markers
from dropattack.runs import experiment
from dropattack.runs.config import cells, compose
from dropattack.sweeps.table import load_table, load_tables

ROOT = Path(__file__).resolve().parents[1]
RUN = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
STARTS = ("python run.py", "dropattack run", "dropattack sweep")
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(name: str, language: str) -> list[tuple[int, str]]:
    """Return (line number, text) of each fenced block."""
    text = (ROOT / name).read_text()
    return [(text[: m.start()].count("\n") + 2, m.group(2)) for m in BLOCK.finditer(text) if m.group(1) == language]


def test_the_example_of_a_method_is_a_method():
    """The class in CONTRIBUTING.md computes the gradient that it documents."""
    names: dict = {"__name__": "document"}
    (source,) = [source for _, source in blocks("CONTRIBUTING.md", "python")]
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    gradients = []
    for method in (names["MyMethod"], FGM):
        torch.manual_seed(0)
        model, ids = Classifier(), torch.randint(100, (4, 6))
        method(model, "embed.weight", epsilon=0.5).backward(lambda model=model, ids=ids: model(ids).square().mean())
        gradients.append(model.embed.weight.grad)
    assert torch.equal(*gradients)
    with pytest.raises(TypeError, match="MyMethod needs targets"):
        names["MyMethod"](Classifier())


def documents() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


class Classifier(nn.Module):
    """The `model` of README.md and of pages that show a loop or a step, not a model."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(100, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[0].mean(1))


def given(name: str) -> dict:
    """Return the names that a file's blocks may use without defining them: some show a loop, not a model."""
    loops, steps = name in ("README.md", "docs/index.md"), name == "docs/architecture.md"
    if not (loops or steps or name.startswith("docs/howto/")):
        return {}
    model = Classifier()
    loader = [(torch.randint(100, (4, 6)), torch.randint(3, (4,))) for _ in range(2)]
    made = {"model": model, "loader": loader, "optimizer": torch.optim.Adam(model.parameters())}
    if loops:
        return made
    made |= {"torch": torch, "F": F, "x": loader[0][0], "y": loader[0][1]}
    return made if steps else {**made, "reg": DropAttack(model, ["embed.weight", "rnn.weight_ih_l0"])}


@pytest.mark.parametrize("name", RUN)
def test_python_in_the_documents_runs(name):
    torch.manual_seed(0)
    names = {"__name__": "document", **given(name)}
    for line, source in blocks(name, "python"):
        code = compile("\n" * (line - 1) + source, str(ROOT / name), "exec")  # a traceback shows the document's line
        if not source.startswith("# not run"):
            exec(code, names)


@pytest.mark.parametrize("name", [name for name in RUN if Path(name).parent.name == "methods"])
def test_every_card_has_its_parts(name):
    text = (ROOT / name).read_text()
    if name.endswith("README.md"):
        cards = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"README"}
        assert {path.stem for path in (ROOT / "conf" / "reg").glob("*.yaml")} == cards
        return
    for part in ("$$", "**Source", "## Settings", "## Cost", "## In your loop", "## Pitfalls", "## Our numbers"):
        assert part in text, part
    assert f"reg={Path(name).stem}" in text
    assert any(not source.startswith("# not run") for _, source in blocks(name, "python"))


@pytest.mark.parametrize("name", documents())
def test_every_command_in_the_documents_composes(name):
    for line, source in blocks(name, "bash"):
        for command in source.splitlines():
            words = shlex.split(command, comments=True)
            if " ".join(words[:2]) not in STARTS or "--help" in words:
                continue
            overrides = [word for word in words[2:] if not word.startswith("-")]
            sweep = cells(overrides)
            for cell in {tuple(sweep[0]), tuple(sweep[-1])}:  # of a sweep, what differs most
                assert experiment.resolve(compose(experiment.CONF, cell)), f"{name}:{line}"


@pytest.mark.parametrize("name", documents())
def test_every_relative_link_leads_somewhere(name):
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", (ROOT / name).read_text()))
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        path = ((ROOT / name).parent / target) if target else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name} links to {target}#{anchor}"


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes for a file's headings."""
    headings = re.findall(r"^#+ +(.+)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_errors_that_are_explained_are_those_that_are_raised():
    text = (ROOT / "docs" / "library.md").read_text().split("## What the errors say")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    source = "".join(path.read_text() for path in (ROOT / "dropattack" / "regularizers").glob("*.py"))
    assert len(messages) > 10
    own = [message for message in messages if not message.startswith("Trying to backward")]  # that one is torch's
    for message in own:
        assert message in source, message


def test_the_keys_of_a_table_are_those_that_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("".join(text for _, text in blocks("docs/tables.md", "yaml")))
    table = load_table(experiment.CONF, str(path))
    assert table.plan.primary is not None
    assert table.plan.margin == 1
    path.write_text(path.read_text() + "other: 1\n")
    with pytest.raises(UserError, match="nothing reads other; its keys can be") as error:
        load_table(experiment.CONF, str(path))
    known = str(error.value).partition("its keys can be ")[2].split(", ")
    rows = [line.split("|")[1] for line in (ROOT / "docs/tables.md").read_text().splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(known)


def test_the_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = re.findall(r"^\.\. auto(?:class|data|function):: dropattack\.(\w+)$", text, re.MULTILINE)
    others = set(dropattack.__all__) - set(documented)  # docs/conf.py adds them, each a method with a card
    assert len(documented) == len(set(documented))
    assert set(documented) <= set(dropattack.__all__)
    assert all((ROOT / "docs" / "methods" / f"{name.lower()}.md").is_file() for name in others)


@pytest.fixture(scope="module")
def tables():
    """Return the tables that have records, and the claims."""
    asked = load_tables(experiment.CONF)
    claims = read_claims(experiment.CONF / "claims.yaml", [table.name for table in asked])
    return gather.tables(ROOT / "results", asked)[0], claims


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_the_findings_are_those_of_the_records(tables):
    written = script("findings")
    made = findings(ROOT / "results", *tables)
    assert (ROOT / "results" / "findings.md").read_text() == made.page, "run `make findings`"
    assert (ROOT / "results" / "methods.md").read_text() == methods_page(tables[0], written.methods())
    text = (ROOT / "README.md").read_text()
    for part, name in written.PARTS.items():
        begin, end = markers(part, written.COMMAND)
        assert text.partition(begin)[2].partition(end)[0].strip() == getattr(made, name).strip(), "run `make findings`"


def test_the_page_on_reliability_has_the_committed_numbers_and_names_tests_that_exist():
    text = (ROOT / "docs/reliability.md").read_text()
    assert script("reliability").written(text, ROOT / "results/survival") == text, "run `python scripts/reliability.py`"
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for path, test in named:
        assert f"\ndef {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


def test_the_page_on_gpus_has_the_committed_numbers():
    text = (ROOT / "docs/gpu.md").read_text()
    assert script("gpu").page_of(text, ROOT / "results") == text, "run `python scripts/gpu.py page`"


def test_the_claims_are_those_of_the_records(tables):
    found, claims = tables
    assert (ROOT / "results" / "claims.md").read_text() == page(claims, found), "run `make claims`"
