"""Modules from outside the package that bring data sets, models and methods of their own.

A plug-in is a module of the current folder or of the Python path, named by `plugins=[my_module]`, or one that an
installed package names in its entry points of the group `dropattack.plugins`. Importing it registers choices:

    from dropattack.plugins import method

    @method("mymethod")  # reg=mymethod
    class MyMethod(Regularizer): ...

The options of a choice are those of its signature, with their defaults.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TypeVar, cast

from dropattack import source
from dropattack.errors import UserError

GROUP = "dropattack.plugins"  # of entry points
Target = TypeVar("Target", bound=Callable[..., object])

registered: dict[tuple[str, str], dict[str, object]] = {}
"""The config of each registered choice, by group and name."""

# The options that the constructors of each group take beyond their own, in the YAML of a registered choice.
_COMMON: dict[str, dict[str, object]] = {
    "reg": {"every": 1, "start_step": 0, "warmup": 0},
    "model": {},
    "dataset": {
        "validation_fraction": 0.1, "seed": 0, "train_rows": "${pick:${scale.name},null,2000,64}",
        "validation_rows": "${pick:${scale.name},null,1000,32}", "test_rows": "${pick:${scale.name},null,2000,32}",
        "fraction": 1.0, "subset_seed": None, "drop_leaks": False,
    },
}  # fmt: skip
_PLACES = {"root": "${paths.data}", "cache": "${paths.output}/cache"}
_GIVEN = {"reg": ("model", "seed"), "model": ("spec", "vectors", "found"), "dataset": ()}  # by the experiment
_RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0,
           "batch_size": "${pick:${scale.name},64,32,16}", "epochs": "${pick:${scale.name},10,5,1}",
           "schedule": "constant", "warmup": 0.0, "clip_norm": None}  # fmt: skip
_WORDS = {"_target_": "dropattack.data.text.WordTokenizer",
          "vocabulary_size": "${pick:${scale.name},80000,10000,500}",
          "max_length": "${pick:${scale.name},256,64,16}"}  # fmt: skip


def method(name: str, **options: object) -> Callable[[Target], Target]:
    """Return a decorator that registers a regularizer as `reg=name`.

    Args:
        name: the choice's name.
        options: defaults that differ from those of the constructor. `targets` is `[input]` if it has no default.
    """
    return _registering("reg", name, {}, options)


def model(
    name: str,
    *,
    kind: str,
    attack_points: Mapping[str, str] | None = None,
    recipe: Mapping[str, object] | None = None,
    tokenizer: Mapping[str, object] | None = None,
    **options: object,
) -> Callable[[Target], Target]:
    """Return a decorator that registers a model as `model=name`.

    Args:
        name: the choice's name.
        kind: `text` or `image`.
        attack_points: the names of `input` and `hidden`; None is the pixels of images, and nothing for texts.
        recipe: the trainer's settings that differ from Adam at 1e-3.
        tokenizer: `_target_` and options of the tokenizer of a text model; None counts words.
        options: defaults that differ from those of the constructor.
    """
    points = {"input": "<input>"} if attack_points is None and kind == "image" else dict(attack_points or {})
    extra = {"kind": kind, "attack_points": points, "recipe": {**_RECIPE, **(recipe or {})}}
    if kind == "text":
        extra["tokenizer"] = dict(tokenizer or _WORDS)
    return _registering("model", name, extra, options)


def dataset(name: str, *, kind: str, **options: object) -> Callable[[Target], Target]:
    """Return a decorator that registers a function `load(*, …) -> Dataset` as `dataset=name`.

    Args:
        name: the choice's name.
        kind: `text` or `image`.
        options: defaults that differ from those of the function. Its `root` and `cache`, if it takes them, are the
            folders of the config.
    """
    return _registering("dataset", name, {"kind": kind}, options)


def _registering(
    group: str, name: str, extra: Mapping[str, object], options: Mapping[str, object]
) -> Callable[[Target], Target]:
    if not name.replace("_", "").isalnum():
        raise ValueError(f"{group} {name!r}: a name has letters, digits and _ only")

    def register(target: Target) -> Target:
        place = f"{target.__module__}.{target.__qualname__}"
        before = registered.get((group, name), {}).get("_target_", place)
        if before != place:
            raise ValueError(f"{group}={name} is registered by {before} already; choose another name")
        registered[group, name] = {
            "_target_": place, "name": name, **extra, **_options(group, name, target, options), **options
        }  # fmt: skip
        return target

    return register


def _options(group: str, name: str, target: Callable[..., object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a signature with their defaults, as values of YAML."""
    made: dict[str, object] = {}
    for option, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            made |= _COMMON[group]
        elif option in _PLACES and group == "dataset":
            made[option] = _PLACES[option]
        elif option == "targets" and group == "reg" and parameter.default in (None, parameter.empty):
            made[option] = ["input"]
        elif option not in _GIVEN[group] and option not in given and parameter.kind is not parameter.VAR_POSITIONAL:
            if parameter.default is parameter.empty:
                raise ValueError(f"{group}={name}: its option {option} has no default; name one in the decorator")
            made[option] = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return made


