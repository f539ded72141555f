"""Fast checks of a composed config, before anything heavy is imported or anything is written."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

from dropattack.errors import UserError
from dropattack.runs.attacked import methods
from dropattack.runs.identity import NEUTRAL
from dropattack.runs.nearest import nearest
from dropattack.runs.ranges import AVERAGING, CHECKS, IN_TRAINER, OPTIONAL, REAL
from dropattack.runs.yaml_io import read_yaml
from dropattack.tracking.wandb import WANDB_MODES

# Required keys. Those of OURS are also the only allowed ones; the constructors check the other groups' options.
KINDS = {"dataset": ("name", "kind", "_target_"), "model": ("name", "kind", "_target_"), "reg": ("name", "_target_"),
         "tracker": ("name", "_target_"), "scale": ("name",), "settings": ("name",)}  # fmt: skip
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
