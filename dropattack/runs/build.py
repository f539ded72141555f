"""Build what a config names: data, model, regularizer, loaders. A UserError names the group that is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropattack import plugins, source
from dropattack.errors import UserError
from dropattack.runs import attacked

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from dropattack.data.loader import Loader
    from dropattack.data.packed import Facts
    from dropattack.data.types import Dataset, Encoded
    from dropattack.regularizers import Regularizer

NOT_ARGUMENTS = {  # keys of a group that are not arguments of its object
    "dataset": {"name", "kind", "augment", "content", "metrics"},
    "model": {"name", "kind", "attack_points", "tokenizer", "recipe", "vectors", "content"},
    "reg": {"name", "rate", "times", "plain", *attacked.OPTIONS},
    "tracker": {"name"},
}

# Allowed module prefix of each group's `_target_`, besides plug-ins: a foreign config file must not call any code.
HOMES = {
    "dataset": "dropattack.data",
    "model": "dropattack.models",
    "model.tokenizer": "dropattack.data",
    "reg": "dropattack.regularizers",
    "tracker": "dropattack.tracking",
}


def check_targets(config: Mapping[str, Any]) -> None:
    """Check the objects that the config names and their options against the source, without importing anything.

    Raises:
        UserError: the object does not exist, or has no such option.
    """  # noqa: DOC501  _no_such makes a UserError
    extra = {"model": {"spec", "vectors", "found"}, "reg": {"model", "seed"}}
    for group in HOMES:
        outer, _, inner = group.partition(".")
        chosen = config[outer].get(inner) if inner else config[outer]
        if chosen is None:
            continue
        for options in attacked.methods(chosen).values() if group == "reg" else [chosen]:
            name = str(options.get("_target_"))
            if not _at_home(group, name) or not (source.may_have(name) or plugins.has(name)):
                raise _no_such(group, name)
            accepted, given = source.options(name), set(_options(group, options))
            if accepted is not None:
                _refuse_unknown(group, options, given, accepted, extra.get(group, set()))


def read_data(config: Mapping[str, Any]) -> Dataset | Path:
    """Return the dataset, or the file of its packed form if `paths.data` has one. Needs no torch."""
    from dropattack.data import packed

    found = packed.path_of(config["paths"]["data"], config["dataset"], config["model"].get("tokenizer"))
    return found if found.is_file() else instantiate("dataset", config["dataset"])


def encode_data(config: Mapping[str, Any], found: Dataset | Path) -> tuple[Facts, Encoded]:
    """Return the result of `read_data` as tensors."""
    from dropattack.data import packed
    from dropattack.data.encode import encode

    if isinstance(found, Path):
        return packed.read(found)
    tokenizer = config["model"].get("tokenizer")
    made = None if tokenizer is None else instantiate("model.tokenizer", tokenizer)
    top = str((tokenizer or {}).get("_target_")).partition(".")[0]
    code = source.digest_of_other(top) if top in source.others else None
    with as_user_error("model.tokenizer"):
        encoded = encode(found, made, cache=Path(config["paths"]["output"]) / "cache", code=code)
    return packed.Facts.of(found), encoded


def load_data(config: Mapping[str, Any]) -> tuple[Facts, Encoded]:
    """Load and encode the dataset, or read its packed form if `paths.data` has one."""
    return encode_data(config, read_data(config))


def build_model(config: Mapping[str, Any], encoded: Encoded, notes: dict[str, Any] | None = None) -> nn.Module:
    """Return the model; its initial weights depend only on the seed, so they are the same for every regularizer.

    `notes` gets the number of words that have a pretrained vector.
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
    """Return the config's `input` and `hidden`, with BERT's parameter names mapped to the encoder's own."""
    aliases = getattr(model, "aliases", {})
    return {point: aliases.get(name, name) for point, name in (config["model"].get("attack_points") or {}).items()}


