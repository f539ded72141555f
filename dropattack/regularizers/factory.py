"""Methods by name: `make("fgm", model, epsilon=0.5)`."""

from difflib import get_close_matches

from torch import nn

from dropattack.regularizers.base import Regularizer
from dropattack.regularizers.checks import check_options

_HOME = __name__.rpartition(".")[0]
_ALIASES = {"none": "identity"}
_NOT_BY_NAME = ("compose",)  # takes methods, not a model


def names() -> list[str]:
    """Return the names that `make` knows: those of the classes, in lower case."""
    return sorted(_classes())


def method_named(name: str) -> type[Regularizer]:
    """Return the class of a method.

    Args:
        name: Of the class, in any case, or `"none"` for `Identity`.

    Raises:
        ValueError: There is no such method; the message lists those there are.
    """
    known, lower = _classes(), name.lower() if isinstance(name, str) else str(name)
    found = known.get(_ALIASES.get(lower, lower))
    if found is None:
        near = get_close_matches(lower, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no method {name!r}; {hint}methods: {', '.join(sorted(known))}")
    return found


def make(name: str, model: nn.Module, /, **options: object) -> Regularizer:
    """Return the method called `name` for a model.

    Example:
        >>> make("fgm", nn.Embedding(10, 4), epsilon=0.5)
        FGM(weight, epsilon=0.5, relative=False, norm='l2', weight=1.0)

    Args:
        name: As for `method_named`.
        model: The network.
        options: Arguments of the method's class. Without `targets` it finds what it attacks by itself, if it can.

    Raises:
        TypeError: The method has no such option, or needs targets.
        ValueError: There is no such method, or an option has a wrong value.
    """
    method = method_named(name)
    check_options(method, options)
    return method(model, **options)  # type: ignore[arg-type]


def _classes() -> dict[str, type[Regularizer]]:
    """Return the library's own methods. Whatever is imported by `dropattack.regularizers` is found."""
    found: dict[str, type[Regularizer]] = {}
    open_ = Regularizer.__subclasses__()
    while open_:
        method = open_.pop()
        open_ += method.__subclasses__()
        if method.__module__.startswith(f"{_HOME}."):
            found[method.__name__.lower()] = method
    return {name: method for name, method in found.items() if name not in _NOT_BY_NAME}
