"""The regularizer that a trainer is given: a name with options, a function of the model, or a regularizer of it."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from dropattack.regularizers import Regularizer
from dropattack.regularizers.factory import make, method_named

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
    if not isinstance(given, Regularizer) and (isinstance(given, type) or not callable(given)):
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
