"""The regularizer that a trainer is given: a name with options, a function of the model, or a regularizer of it."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from dropattack.regularizers import Regularizer
from dropattack.regularizers.factory import make, method_named
from dropattack.regularizers.persistent import Saved

Given = str | Callable[[nn.Module], Regularizer] | Regularizer
HOW = (
    'as in regularizer="fgm" or regularizer=lambda model: FGM(model, "bert.embeddings.word_embeddings.weight", '
    "epsilon=1.0)"
)


def checked(
    given: Given | None, options: Mapping[str, object] | None
) -> Callable[[nn.Module], Regularizer] | Regularizer:
    """Return a function of the model, or the regularizer itself.

    Args:
        given: The name of a method, a function of the model or a regularizer.
        options: Of a method that is given by name.

    Raises:
        TypeError: `given` is none of these, or options come without a name.
        ValueError: There is no method of this name.
    """
    if isinstance(given, str):
        method_named(given)
        return partial(_made, given, dict(options or {}))
    is_other_class = isinstance(given, type) and not issubclass(given, Regularizer)
    if not isinstance(given, Regularizer) and (is_other_class or not callable(given)):
        raise TypeError(
            f"regularizer is {given!r}, but must be the name of a method, a function of the model or a regularizer of "
            f"it, {HOW}"
        )
    if options is not None:
        raise TypeError(
            'regularizer_options are for a method given by name, as in regularizer="fgm": leave them out or give a name'
        )
    return given


def _made(name: str, options: dict[str, object], model: nn.Module) -> Regularizer:
    return make(name, model, **options)


def taken_over(state: Saved, rank: int, world: int) -> Saved:
    """Return a regularizer's state, saved by another number of processes, for process `rank` of `world`.

    Its counters continue, because all processes must have one objective. Its random numbers are new ones.
    """
    made: Saved = _with_new_numbers(state, rank, world)
    return made


def _with_new_numbers(state: Any, rank: int, world: int) -> Any:
    if isinstance(state, list | tuple):
        return [_with_new_numbers(one, rank, world) for one in state]
    if not isinstance(state, Mapping):
        return state
    made = {key: {} if key == "generators" else _with_new_numbers(one, rank, world) for key, one in state.items()}
    if "generators" in state:
        place = f"{state.get('seed')}/rank{rank}of{world}/step{state.get('calls')}"
        made["seed"] = int.from_bytes(hashlib.sha256(place.encode()).digest()[:7], "big")
    return made


AGAIN = (
    "the checkpoint is of another number of processes: the regularizer continues from its step, with new random numbers"
)
