"""Fast checks of a composed config: ranges and types, before anything heavy is imported or anything is written.

The constructors of datasets, models and regularizers also check their own arguments; this table answers in
milliseconds, and names the key as typed.
"""

from __future__ import annotations

import copy
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.runs.attacked import methods
from dropattack.runs.identity import NEUTRAL
from dropattack.runs.nearest import nearest
from dropattack.runs.yaml_io import read_yaml
from dropattack.tracking.wandb import WANDB_MODES

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(least: int) -> tuple[Check, str]:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least
    ), f"a whole number of at least {least}"


def _between(low: float, high: float = math.inf, *, above: bool = False) -> tuple[Check, str]:
    """Return a check for numbers in [low, high], or (low, high] with `above`."""
    span = f"more than {low:g}" if above else f"at least {low:g}"
    text = f"a number of {span}" + (f" and at most {high:g}" if high < math.inf else "")
    return (lambda v: _number(v) and (v > low if above else v >= low) and v <= high), text


def _one_of(*names: str) -> tuple[Check, str]:
    return (lambda v: v in names), " or ".join(names)


def _or_null(check: tuple[Check, str]) -> tuple[Check, str]:
    return (lambda v: v is None or check[0](v)), f"{check[1]}, or null"


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def is_name(value: Any) -> bool:
    """Return whether the value can be part of a file name and of a table."""
    return isinstance(value, str) and re.fullmatch(r"\w[\w.+-]{0,59}", value, re.ASCII) is not None


