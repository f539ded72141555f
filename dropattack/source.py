"""This package's modules as syntax trees: what a name is defined by, what it imports, what it takes, and its digest.

Standard library only, and no module is run: a config's `_target_` is checked, and the code of a run is named, without
waiting for torch.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parent
Definition = ast.ClassDef | ast.FunctionDef
# What only speaks, saves, waits or manages memory: a run that finishes has the same numbers whatever is written there.
NEUTRAL = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "errors",
        "files",
        "plugins",
        "progress",
        "source",
        "training.lock",
        "training.memory",
        "training.progress",
        "training.signals",
    )
)
others: dict[str, Path] = {}  # the file of each plug-in's top module, by its name


def path_of(module: str) -> Path | None:
    """Return the file of a module of this package or of a plug-in, or None."""
    first, *rest = module.split(".")
    if (first != PACKAGE and first not in others) or not all(part.isidentifier() for part in rest):
        return None
    if first in others and not rest:
        return others[first]
    place = (others[first].parent if first in others else ROOT).joinpath(*rest)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def find(name: str) -> tuple[str, Definition] | None:
    """Return the module that defines `package.module.Name`, and the definition, following names through imports."""
    module, _, last = name.rpartition(".")
    path = path_of(module)
    if path is None:
        return None
    for node in _tree(path).body:
        if isinstance(node, Definition) and node.name == last:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == last and (found := find(f"{node.module}.{alias.name}")):
                    return found
    return None


def may_have(name: str) -> bool:
    """Return whether `package.module.Name` is defined, or its module makes names on demand (`__getattr__`)."""
    if find(name) is not None:
        return True
    path = path_of(name.rpartition(".")[0])
    return path is not None and any(
        isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in _tree(path).body
    )


def options(name: str) -> list[str] | None:
    """Return a class's or function's keywords, in order; None if it takes anything, or is not found.

    `**subset: Unpack[Options]` counts as the fields of `Options`.
    """
    found = find(name)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return _parameters(module, node)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return [option for option in _parameters(module, item) or [] if option != "self"] or None
    if any(_called(decorator) == "dataclass" for decorator in node.decorator_list):
        return None if node.bases else _fields(node)
    return options(f"{module}.{node.bases[0].id}") if node.bases and isinstance(node.bases[0], ast.Name) else None


def _parameters(module: str, function: ast.FunctionDef) -> list[str] | None:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    if arguments.kwarg is None:
        return names
    hint = arguments.kwarg.annotation
    if isinstance(hint, ast.Subscript) and _called(hint.value) == "Unpack" and isinstance(hint.slice, ast.Name):
        found = find(f"{module}.{hint.slice.id}")
        if found is not None and isinstance(found[1], ast.ClassDef):
            return [*names, *_fields(found[1])]
    return None


def _fields(node: ast.ClassDef) -> list[str]:
    return [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def _called(node: ast.expr) -> str:
    """Return the bare name: `dataclass` of `@dataclass(frozen=True)`, `Unpack` of `typing.Unpack`."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the modules that define `names` (modules, classes or functions here), and all that these import.

    Imports within functions count; those for the type checker alone do not, nor do packages that only pass names on.
    """
    todo, seen = [module for name in names for module in _home(name)], set()
    while todo:
        module = todo.pop()
        if module not in seen and module not in NEUTRAL:
            seen.add(module)
            path = path_of(module)
            todo += _imports(path) if path is not None else []
    return sorted(seen)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    names = []
    for node in _running(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(module for name in names if name.partition(".")[0] in (PACKAGE, *others) for module in _home(name))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those under `if TYPE_CHECKING:`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)


def _home(name: str) -> list[str]:
    """Return the module that `name` is, or is defined in."""
    path = path_of(name)
    if path is not None:
        return [] if path.name == "__init__.py" else [name]
    if found := find(name):
        return [found[0]]
    module = name.rpartition(".")[0]  # a constant or a type alias of it
    path = path_of(module)
    return [] if path is None or path.name == "__init__.py" else [module]


def digest(modules: Iterable[str]) -> str:
    """Return 12 hexadecimal digits over the syntax trees of modules of this package.

    Comments, layout, docstrings and the words of a raised error do not count, nor does the version of Python.
    """
    total = hashlib.sha256()
    for module in sorted(set(modules)):
        path = path_of(module)
        if path is not None:
            total.update(f"{module}\n{_plain(path)}\n".encode())
    return total.hexdigest()[:12]


def digest_of_other(name: str) -> str:
    """Return 12 hexadecimal digits over the syntax trees of a plug-in, like `digest`.

    These are all files of its package, and the modules beside it that it imports, with what these import.
    """
    top = others[name]
    home = top.parent.parent if top.name == "__init__.py" else top.parent
    files, todo = _files_of(top), _files_of(top)
    while todo and not _is_library(home):
        new = [path for path in _beside(todo.pop(), home) if path not in files]
        files += new
        todo += new
    total = hashlib.sha256()
    own = [path for path in files if path.is_relative_to(top.parent)] if top.name == "__init__.py" else [top]
    for path in own:
        total.update(f"{path.relative_to(top.parent).as_posix()}\n{_plain(path)}\n".encode())
    for path in sorted(set(files) - set(own)):
        total.update(f"{path.relative_to(home).as_posix()}\n{_plain(path)}\n".encode())
    return total.hexdigest()[:12]


def _files_of(top: Path) -> list[Path]:
    """Return the files of a module, or of the package whose `__init__.py` it is."""
    return sorted(top.parent.rglob("*.py")) if top.name == "__init__.py" else [top]


def _beside(file: Path, home: Path) -> Iterator[Path]:
    """Yield the files of the top modules in the folder `home` that a file imports."""
    for node in _running(_tree(file)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names} - {PACKAGE}:
            for place in (home / f"{name}.py", home / name / "__init__.py"):
                if place.is_file():
                    yield from _files_of(place)


def _is_library(folder: Path) -> bool:
    """Return whether a folder holds installed packages, whose versions a record has."""
    return folder.name in ("site-packages", "dist-packages")


@cache
def _plain(path: Path) -> str:
    return hashlib.sha256(_written(_tree(path), False).encode()).hexdigest()


def _written(node: Any, raised: bool) -> str:
    """Write a syntax tree as text without empty fields, in which versions of Python differ."""
    if isinstance(node, list):
        return f"[{','.join(_written(item, raised) for item in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if raised and (isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))):
        return "words"
    raised = raised or isinstance(node, ast.Raise)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and _has_docstring(node):
            value = value[1:]
        if value not in (None, []) and name not in ("kind", "type_comment", "type_ignores"):
            fields.append(f"{name}={_written(value, raised)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not node.body:
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
