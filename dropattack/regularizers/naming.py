"""Names to targets. A name that matches nothing is an error that lists the candidates."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import cast

from torch import nn

from dropattack.regularizers.activations import Activation
from dropattack.regularizers.checks import kind
from dropattack.regularizers.gradients import is_sharded
from dropattack.regularizers.rows import EmbeddingRows, is_row_wise
from dropattack.regularizers.targets import Target, Weight

INPUT = "<input>"
"""Names the first floating-point tensor that the model is called with."""

_TABLES = (nn.Embedding, nn.EmbeddingBag)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def resolve(model: nn.Module, names: str | Iterable[str]) -> list[Target]:
    """Return the targets that `names` stand for, each once, in the order given.

    Args:
        model: Any module.
        names: Parameter names, globs over parameter names (`"rnn.weight_*"`; frozen and integer parameters are passed
            over, and a match need not take part in every step), module names (their output is attacked), or `INPUT`.

    Raises:
        TypeError: A target is not a string.
        ValueError: A name matches nothing, a named parameter is frozen or not floating-point, there is no name, or the
            model's weights are cut into pieces (FSDP1, DeepSpeed ZeRO-3).
    """
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"targets are names, such as 'embed.weight', not {kind(wrong[0])}")
    if not names:
        raise ValueError("targets is empty: name at least one parameter or module to attack")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if pieces := [name for name, p in parameters.items() if is_sharded(p)]:
        raise ValueError(
            f"{pieces[0]!r} is cut into pieces, one for each process (FSDP1 or DeepSpeed ZeRO-3), and an attack needs "
            "whole weights: take DDP, or FSDP2 (torch.distributed.fsdp.fully_shard)"
        )
    found: dict[int, Target] = {}
    for name in names:
        if name == INPUT:
            found.setdefault(id(model), Activation(INPUT, model, of_input=True))
        elif name in parameters:
            _check_attackable(name, parameters[name])
            found.setdefault(id(parameters[name]), _weight(name, parameters, modules)).optional = False
        elif name and name in modules:
            if id(modules[name]) not in found:
                found[id(modules[name])] = Activation(name, modules[name])
        elif matches := [n for n, p in parameters.items() if fnmatchcase(n, name) and _attackable(p)]:
            for match in matches:
                if id(parameters[match]) not in found:
                    found[id(parameters[match])] = target = _weight(match, parameters, modules)
                    target.optional = True
        elif matches := [n for n in parameters if fnmatchcase(n, name)]:
            shown = ", ".join(f"{n} ({_why_not(parameters[n])})" for n in matches[:6])
            raise ValueError(f"attack target {name!r} matches only weights that cannot be attacked: {shown}")
        else:
            raise ValueError(_no_match(name, parameters, modules, dict(model.named_buffers())))
    return list(found.values())


def resolve_activations(model: nn.Module, names: str | Iterable[str], method: str) -> list[Target]:
    """Return the targets of `resolve`, but allow only activations; an embedding's weight stands for its output.

    Raises:
        ValueError: As `resolve`, or a name is that of a weight.
    """
    modules = dict(model.named_modules())
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    owners = {n: n.removesuffix(".weight") for n in names if isinstance(n, str) and n.endswith(".weight")}
    tables = {n: owner for n, owner in owners.items() if isinstance(modules.get(owner), _TABLES)}
    found = resolve(model, [tables.get(n, n) for n in names])
    for target in found:
        if not isinstance(target, Activation):
            raise ValueError(
                f"{method} perturbs each example, and {target.name!r} is a weight: name a module (its output is "
                "attacked), an embedding's weight, or '<input>'"
            )
    return found


def resolve_weights(model: nn.Module, names: str | Iterable[str], method: str) -> list[Target]:
    """Return the targets of `resolve`, but allow only weights.

    Raises:
        ValueError: As `resolve`, or a name is that of a module, or `INPUT`.
    """
    found = resolve(model, names)
    if activations := [target.name for target in found if not isinstance(target, Weight)]:
        raise ValueError(f"{method} moves weights, and {activations[0]!r} is an activation: name parameters")
    return found


def default_target(model: nn.Module) -> str:
    """Return the default target: the weight of the input embedding, or the input of an image model.

    That is the embedding of `model.get_input_embeddings()` where there is one (Hugging Face), else the only
    `nn.Embedding` or `nn.EmbeddingBag`, else `INPUT` of a model with a convolution.

    Raises:
        ValueError: That is ambiguous; the message lists the choices.
    """
    model = unwrapped(model)
    tables = {name: module for name, module in model.named_modules() if isinstance(module, _TABLES)}
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
    choices = _shortened([*(name for name, p in model.named_parameters() if _attackable(p)), INPUT])
    raise ValueError(f"the model has neither an embedding nor a convolution: name what to attack, out of {choices}")


def _weight(name: str, parameters: dict[str, nn.Parameter], modules: dict[str, nn.Module]) -> Weight:
    owner, _, leaf = name.rpartition(".")
    parameter, module = parameters[name], modules[owner]
    places = [n.rpartition(".") for n, p in parameters.items() if p is parameter]
    if len(places) == 1 and isinstance(module, nn.Embedding) and is_row_wise(module, leaf):
        return EmbeddingRows(name, parameter, module)
    is_table = any(isinstance(modules[owner], _TABLES) and leaf == "weight" for owner, _, leaf in places)
    return Weight(name, parameter, is_table)


def _attackable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_floating_point() and not parameter.is_meta


def _why_not(parameter: nn.Parameter) -> str:
    if parameter.is_floating_point():
        return "meta" if parameter.is_meta else "frozen"
    return str(parameter.dtype).removeprefix("torch.")


def _check_attackable(name: str, parameter: nn.Parameter) -> None:
    if not parameter.is_floating_point():
        raise ValueError(
            f"attack target {name!r} holds {parameter.dtype}, and only (real) floating-point numbers can be moved"
        )
    if parameter.is_meta:
        raise ValueError(f"attack target {name!r} is on the meta device (offloaded?): load the weight, or name another")
    if not parameter.requires_grad:
        raise ValueError(f"attack target {name!r} is frozen (requires_grad=False): unfreeze it or name another")


def chosen(targets: str | Iterable[str] | None, model: object, method: str) -> str | Iterable[str]:
    """Return the targets, or `default_target` of the model if there are none.

    Raises:
        TypeError: There are none, and no model.
        ValueError: As `default_target`.
    """
    if targets is not None:
        return targets
    return default_target(_module(model, method))


def required(targets: str | Iterable[str] | None, model: object, method: str) -> str | Iterable[str]:
    """Return the targets.

    Raises:
        TypeError: There are none; the message names candidates.
    """
    if targets is not None:
        return targets
    model = unwrapped(_module(model, method))
    tables = [f"{name}.weight" for name, m in model.named_modules() if isinstance(m, _TABLES)]
    names = [name for name, p in model.named_parameters() if _attackable(p)]
    shown = list(dict.fromkeys([*(t for t in tables if t in names), *names]))
    raise TypeError(
        f"{method} needs targets, names of weights or modules: a weight ({_shortened(shown)}), a module, whose output "
        f"is attacked, or {INPUT!r}; as in {method}(model, targets={(shown[0] if shown else INPUT)!r})"
    )


def _module(model: object, method: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{method} needs the model itself, a torch.nn.Module: {method}(model), or with targets=…")
    return model


def _shortened(names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > 12 else ""
    return f"{', '.join(names[:12])}{more}"


def _no_match(name: str, parameters: Iterable[str], modules: Iterable[str], buffers: Iterable[str]) -> str:
    if name in buffers:
        return f"attack target {name!r} is a buffer, not a parameter"
    candidates = [*parameters, *(m for m in modules if m), INPUT]
    near = get_close_matches(name, candidates, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return f"attack target {name!r} matches no parameter or module; {hint}parameters: {_shortened(list(parameters))}"