def _is_path(value: Any) -> bool:
    """Return whether the system can open the path: Linux allows 255 bytes per part and 4,095 in total."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    return len(value.encode(errors="replace")) < 4096 and all(
        len(part.encode(errors="replace")) < 256 for part in value.split("/")
    )


_FRACTION = (lambda v: _number(v) and 0 <= v < 1), "a number of at least 0 and less than 1"
_FLAG = (lambda v: isinstance(v, bool)), "true or false"
_PATH = _is_path, "a path whose parts have at most 255 bytes"
_COLUMN = (lambda v: isinstance(v, str) and v != ""), "the name of a column"
_NAME = (lambda v: is_name(v)), "a name: letters, digits and . _ + -, at most 60 of them"

CHECKS: dict[str, tuple[Check, str]] = {
    "seed": ((lambda v: _integer(0)[0](v) and v < 2**32), "a whole number from 0 to 4294967295"),
    "rerun": _FLAG,
    "plugins": ((lambda v: v == [] or isinstance(v, dict) or _names(v)), "a list of modules, such as [my_module]"),
    "paths.output": _PATH,
    "paths.data": _PATH,
    "dataset.name": _NAME,
    "model.name": _NAME,
    "reg.name": _NAME,
    "scale.name": _NAME,
    "settings.name": _NAME,
    "tracker.name": _NAME,
    "dataset.root": _PATH,
    "dataset.cache": _or_null(_PATH),
    "dataset.path": _or_null(_PATH),
    "dataset.validation_path": _or_null(_PATH),
    "dataset.test_path": _or_null(_PATH),
    "dataset.text_column": _COLUMN,
    "dataset.text_pair_column": _or_null(_COLUMN),
    "dataset.label_column": _COLUMN,
    "dataset.split_column": _or_null(_COLUMN),
    "dataset.metrics": (
        (lambda v: isinstance(v, list) and set(map(str, v)) <= {"f1", "matthews"}),
        "a list of f1 and matthews",
    ),
    "dataset.size": _integer(1),
    "dataset.mode": _one_of("rgb", "grey"),
    "dataset.test_fraction": _between(0, 1, above=True),
    "dataset.fraction": _between(0, 1, above=True),
    "dataset.validation_fraction": _between(0, 1, above=True),
    "dataset.train_rows": _or_null(_integer(1)),
    "dataset.validation_rows": _or_null(_integer(1)),
    "dataset.test_rows": _or_null(_integer(1)),
    "model.dropout": _FRACTION,
    "model.hidden_size": _integer(1),
    "model.embedding_size": _integer(1),
    "model.embedding_std": _between(0),
    "model.layers": _integer(1),
    "model.heads": _integer(1),
    "model.width": _between(0, above=True),
    "model.vectors": _or_null(_PATH),
    "model.pretrained": _or_null(_PATH),
    "reg.targets": _or_null((_names, "a list of names, such as [input,hidden]")),
    "reg.inputs": _or_null((_names, "a list of names, such as [input]")),
    "reg.epsilon": _between(0),
    "reg.alpha": _between(0),
    "reg.rho": _between(0),
    "reg.init": _between(0),
    "reg.rate": _FRACTION,
    "reg.p": _between(0, 1),
    "reg.steps": _integer(1),
    "reg.every": _integer(1),
    "reg.start_step": _integer(0),
    "reg.warmup": _integer(0),
    "reg.weight": _between(0),
    "reg.gamma": _between(0),
    "reg.eta": _between(0),
    "reg.xi": _between(0, above=True),
    "reg.sigma": _between(0),
    "reg.tau": _between(0),
    "reg.decay": _between(0, 1),
    "reg.level": _between(0),
    "reg.norm": _one_of("l2", "linf"),
    "reg.divergence": _or_null(_one_of("softmax", "bernoulli", "gaussian")),
    "reg.mode": _one_of("paper", "notebook"),
    "reg.projection": _or_null(_one_of("l2", "linf")),
    "reg.grouping": _one_of("sequential", "joint"),
    "reg.relative": _FLAG,
    "reg.adaptive": _FLAG,
    "reg.dropout_masks": _one_of("fresh", "shared"),
    "trainer.epochs": _integer(1),
    "trainer.max_steps": _or_null(_integer(1)),
    "trainer.batch_size": _integer(1),
    "trainer.accumulation": _integer(1),
    "trainer.eval_batch_size": _integer(1),
    "trainer.optimizer": _one_of("adam", "adamw", "sgd"),
    "trainer.learning_rate": _between(0, above=True),
    "trainer.weight_decay": _between(0),
    "trainer.schedule": _one_of("constant", "linear", "cosine"),
    "trainer.warmup": _between(0, 1),
    "trainer.clip_norm": _or_null(_between(0, above=True)),
    "trainer.label_smoothing": _FRACTION,
    "trainer.mixup": _between(0),
    "trainer.average": _one_of("none", "ema", "swa"),
    "trainer.average_decay": _FRACTION,
    "trainer.average_start": _FRACTION,
    "trainer.patience": _or_null(_integer(1)),
    "trainer.max_skipped": _integer(1),
    "trainer.precision": _one_of("fp32", "bf16", "fp16"),
    "trainer.device": _one_of("auto", "cpu", "cuda"),
    "trainer.threads": _or_null(_integer(1)),
    "trainer.kernels": _one_of("native", "portable"),
    "trainer.deterministic": _FLAG,
    "trainer.compile": _FLAG,
    "trainer.progress": _one_of("auto", "bar", "plain", "none"),
    "trainer.probe_gradients": _integer(0),
    "trainer.checkpoint.every_epochs": _integer(0),
    "trainer.checkpoint.every_minutes": _between(0),
    "trainer.checkpoint.share": _between(0, 1, above=True),
    "tracker.mode": _one_of("auto", "online", "offline", "disabled"),
    "tracker.folder": _PATH,
}
# Keys whose values are real numbers: 1 is 1.0 there.
REAL = tuple(key for key, (_, wanted) in CHECKS.items() if wanted.startswith("a number"))
OPTIONAL = {"reg.epsilon": ("freelb", "dropattack", "randomattack")}  # null: the method's own rule
# Required keys. Those of OURS are also the only allowed ones; the constructors check the other groups' options.
KINDS = {"dataset": ("name", "kind", "_target_"), "model": ("name", "kind", "_target_"), "reg": ("name", "_target_"),
         "tracker": ("name", "_target_"), "scale": ("name",), "settings": ("name",)}  # fmt: skip
# Options of one kind of average. With another they would do nothing, so they must have their defaults.
AVERAGING = {"trainer.average_decay": "ema", "trainer.average_start": "swa"}
# Methods that are an option of the trainer, and the values with which the option does something.
IN_TRAINER: dict[str, tuple[str, Check]] = {
    "label_smoothing": ("label_smoothing", lambda v: v > 0), "mixup": ("mixup", lambda v: v > 0),
    "ema": ("average", lambda v: v == "ema"), "swa": ("average", lambda v: v == "swa"),
}  # fmt: skip
OURS = ("seed", "rerun", "plugins", "paths", "trainer")
TUNED = ("model", "reg", "trainer")  # the groups that `make tune` sets


def check(config: dict[str, Any], conf: Path) -> None:
    """Check all values of a resolved config, and that the model fits the data.

    Args:
        config: the resolved config.
        conf: the folder of config groups, used to list the models that fit.

    Raises:
        UserError: names the first invalid key.
    """
    _check_keys(config)
    regs = {"reg": config["reg"], **methods(config["reg"])}
    places = [(key, f"{place}.{key[4:]}", regs[place]) for key in CHECKS if key.startswith("reg.") for place in regs]
    places += [(key, key, {}) for key in CHECKS if not key.startswith("reg.")]
    for listed, key, reg in places:
        (fits, wanted), (found, value) = CHECKS[listed], _lookup(config, key)
        if not found or (value is None and reg.get("name") in OPTIONAL.get(listed, ())):
            continue
        if not fits(value):
            shown = "null" if value is None else str(value)
            shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
            raise UserError(f"{key}={shown} is invalid: it must be {wanted}")
    _check_device(config["trainer"])
    _check_averaging(config["trainer"])
    _check_tracker(config["tracker"])
    _check_tuned(config, conf)
    _check_kinds(config, conf)
    _check_mixup(config)
    _check_dropout(config)
    _check_undone(config)


def with_reals(config: dict[str, Any]) -> dict[str, Any]:
    """Return a checked config with real numbers where options are real: `reg.epsilon=1` and `1.0` are the same run.

    The options of a plug-in stay as they are, because only its code knows their types.
    """
    regs = {"reg": config["reg"], **methods(config["reg"])}
    places = [f"{place}.{key[4:]}" for key in REAL if key.startswith("reg.") for place in regs]
    places += [key for key in REAL if not key.startswith("reg.")]
    made = copy.deepcopy(config)
    for key in places:
        place, _, last = key.rpartition(".")
        found, options = _lookup(made, place)
        own = str(options.get("_target_", "dropattack.")).startswith("dropattack.") if found else False
        if own and isinstance(value := options.get(last), int):
            options[last] = float(value)
    return made


def _check_averaging(trainer: dict[str, Any]) -> None:
    for key, kind in AVERAGING.items():
        value = trainer[key.partition(".")[2]]
        if trainer["average"] != kind and value != NEUTRAL[key][0]:
            raise UserError(f"{key}={value} needs trainer.average={kind}, and it is {trainer['average']}")


def _check_mixup(config: dict[str, Any]) -> None:
    alpha, dataset = config["trainer"]["mixup"], config["dataset"]
    if alpha and dataset["kind"] != "image":
        raise UserError(
            f"trainer.mixup={alpha} mixes the pixels of two images, and dataset={dataset['name']} is "
            f"{dataset['kind']}: set trainer.mixup=0 or choose a data set of images"
        )


def _check_dropout(config: dict[str, Any]) -> None:
    """Check that a method that compares dropout masks has some: R-Drop and R-AT, which set the model's dropout."""
    for place, reg in methods(config["reg"]).items():
        compares = "rate" in reg and str(reg["_target_"]).startswith("dropattack.") and "alpha" in reg
        if compares and reg["alpha"] and reg.get("epsilon", 1) and config["model"].get("dropout") == 0:
            raise UserError(
                f"model.dropout=0 leaves reg={reg['name']} no dropout masks to compare: set {place}.rate above 0, and "
                "leave model.dropout out"
            )