def load(names: Iterable[str]) -> None:
    """Import modules of the current folder or the Python path as plug-ins.

    Raises:
        UserError: there is no such module, it raises an error, or it is not a plug-in (the standard library, ours).
    """
    for name in names:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top == source.PACKAGE:
            raise UserError(f"plugins: {name} is not a module of yours; name one, such as plugins=[my_module].")
        _import(name, f"plugins: {name}", os.getcwd())


@cache
def load_installed() -> None:
    """Import the modules that installed packages name as entry points."""
    for point in metadata.entry_points(group=GROUP):
        _import(point.module, f"the installed plug-in {point.name} ({point.module})", None)


def _import(name: str, said: str, folder: str | None) -> None:
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)  # last: a file in it must not take the place of a library
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{said} needs the module {error.name}, which is not installed.") from error
        bare = f"; leave out .py: plugins=[{name.removesuffix('.py')}]" if name.endswith(".py") else ""
        raise UserError(f"{said}: there is no such module in the current folder or on PYTHONPATH{bare}.") from error
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")
        ]
        reason = (str(error).splitlines() or [""])[0][:200]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        at = f"{type(error).__name__} in line {line}"
        raise UserError(f"{said} cannot be imported ({at}: {reason}); correct it.") from error
    top = import_module(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    root = getattr(top, "__file__", None) or (file if "." not in name else None)
    if file is None or root is None:
        raise UserError(f"{said} is not a file of Python code; name a module, such as plugins=[my_module].")
    source.others[top.__name__] = Path(root)


def owns(target: str) -> bool:
    """Return whether a dotted name is in a module that was loaded as a plug-in."""
    return target.partition(".")[0] in source.others


def has(target: str) -> bool:
    """Return whether a plug-in defines the object of this dotted name."""
    module, _, last = target.rpartition(".")
    return owns(target) and callable(getattr(sys.modules.get(module), last, None))


def used(config: Mapping[str, object]) -> list[str]:
    """Return the plug-ins that a resolved config takes objects from, by the names it gives them."""
    named = list(cast("Iterable[str]", config.get("plugins") or ()))
    groups = [value for value in config.values() if isinstance(value, Mapping)]
    groups += [value for group in groups for value in group.values() if isinstance(value, Mapping)]
    tops = {str(group["_target_"]).partition(".")[0] for group in groups if "_target_" in group}
    declared = {name.partition(".")[0] for name in named}
    installed = sorted(top for top in tops - declared if top in source.others)
    return [*(name for name in named if name.partition(".")[0] in tops), *installed]


def digests(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the code of each plug-in, of all files of its package: see `source.digest`."""
    return {name: source.digest_of_other(name.partition(".")[0]) for name in names}
