"""No public annotation is `Any`: a caller's type checker sees what each function takes and returns."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dropattack

PACKAGE = Path(dropattack.__file__).parent
EXPORTED = {
    sys.modules[getattr(dropattack, name).__module__].__file__ for name in dropattack.__all__ if name != "INPUT"
}
PUBLIC = sorted(
    {Path(str(file)) for file in EXPORTED}
    | {path for folder in ("integrations", "commands") for path in (PACKAGE / folder).glob("*.py")}
    | {PACKAGE / "plugins.py"}
)


def untyped(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield the public names below `tree` with an annotation that contains `Any`."""
    for node in tree.body:
        name = node.target if isinstance(node, ast.AnnAssign) else node
        name = name.id if isinstance(name, ast.Name) else getattr(name, "name", "_")
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(node, ast.ClassDef):
            yield from (f"{name}.{inner}" for inner in untyped(node))
        elif isinstance(node, ast.FunctionDef):
            arguments = (one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg))
            if any(map(has_any, [node.returns, *arguments])):
                yield name
        elif isinstance(node, ast.AnnAssign) and has_any(node.annotation):
            yield name


def has_any(annotation: ast.expr | None) -> bool:
    return annotation is not None and re.search(r"\bAny\b", ast.unparse(annotation)) is not None


def test_no_public_annotation_is_any():
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PUBLIC
        if (names := [*untyped(ast.parse(path.read_text(encoding="utf-8")))])
    }
    assert found == {}


def test_any_is_found():
    lines = (
        "a: 'dict[str, Any]'",
        "def _f(x: Any): ...",
        "def f(x: int): ...",
        "class C:",
        "    def g(self, *x: Any): ...",
    )
    assert [*untyped(ast.parse("\n".join(lines)))] == ["a", "C.g"]