def _check_undone(config: dict[str, Any]) -> None:
    """Check that nothing undoes what a method sets outside its own group: the run would be plain under its name."""
    model, trainer, reg = config["model"], config["trainer"], config["reg"]
    if reg.get("rate") and model.get("dropout") not in (None, reg["rate"]):
        raise UserError(
            f"reg={reg['name']} sets model.dropout to reg.rate={reg['rate']}, and something else set it to "
            f"{model['dropout']}: leave model.dropout out and set reg.rate"
        )
    if reg.get("times") and trainer["max_steps"]:
        raise UserError(
            f"reg={reg['name']} trains for {reg['times']} × as many epochs, and "
            f"trainer.max_steps={trainer['max_steps']} ends that early: leave trainer.max_steps out"
        )
    times, epochs = reg.get("times"), (model.get("recipe") or {}).get("epochs")
    if times and epochs and trainer["epochs"] != times * epochs:
        raise UserError(
            f"reg={reg['name']} trains for {times} × model.recipe.epochs={epochs} epochs, and something else set "
            f"trainer.epochs to {trainer['epochs']}: leave trainer.epochs out and set model.recipe.epochs"
        )
    if reg["name"] in IN_TRAINER:
        key, works = IN_TRAINER[reg["name"]]
        if not works(trainer[key]):
            raise UserError(
                f"reg={reg['name']} works through trainer.{key}, and something else set it to {trainer[key]}: leave "
                f"trainer.{key} out, or choose reg=none"
            )