def build_reg(config: Mapping[str, Any], model: nn.Module, rank: int = 0) -> Regularizer:
    """Build the regularizer of `model`; its random numbers are independent of dropout's."""
    from dropattack.training import seeding

    points, found = attack_points(config, model), []
    methods = attacked.methods(config["reg"])
    for place, reg in methods.items():
        purpose = f"{place.replace('.', '/')}/rank{rank}"  # each method of a composition has random numbers of its own
        extra: dict[str, Any] = {"model": model, "seed": seeding.derive(config["seed"], purpose)}
        for option in attacked.OPTIONS:
            if (names := reg.get(option)) is not None:
                extra[option] = [points.get(name, name) for name in names]
        found.append(instantiate("reg", reg, **extra))
    if "reg" in methods:
        return found[0]
    with as_user_error(f"reg={config['reg']['name']}"):
        return _located("reg", config["reg"]["_target_"])(*found)


@dataclass(frozen=True)
class Loaders:
    """Loaders of the three splits, and the number of classes."""

    train: Loader
    validation: Loader
    test: Loader
    classes: int


def build_loaders(config: Mapping[str, Any], encoded: Encoded, accelerator: Accelerator) -> Loaders:
    """Return loaders of the three splits. Every process evaluates all of validation and test."""
    from dropattack.data.loader import Loader

    trainer, common = config["trainer"], {"device": accelerator.device, "seed": config["seed"]}
    if (statistics := encoded.train.pixel_statistics) is not None:
        common |= statistics._asdict()
    augment = config["dataset"].get("augment")
    ranks = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    evaluating = {"batch_size": trainer["eval_batch_size"], "shuffle": False, **common}
    with as_user_error("trainer or dataset.augment"):
        return Loaders(
            train=Loader(encoded.train, batch_size=trainer["batch_size"], augment=augment, **ranks, **common),
            validation=Loader(encoded.validation, **evaluating),
            test=Loader(encoded.test, **evaluating),
            classes=encoded.spec.classes,
        )


def instantiate(group: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """Call the object named by `_target_` with the group's options; report options that it does not accept."""
    options, target = _options(group, config), _located(group, config.get("_target_"))
    accepted = _accepted(target)
    if accepted is not None:
        _refuse_unknown(group, config, set(options), accepted, set(extra))
    with as_user_error(group):
        return target(**options, **extra)


def _accepted(target: Any) -> list[str] | None:
    """Return the options that `target` takes; None if it takes any. `**common` means the options of all methods."""
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
    """Refuse unknown options, and `ours`: the arguments that the experiment sets itself."""
    if taken := sorted(given & ours):
        raise UserError(f"{group}.{taken[0]} cannot be set in a config: remove it")
    if unknown := sorted(given - set(accepted)):
        theirs = [name for name in accepted if name not in ours]
        listed = f"options: {', '.join(theirs)}" if theirs else "it has none"
        named = config.get("name", str(config.get("_target_")).rpartition(".")[2])
        raise UserError(f"{group}={named} has no option {', '.join(unknown)}; {listed}")


def _located(group: str, name: Any) -> Any:
    """Return the class or function called `name`, if it is in the group's package or a plug-in; import nothing else."""
    place, _, last = str(name).rpartition(".")
    if not _at_home(group, str(name)):
        raise _no_such(group, name)
    try:
        target = getattr(import_module(place), last)
        if not callable(target) or not (plugins.owns(place) or target.__module__.startswith(HOMES[group])):
            raise AttributeError(f"{last} is not defined there")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{group}._target_={name}: there is no such object ({reason})") from error
    return target


def _at_home(group: str, name: str) -> bool:
    return f"{name.rpartition('.')[0]}.".startswith(f"{HOMES[group]}.") or plugins.owns(name)


def _no_such(group: str, name: Any) -> UserError:
    return UserError(f"{group}._target_={name}: there is no such object in {HOMES[group]} or a plug-in; name one")


@contextmanager
def as_user_error(group: str) -> Iterator[None]:
    """Turn a constructor's ValueError or TypeError into a UserError about its group."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(f"{group}: {error}") from error
