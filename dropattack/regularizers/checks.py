"""Checks of arguments. Each error names the argument and its value."""

from numbers import Real
from typing import Any


def kind(value: Any) -> str:
    """Return the type of a value in words: `a Tensor`, `an Embedding`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def non_negative(value: float, name: str) -> float:
    if not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    return float(value)


def probability(value: float, name: str) -> float:
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], not {value!r}")
    return float(value)


def at_least_one(value: int, name: str) -> int:
    if not isinstance(value, Real) or value != int(value) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, not {value!r}")
    return int(value)


def whole(value: int, name: str) -> int:
    if not isinstance(value, Real) or value != int(value) or value < 0:
        raise ValueError(f"{name} must be a whole number >= 0, not {value!r}")
    return int(value)


def one_of(value: Any, name: str, choices: tuple) -> Any:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value