def _check_device(trainer: dict[str, Any]) -> None:
    wanted, here = trainer["device"], may_have_gpu()
    if wanted == "cuda" and not here:
        raise UserError("trainer.device=cuda: there is no CUDA device; use trainer.device=auto or cpu")
    if trainer["precision"] == "fp16" and (wanted == "cpu" or not here):
        raise UserError("trainer.precision=fp16 needs a GPU; a CPU supports fp32 and bf16")


def may_have_gpu() -> bool:
    """Return False if the system has no GPU device, or hides it from this process; only torch knows for certain."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    devices = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvmap")
    return sys.platform != "linux" or any(map(os.path.exists, devices))


def _check_tracker(tracker: dict[str, Any]) -> None:
    """Check WANDB_MODE, which applies with mode=auto: an unknown value would disable tracking."""
    if tracker["name"] != "wandb" or tracker.get("mode") != "auto":
        return
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in WANDB_MODES:
        raise UserError(
            f"WANDB_MODE={mode} in the environment is not a mode of W&B{nearest(mode, WANDB_MODES)}; it can be "
            f"{', '.join(WANDB_MODES)}"
        )


def _check_keys(config: dict[str, Any]) -> None:
    """Check that no file of conf/ lacks a key or has one that nothing reads."""
    wanted = [f"{group}.{key}" for group, keys in KINDS.items() for key in keys]
    wanted += [key for key in CHECKS if key.partition(".")[0] in OURS]
    for key in wanted:
        if not _lookup(config, key)[0]:
            place = f"conf/{key.partition('.')[0]}/"
            raise UserError(f"there is no {key}, and a run needs it: add it to the file in {place}")
    known = {key.partition(".")[0] for key in wanted}
    for prefix, group in (("", config), *((f"{name}.", config[name]) for name in ("trainer", "paths"))):
        known |= {key.removeprefix(prefix).partition(".")[0] for key in wanted if key.startswith(prefix)}
        if unknown := sorted(f"{prefix}{key}" for key in group if key not in known):
            raise UserError(f"nothing reads {', '.join(unknown)}: remove it from the file in conf/ that sets it")


def _check_tuned(config: dict[str, Any], conf: Path) -> None:
    name = "-".join(config[group]["name"] for group in ("scale", "dataset", "model", "reg"))
    path = conf / "settings" / config["settings"]["name"] / f"{name}.yaml"
    if not path.exists():
        return
    if beyond := sorted(key for key in read_yaml(path) if key not in TUNED):
        raise UserError(f"{path} sets {', '.join(beyond)}, but tuned settings only set {', '.join(TUNED)}: remove it")


def _check_kinds(config: dict[str, Any], conf: Path) -> None:
    dataset, model = config["dataset"], config["model"]
    if model["kind"] == dataset["kind"]:
        return
    kinds = {path.stem: read_yaml(path).get("kind") for path in sorted((conf / "model").glob("*.yaml"))}
    fitting = [name for name, kind in kinds.items() if kind == dataset["kind"]]
    raise UserError(
        f"model={model['name']} takes {model['kind']} data, and dataset={dataset['name']} is "
        f"{dataset['kind']}; models that fit: {', '.join(fitting) or 'none'}"
    )


def _lookup(config: Any, key: str) -> tuple[bool, Any]:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return False, None
        config = config[part]
    return True, config
