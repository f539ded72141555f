"""Suggestions for a mistyped name: ' (did you mean …?)' for an error message."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ' (did you mean …?)' with the closest names, or an empty string."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.85) or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def nearest_key(key: str, known: Sequence[str]) -> str:
    """Return `nearest`'s hint for dotted keys: `lr` and `trainer.lr` find `trainer.learning_rate` by its initials.

    The part before the last dot may be wrong or missing.
    """
    group, _, leaf = key.rpartition(".")
    leaves = {name: name.rpartition(".")[2] for name in known}
    words = {name: leaves[name].split("_") for name in known}
    own = [name for name in known if group and name.startswith(f"{group}.")] or list(known)

    def near(cutoff: float) -> Callable[[str], bool]:
        found = difflib.get_close_matches(leaf, [leaves[name] for name in own], n=1, cutoff=cutoff)
        return lambda name: leaves[name] in found

    ways: tuple[Callable[[str], bool], ...] = (
        lambda name: leaves[name] == leaf,
        lambda name: len(words[name]) > 1 and "".join(word[:1] for word in words[name]) == leaf,
        lambda name: len(leaf) >= 3 and leaves[name].startswith(leaf),
        lambda name: not group and name in difflib.get_close_matches(key, [k for k in known if "." not in k], 1, 0.75),
        near(0.8),
        lambda name: not set(words[name]).isdisjoint(leaf.split("_")),
        near(0.6),
    )
    for fits in ways:
        if found := list(dict.fromkeys([name for name in own if fits(name)] or filter(fits, known))):
            return f" (did you mean {' or '.join(found[:2])}?)"
    return ""
