"""What a config names, built: data, model, regularizer, loaders. What does not fit is a UserError with its group."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropattack import source
from dropattack.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from dropattack.data.loader import Loader
    from dropattack.data.packed import Facts
    from dropattack.data.types import Dataset, Encoded
    from dropattack.regularizers import Regularizer

NOT_ARGUMENTS = {  # what a group's file says to others than the object it names
    "dataset": {"name", "kind", "augment"},
    "model": {"name", "kind", "attack_points", "tokenizer", "recipe", "vectors"},
    "reg": {"name", "rate", "targets"},
    "tracker": {"name"},
}

HOMES = {  # where what a group's `_target_` names is at home: a config file from elsewhere must not call just anything
    "dataset": "dropattack.data",
    "model": "dropattack.models",
    "model.tokenizer": "dropattack.data",
    "reg": "dropattack.regularizers",
    "tracker": "dropattack.tracking",
}


def check_targets(config: Mapping[str, Any]) -> None:
    """Check what the config names, and the options it is given, by its source: nothing is imported.

    Raises:
        UserError: there is no such object, or it has no such option.
    """
    extra = {"model": {"spec", "vectors", "found"}, "reg": {"model", "seed"}}
    for group in HOMES:
        outer, _, inner = group.partition(".")
        chosen = config[outer].get(inner) if inner else config[outer]
        if chosen is None:
            continue
        name = str(chosen.get("_target_"))
        module = name.rpartition(".")[0]
        if not f"{module}.".startswith(f"{HOMES[group]}.") or not source.may_have(name):
            raise _no_such(group, name)
        accepted, given = source.options(name), set(_options(group, chosen))
        if accepted is not None:
            _refuse_unknown(group, chosen, given, accepted, extra.get(group, set()))


def read_data(config: Mapping[str, Any]) -> Dataset | Path:
    """The dataset, or the file of its packed form where `paths.data` holds one. Does without torch."""
    from dropattack.data import packed

    found = packed.path_of(config["paths"]["data"], config["dataset"], config["model"].get("tokenizer"))
    return found if found.is_file() else instantiate("dataset", config["dataset"])


def encode_data(config: Mapping[str, Any], found: Dataset | Path) -> tuple[Facts, Encoded]:
    """What `read_data` found, as tensors."""
    from dropattack.data import packed
    from dropattack.data.encode import encode

    if isinstance(found, Path):
        return packed.read(found)
    tokenizer = config["model"].get("tokenizer")
    made = None if tokenizer is None else instantiate("model.tokenizer", tokenizer)
    with as_user_error("model.tokenizer"):
        encoded = encode(found, made, cache=Path(config["paths"]["output"]) / "cache")
    return packed.Facts.of(found), encoded


def load_data(config: Mapping[str, Any]) -> tuple[Facts, Encoded]:
    """Load and encode the dataset, or read its packed form where `paths.data` holds one."""
    return encode_data(config, read_data(config))


def build_model(config: Mapping[str, Any], encoded: Encoded, notes: dict[str, Any] | None = None) -> nn.Module:
    """Build the model; its first weights follow from the seed alone, so they are the same under every regularizer.

    How many of the words have a pretrained vector is put into `notes`.
    """
    import torch

    extra: dict[str, Any] = {"spec": encoded.spec}
    if config["model"].get("vectors") and encoded.spec.vocabulary is not None:
        from dropattack.data.vectors import find_vectors, load_vectors

        file = find_vectors(config["model"]["vectors"], config["paths"]["data"])
        extra["vectors"], found = load_vectors(file, encoded.spec.vocabulary)
        extra["found"] = found
        if notes is not None:
            notes["vectors"] = f"for {int(found.sum()):,} of {len(found):,} words"
    torch.manual_seed(config["seed"])
    return instantiate("model", config["model"], **extra)


def attack_points(config: Mapping[str, Any], model: nn.Module) -> dict[str, str]:
    """What the config calls `input` and `hidden`; names of a BERT's parameters become those of the encoder's family."""
    aliases = getattr(model, "aliases", {})
    return {point: aliases.get(name, name) for point, name in (config["model"].get("attack_points") or {}).items()}


def build_reg(config: Mapping[str, Any], model: nn.Module, rank: int = 0) -> Regularizer:
    """Build the regularizer over `model`; its random numbers are its own, apart from dropout's."""
    from dropattack.training import seeding

    points, targets = attack_points(config, model), config["reg"].get("targets")
    extra: dict[str, Any] = {"model": model, "seed": seeding.derive(config["seed"], f"reg/rank{rank}")}
    if targets is not None:
        for target in targets:
            if target in ("input", "hidden") and target not in points:
                raise UserError(f"model={config['model']['name']} names no attack point {target!r}")
        extra["targets"] = [points.get(target, target) for target in targets]
    return instantiate("reg", config["reg"], **extra)


