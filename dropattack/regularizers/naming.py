"""From names to targets. A name that matches nothing is an error that lists what there is."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import cast

from torch import nn

from dropattack.regularizers.checks import kind
from dropattack.regularizers.rows import EmbeddingRows, is_row_wise
from dropattack.regularizers.targets import Activation, Target, Weight

INPUT = "<input>"
"""Names the first floating-point tensor that the model is called with."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, DataParallel and DistributedDataParallel, whose names people know."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def resolve(model: nn.Module, names: str | Iterable[str]) -> list[Target]:
    """The targets that `names` stand for, each once, in the order given.

    Args:
        model: Any module.
        names: Parameter names, globs over parameter names (`"rnn.weight_*"`; frozen and integer parameters are passed
            over), module names (their output is attacked), or `INPUT`.

    Raises:
        TypeError: A target is no name.
        ValueError: A name matches nothing, a named parameter is frozen or not floating-point, or there is no name.
    """
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"targets are names, such as 'embed.weight', not {kind(wrong[0])}")
    if not names:
        raise ValueError("targets is empty: name at least one parameter or module to attack")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules: dict[str, nn.Module] = dict(model.named_modules())
    found: dict[int, Target] = {}
    for name in names:
        if name == INPUT:
            found.setdefault(id(model), Activation(INPUT, model, of_input=True))
        elif name in parameters:
            _check_attackable(name, parameters[name])
            found.setdefault(id(parameters[name]), _weight(name, parameters, modules))
        elif name and name in modules:
            if id(modules[name]) not in found:
                found[id(modules[name])] = Activation(name, modules[name])
        elif matches := [n for n, p in parameters.items() if fnmatchcase(n, name) and _attackable(p)]:
            for match in matches:
                found.setdefault(id(parameters[match]), _weight(match, parameters, modules))
        else:
            raise ValueError(_no_match(name, parameters, modules, dict(model.named_buffers())))
    return list(found.values())


def resolve_activations(model: nn.Module, names: str | Iterable[str], method: str) -> list[Target]:
    """As `resolve`, where every target has to be an activation; an embedding's weight stands for its output.

    Raises:
        ValueError: As `resolve`, or a name is that of a weight.
    """
    modules = dict(model.named_modules())
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    owners = {n: n.removesuffix(".weight") for n in names if isinstance(n, str) and n.endswith(".weight")}
    tables = {n: owner for n, owner in owners.items() if isinstance(modules.get(owner), nn.Embedding)}
    found = resolve(model, [tables.get(n, n) for n in names])
    for target in found:
        if not isinstance(target, Activation):
            raise ValueError(
                f"{method} perturbs each example, and {target.name!r} is a weight: name a module (its output is "
                "attacked), an embedding's weight, or '<input>'"
            )
    return found


def default_target(model: nn.Module) -> str:
    """What is attacked where nobody says: the weight of the input embedding, or the input of an image model.

    That is the embedding of `model.get_input_embeddings()` where there is one (Hugging Face), else the only
    `nn.Embedding`, else `INPUT` of a model with a convolution.

    Raises:
        ValueError: That is ambiguous; the message lists the choices.
    """
    model = unwrapped(model)
    tables = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    getter = getattr(model, "get_input_embeddings", None)
    own = getter() if callable(getter) else None
    found = [name for name, module in tables.items() if module is own] or list(tables)
    if len(found) == 1:
        return f"{found[0]}.weight" if found[0] else "weight"
    if found:
        choices = ", ".join(f"{name}.weight" for name in found)
        raise ValueError(f"the model has several embeddings: name what to attack, out of {choices}")
    if any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules()):
        return INPUT
    choices = ", ".join([*(name for name, p in model.named_parameters() if _attackable(p)), INPUT])
    raise ValueError(f"the model has neither an embedding nor a convolution: name what to attack, out of {choices}")


def _weight(name: str, parameters: dict[str, nn.Parameter], modules: dict[str, nn.Module]) -> Weight:
    owner, _, leaf = name.rpartition(".")
    parameter, module = parameters[name], modules[owner]
    tied = sum(p is parameter for p in parameters.values()) > 1
    if not tied and isinstance(module, nn.Embedding) and is_row_wise(module, leaf):
        return EmbeddingRows(name, parameter, module)
    return Weight(name, parameter)


def _attackable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_floating_point()


def _check_attackable(name: str, parameter: nn.Parameter) -> None:
    if not parameter.is_floating_point():
        raise ValueError(
            f"attack target {name!r} holds {parameter.dtype}, and only floating-point numbers can be moved"
        )
    if not parameter.requires_grad:
        raise ValueError(f"attack target {name!r} is frozen (requires_grad=False): unfreeze it or name another")


def _no_match(name: str, parameters: Iterable[str], modules: Iterable[str], buffers: Iterable[str]) -> str:
    if name in buffers:
        return f"attack target {name!r} is a buffer, not a parameter"
    candidates = [*parameters, *(m for m in modules if m), INPUT]
    near = get_close_matches(name, candidates, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    shown = list(parameters)
    more = f", … ({len(shown)} in all)" if len(shown) > 12 else ""
    return f"attack target {name!r} matches no parameter or module; {hint}parameters: {', '.join(shown[:12])}{more}"
