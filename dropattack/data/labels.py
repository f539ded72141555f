"""Labels of any kind → class indices in a fixed order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dropattack.errors import UserError

INTEGER = re.compile(r"[+-]?\d+")
MISSING = ("", "nan", "<na>")  # as text, in lower case


def names_of(values: Sequence[Any], where: str, beside: Iterable[Any] = ()) -> list[str]:
    """Return each label as text: words as they are (stripped), whole numbers without a point, `true` and `false`.

    Args:
        values: words, integers, whole floating-point numbers, booleans, or such numbers and booleans written as text.
        where: the table and its column, for errors.
        beside: the labels of the other splits. If one of them is a word, so are all.

    Raises:
        UserError: a label is missing, is a list or the like, or the labels are numbers that are not whole.
    """
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    texts = []
    for row, value in enumerate(plain):
        text = value.strip() if isinstance(value, str) else value
        if text is None or (isinstance(text, float) and math.isnan(text)) or str(text).lower() in MISSING:
            raise UserError(f"{where}, row {row + 1}: the label is missing; fill it or remove the row.")
        if not isinstance(text, str | int | float):
            kind = type(text).__name__
            raise UserError(f"{where}, row {row + 1}: the label is a {kind}, not a word or a number.")
        texts.append(str(text))
    others = [str(value).strip() for value in beside]
    if all(text.lower() in ("true", "false") for text in (*texts, *others)):
        return [text.lower() for text in texts]
    numbers = [_number(text) for text in texts]
    if None in numbers or None in map(_number, others):
        return texts
    for row, number in enumerate(numbers):
        if number is None or number != round(number):
            raise UserError(
                f"{where}, row {row + 1}: the label {texts[row]} is not a whole number; a class needs a "
                "whole number or a word, and regression is not supported."
            )
    return [str(int(text)) if INTEGER.fullmatch(text) else str(round(float(text))) for text in texts]


def _number(text: str) -> float | None:
    if "_" in text:  # 1_0 is a word; Python would read it as 10
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names: by value if all are whole numbers, otherwise alphabetically."""
    distinct = sorted(set(names))
    numeric = all(INTEGER.fullmatch(name) for name in distinct)
    return tuple(sorted(distinct, key=int) if numeric else distinct)