@dataclass(frozen=True)
class Loaders:
    """Loaders of the three splits, the number of classes, and what images were divided by, per channel."""

    train: Loader
    validation: Loader
    test: Loader
    classes: int
    std: list[float] | None


def build_loaders(config: Mapping[str, Any], encoded: Encoded, accelerator: Accelerator) -> Loaders:
    """Loaders of the three splits. Every process evaluates all of validation and test."""
    from dropattack.data.loader import Loader, pixel_statistics

    trainer, common = config["trainer"], {"device": accelerator.device, "seed": config["seed"]}
    if encoded.spec.kind == "image":
        common["mean"], common["std"] = pixel_statistics(encoded.train)
    augment = config["dataset"].get("augment")
    ranks = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    evaluating = {"batch_size": trainer["eval_batch_size"], "shuffle": False, **common}
    with as_user_error("trainer or dataset.augment"):
        return Loaders(
            train=Loader(encoded.train, batch_size=trainer["batch_size"], augment=augment, **ranks, **common),
            validation=Loader(encoded.validation, **evaluating),
            test=Loader(encoded.test, **evaluating),
            classes=encoded.spec.classes,
            std=common.get("std"),
        )


def instantiate(group: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """Call what `_target_` names with the group's options; what it does not accept is the user's to know."""
    options, target = _options(group, config), _located(group, config.get("_target_"))
    accepted = _accepted(target)
    if accepted is not None:
        _refuse_unknown(group, config, set(options), accepted, set(extra))
    with as_user_error(group):
        return target(**options, **extra)


def _accepted(target: Any) -> list[str] | None:
    """The options that `target` takes; None if it takes any. `**common` of a method stands for those that all take."""
    parameters = inspect.signature(target).parameters
    named = [name for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(named) == len(parameters):
        return named
    return [*named, *target.common] if "common" in parameters else None


def _options(group: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in {"_target_", *NOT_ARGUMENTS.get(group, ())}}


def _refuse_unknown(
    group: str, config: Mapping[str, Any], given: set[str], accepted: Sequence[str], ours: set[str]
) -> None:
    """`ours`: what the experiment hands in, which a config must not set."""
    if taken := sorted(given & ours):
        raise UserError(f"{group}.{taken[0]} is not for a config to set: remove it")
    if unknown := sorted(given - set(accepted)):
        theirs = [name for name in accepted if name not in ours]
        listed = f"options: {', '.join(theirs)}" if theirs else "it has none"
        named = config.get("name", str(config.get("_target_")).rpartition(".")[2])
        raise UserError(f"{group}={named} has no option {', '.join(unknown)}; {listed}")


def _located(group: str, name: Any) -> Any:
    """The class or function called `name`, if it is one of ours; a module of anyone else's is not even imported."""
    home, (place, _, last) = HOMES[group], str(name).rpartition(".")
    if not f"{place}.".startswith(f"{home}."):
        raise _no_such(group, name)
    try:
        target = getattr(import_module(place), last)
        if not callable(target) or not target.__module__.startswith(home):
            raise AttributeError(f"{last} is not defined there")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{group}._target_={name}: there is no such object ({reason})") from error
    return target


def _no_such(group: str, name: Any) -> UserError:
    return UserError(f"{group}._target_={name}: there is no such object in {HOMES[group]}; name one that is")


@contextmanager
def as_user_error(group: str) -> Iterator[None]:
    """A ValueError of a constructor is about an option of its group."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(f"{group}: {error}") from error
