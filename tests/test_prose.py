"""Docstrings, comments, error messages and documents are in plain English, without phrases that need a second reading.

`DONE` lists the files and folders that are checked; it is meant to grow until it covers the project.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOT_TESTS = (
    "cli",
    "configs",
    "dependencies",
    "docs",
    "launching",
    "layers",
    "plugins",
    "project",
    "prose",
    "record",
    "source",
)
DONE = (
    *("benchmarks", "conf", "examples", "scripts", "docs/architecture.md", "docs/probes.md"),
    *("results/README.md", "docs/commands.md", "docs/tables.md", "setup.py"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/methods", "run.py"),
    *(f"docs/{name}" for name in ("conf.py", "howto", "reference", "tutorial")),
    *(f"docs/{name}.md" for name in ("cite", "gpu", "help", "index", "install", "reliability", "results")),
    *(
        f"dropattack/{name}"
        for name in ("commands", "data", "integrations", "models", "regularizers", "runs", "sweeps")
    ),
    *(f"dropattack/{name}" for name in ("tracking", "training")),
    *(f"dropattack/{name}.py" for name in ("errors", "files", "plugins", "progress", "provenance")),
    *("dropattack/analysis", "dropattack/gpu", "dropattack/probes", "dropattack/report", "dropattack/statistics"),
    *("tests/analysis", "tests/benchmarks", "tests/gpu", "tests/hostile", "tests/probes", "tests/report"),
    *("tests/survival", "tests/data", "tests/models", "tests/sweeps", "tests/tracking", "tests/training"),
    *("tests/conftest.py", *(f"tests/test_{name}.py" for name in ROOT_TESTS)),
)
UNIT = (
    "batch|cell|column|curve|data set|dataset|epoch|example|file|kernel|key|layer|line|method|model|network|norm|pair|"
    "panel|pass|point|process|round|row|run|seed|setting|side|step|target|text|thread|trial|word"
)
AMOUNT = (
    "bytes|calls|columns|curves|figures|files|lines|losses|MB|microseconds|ms|numbers|panels|passes|pictures|points|"
    "rounds|rows|seconds|seeds|steps|threads|trials|words"
)
PHRASES = {  # pattern, in lower case → plainer wording
    r"\b(?:has|have|had) to be\b": "must be",
    rf"\b(?:once|twice|(?:one|a|an|the) \w+|{AMOUNT}) an? (?:{UNIT})\b": "per …",
    r", for (?:it|they|there|nothing|its|their)\b": "because …",
    r"\b(?:is|are|was|were) said\b": "is reported",
    r"\bstands? (?:above|alone|at|below|beside|between|here|in(?! for)|on|there|under)\b": "is …",
    r"\bl(?:ie|ies|ay) (?:at|below|beside|here|there|under|in (?:`|outputs|results|the folder))": "is …",
    r"\b(?:goes|go|went|gone) on\b": "continues",
    r"(?<!there )\b(?:is|are) no (?!better|different|evidence|less|longer|more|one\b|worse)\w+": "is not a …",
    r"\bof (?:what|which (?:all|each|every|none|nothing|some|the))\b": "a noun, or whose …",
    r"\banew\b": "again",
    r"\bin place of\b": "instead of",
    r"^(?:what|whether)\b(?![^.]*\?)": "a noun or a verb first",
}


def findings(text: str) -> list[str]:
    """Return the phrases in one docstring, comment or paragraph, each with what to write instead."""
    plain = " ".join(text.split()).lower()
    return [f"“{m.group()}”: {instead}" for phrase, instead in PHRASES.items() for m in re.finditer(phrase, plain)]


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each block of Python comments."""
    block: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        whole_line = token.line.strip().startswith("#")
        if block and not (whole_line and token.start[0] == last + 1):
            yield start, " ".join(block)
            block = []
        start = token.start[0] if not block else start
        block.append(token.string.lstrip("#: "))
        last = token.start[0] if whole_line else -1
    if block:
        yield start, " ".join(block)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.body[0].lineno, text


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each literal part of a raised exception's message."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            for part in ast.walk(node.exc):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, "… " + part.value


def yaml_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each line with a YAML comment."""
    for number, line in enumerate(source.splitlines(), 1):
        if found := re.search(r"(?:^|\s)#\s+(\S.*)", line):
            yield number, found.group(1)


def paragraphs(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each paragraph, table row and list item of Markdown, except code."""
    source = re.sub(r"^```.*?^```", lambda m: "\n" * m.group().count("\n"), source, flags=re.DOTALL | re.MULTILINE)
    for block in re.finditer(
        r"(?:^[ \t]*\S[^\n]*\n?)+?(?=^[ \t]*(?:\||-|\*|\d+\.)[ *]|^\s*$|\Z)", source, re.MULTILINE
    ):
        yield source[: block.start()].count("\n") + 1, block.group().strip(" |-*\n")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of everything in a file that is checked."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from docstrings(source)
        yield from comments(source)
        yield from messages(source)
    else:
        yield from (paragraphs if path.suffix == ".md" else yaml_comments)(source)


def files(place: str) -> list[Path]:
    path = ROOT / place
    if path.is_file():
        return [path]
    return sorted(found for found in path.rglob("*") if found.suffix in (".py", ".md", ".yaml"))


@pytest.mark.parametrize("place", DONE)
def test_plain_words(place):
    assert files(place), f"{place} does not exist"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {finding}"
        for path in files(place)
        for line, text in texts(path)
        for finding in findings(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "It is called once a pass.", "One line an epoch.", "The time in ms a step.", "It has to be a float.",
        "Left out, for it is not finite.", "It is said once.", "The mean stands beside it.", "It lies below outputs/.",
        "A run that was stopped goes on.", "The file is no table.", "Splits of which every beginning is stratified.",
        "A step of what it costs.", "What a run needs.", "Whether it ran.", "Train anew.",
    ],
)  # fmt: skip
def test_finds(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text",
    [
        "Return one row per run.", "Make a step.", "Starts a run.", "There is no file.", "It is no longer needed.",
        "Flatness is no evidence of it.", "[CLS] stands for the text.", "Run it for it to be cached.",
        "**What does it cost?** Two passes.", "Values lie in [0, 1].", "Go online.", "It stands in for it.",
    ],
)  # fmt: skip
def test_accepts(text):
    assert not findings(text.strip("*"))


def test_reads_docstrings_comments_messages_and_markdown():
    source = '"""Module."""\n\n\ndef f():\n    """Function."""\n    return 1  # first\n    # second\n    # third\n'
    assert list(docstrings(source)) == [(1, "Module."), (5, "Function.")]
    assert list(comments(source)) == [(6, "first"), (7, "second third")]
    assert list(messages('raise ValueError(f"a {b} c") from d\n')) == [(1, "… a "), (1, "…  c")]
    assert [text for _, text in paragraphs("# A\n\nb\nc\n\n```\ncode\n```\n\n- d\n  e\n- f\n\n| g | h |\n")] == [
        *("# A", "b\nc", "d\n  e", "f", "g | h"),
    ]  # fmt: skip
    assert list(yaml_comments("# a\nb: 1  # c\nd: x#y\n")) == [(1, "a"), (2, "c")]
