"""Cheap checks of a composed config: ranges and kinds, before anything heavy is imported or anything is written.

The constructors of datasets, models and regularizers check their own arguments too (they are a library's); this table
answers in milliseconds, and names the key as it is typed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropattack.errors import UserError

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(least: int) -> tuple[Check, str]:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least
    ), f"a whole number of at least {least}"


def _between(low: float, high: float = math.inf, *, above: bool = False) -> tuple[Check, str]:
    """Numbers in [low, high], or (low, high] with `above`."""
    span = f"more than {low:g}" if above else f"at least {low:g}"
    text = f"a number of {span}" + (f" and at most {high:g}" if high < math.inf else "")
    return (lambda v: _number(v) and (v > low if above else v >= low) and v <= high), text


def _one_of(*names: str) -> tuple[Check, str]:
    return (lambda v: v in names), " or ".join(names)


def _or_null(check: tuple[Check, str]) -> tuple[Check, str]:
    return (lambda v: v is None or check[0](v)), f"{check[1]}, or null"


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


_FLAG = (lambda v: isinstance(v, bool)), "true or false"
_TEXT = (lambda v: isinstance(v, str) and bool(v)), "a text"

CHECKS: dict[str, tuple[Check, str]] = {
    "seed": ((lambda v: _integer(0)[0](v) and v < 2**32), "a whole number from 0 to 4294967295"),
    "rerun": _FLAG,
    "paths.output": _TEXT,
    "paths.data": _TEXT,
    "dataset.fraction": _between(0, 1, above=True),
    "dataset.validation_fraction": _between(0, 1, above=True),
    "dataset.train_rows": _or_null(_integer(1)),
    "dataset.validation_rows": _or_null(_integer(1)),
    "dataset.test_rows": _or_null(_integer(1)),
    "model.dropout": ((lambda v: _number(v) and 0 <= v < 1), "a number of at least 0 and less than 1"),
    "reg.targets": (_names, "a list of names, such as [input,hidden]"),
    "reg.epsilon": _between(0),
    "reg.alpha": _between(0),
    "reg.rho": _between(0),
    "reg.init": _between(0),
    "reg.rate": ((lambda v: _number(v) and 0 <= v < 1), "a number of at least 0 and less than 1"),
    "reg.p": _between(0, 1),
    "reg.steps": _integer(1),
    "reg.every": _integer(1),
    "reg.mode": _one_of("paper", "notebook"),
    "reg.projection": _or_null(_one_of("l2")),
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
    "trainer.patience": _or_null(_integer(1)),
    "trainer.max_skipped": _integer(1),
    "trainer.precision": _one_of("fp32", "bf16", "fp16"),
    "trainer.device": _one_of("auto", "cpu", "cuda"),
    "trainer.threads": _or_null(_integer(1)),
    "trainer.deterministic": _FLAG,
    "trainer.compile": _FLAG,
    "trainer.progress": _one_of("auto", "bar", "plain", "none"),
    "trainer.checkpoint.every_epochs": _integer(0),
    "trainer.checkpoint.every_minutes": _between(0),
    "tracker.mode": _one_of("auto", "online", "offline", "disabled"),
}
OPTIONAL = frozenset({"reg.epsilon"})  # FreeLB: null is no projection


def check(config: dict[str, Any], conf: Path) -> None:
    """Raise a UserError that names the first key whose value cannot be meant, or a model that does not fit the data.

    `config` is the resolved config; `conf` the folder of config groups, to name the models that would fit.
    """
    for key, (fits, wanted) in CHECKS.items():
        found, value = _lookup(config, key)
        if not found or (value is None and key in OPTIONAL and config["reg"]["name"] == "freelb"):
            continue
        if not fits(value):
            shown = "null" if value is None else value
            raise UserError(f"{key}={shown} does not fit: it has to be {wanted}")
    if config["trainer"]["precision"] == "fp16" and config["trainer"]["device"] == "cpu":
        raise UserError("trainer.precision=fp16 needs a GPU; on a CPU there are fp32 and bf16")
    _check_kinds(config, conf)


def _check_kinds(config: dict[str, Any], conf: Path) -> None:
    dataset, model = config["dataset"], config["model"]
    if model["kind"] == dataset["kind"]:
        return
    from omegaconf import OmegaConf

    kinds = {
        path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted((conf / "model").glob("*.yaml"))
    }
    fitting = [name for name, file in kinds.items() if isinstance(file, dict) and file["kind"] == dataset["kind"]]
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
