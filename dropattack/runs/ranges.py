"""The range and type of each option's value.

The constructors of data sets, models and regularizers also check their own arguments; these checks answer in
milliseconds, and name the key as typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

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
# Options of one kind of average. With another they would do nothing, so they must have their defaults.
AVERAGING = {"trainer.average_decay": "ema", "trainer.average_start": "swa"}
# Methods that are an option of the trainer, and the values with which the option does something.
IN_TRAINER: dict[str, tuple[str, Check]] = {
    "label_smoothing": ("label_smoothing", lambda v: v > 0), "mixup": ("mixup", lambda v: v > 0),
    "ema": ("average", lambda v: v == "ema"), "swa": ("average", lambda v: v == "swa"),
}  # fmt: skip
