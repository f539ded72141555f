"""Checks of arguments. Each error names the argument and its value."""

import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


def kind(value: Any) -> str:
    """Return the type of a value in words: `a Tensor`, `an Embedding`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def non_negative(value: float, name: str) -> float:
    if not _is_number(value) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    return float(value)


def probability(value: float, name: str) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], not {value!r}")
    return float(value)


def at_least_one(value: int, name: str) -> int:
    if not _is_number(value) or not 1 <= value < float("inf") or value != int(value):
        raise ValueError(f"{name} must be a whole number >= 1, not {value!r}")
    return int(value)


def whole(value: int, name: str) -> int:
    if not _is_number(value) or not 0 <= value < float("inf") or value != int(value):
        raise ValueError(f"{name} must be a whole number >= 0, not {value!r}")
    return int(value)


def integer(value: int, name: str) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, not {value!r}")
    return int(value)


def boolean(value: bool, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return value


def one_of(value: Any, name: str, choices: tuple) -> Any:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_options(method: Any, options: Iterable[str]) -> None:
    """Check the names of the options of a method, a subclass of `Regularizer`.

    Raises:
        TypeError: The method has no such option; the message names the nearest, and lists those it has.
    """
    parameters = inspect.signature(method).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "model"]
    takes_common = any(p.kind is p.VAR_KEYWORD for p in parameters)
    accepted = dict.fromkeys([*own, *(method.common if takes_common else ())])
    if unknown := sorted(set(options) - set(accepted)):
        begun = [name for name in accepted if name.startswith(unknown[0])]
        near = begun or get_close_matches(unknown[0], accepted, n=1, cutoff=0.75)
        hint = f" ({near[0]}?)" if near else ""
        raise TypeError(f"{method.__name__} has no option {unknown[0]!r}{hint}; options: {', '.join(accepted)}")
