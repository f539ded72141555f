"""The identity of a run: the part of its config that determines the result, and the name made from it.

Standard library only, like `record`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
_HAD_DROP_LEAKS = ("imdb",)  # elsewhere `drop_leaks` is newer than recorded runs, so false is left out
# Keys that change where or how fast a run executes, but not its result.
_NOT_IDENTITY = ("paths", "tracker", "rerun", "settings")
_NOT_IDENTITY_WITHIN = {
    "trainer": ("device", "threads", "kernels", "progress", "checkpoint", "eval_batch_size", "probe_gradients"),
    "model": ("recipe",),  # defaults of the trainer, whose own keys hold the values used
}

# Options that came after records were made. At the value that means what was before them they are not a part of the
# identity, so that a record keeps its own; the methods named have had the option from the start.
NEUTRAL: dict[str, tuple[Any, tuple[str, ...]]] = {
    "reg.every": (1, ("dropattack",)),
    "reg.start_step": (0, ()),
    "reg.warmup": (0, ()),
    "reg.weight": (1.0, ()),
    "reg.norm": ("l2", ()),
    "reg.relative": (False, ("dropattack", "randomattack", "awp", "rwp")),
    "model.pooling": ("last", ()),
    "trainer.label_smoothing": (0.0, ()),
    "trainer.mixup": (0.0, ()),
    "trainer.average": ("none", ()),
    "trainer.average_decay": (0.999, ()),
    "trainer.average_start": (0.75, ()),
    "dataset.drop_rewritten": (False, ()),
    "dataset.subset_seed": (None, ()),
    "model.trainable_layers": (None, ()),
    "model.content": (None, ("hf",)),
}


# Names that may be those of a folder: a column called `data` is not the data folder.
_NO_PATHS = ("text_column", "text_pair_column", "label_column", "split_column", "config_name")
# A word is the name of a folder in these alone (and where a key ends with `_path`): `digits` is a data set elsewhere.
_PLACES = ("root", "cache", "path", "pretrained", "vectors")
# The options that name a user's own files. Where `content` of the group identifies them, their places do not count;
# neither do those of word vectors and a tokenizer, whose content is a key of its own (`experiment.resolve`).
_OWN = {"dataset": ("path", "validation_path", "test_path"), "model": ("pretrained",)}


def of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved config that determines the result: the input of `run_id`, kept in the record.

    The data and output folders are replaced by `<data>` and `<output>` wherever they occur, and the home folder by `~`,
    so that a run has one identity on every machine and records reveal no folders. Of a user's own file elsewhere,
    only the name is kept.
    """
    kept = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
    if isinstance(dataset := kept.get("dataset"), Mapping) and dataset.get("name") not in _HAD_DROP_LEAKS:
        kept["dataset"] = {key: value for key, value in dataset.items() if (key, value) != ("drop_leaks", False)}
    for group, names in _NOT_IDENTITY_WITHIN.items():
        if isinstance(kept.get(group), Mapping):
            kept[group] = {key: value for key, value in kept[group].items() if key not in names}
    for group in dict.fromkeys(path.partition(".")[0] for path in NEUTRAL):
        if isinstance(options := kept.get(group), Mapping):
            kept[group] = _without_neutral(group, options)
    if not kept.get("plugins"):
        kept.pop("plugins", None)
    kept = _anonymous(kept, [*folders(config), (str(Path.home()), "~")])
    for group, names in _OWN.items():
        options = kept.get(group)
        if isinstance(options, dict) and "content" in options:
            for place in filter(os.path.isabs, filter(None, map(options.get, names))):
                kept[group] = _replaced(kept[group], place, Path(place).name)
    for place in filter(os.path.isabs, _known_files(kept)):
        kept["model"] = _replaced(kept["model"], place, Path(place).name)
    return kept


def _without_neutral(group: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those of NEUTRAL, also in the methods of a composition."""
    name, kept = options.get("name"), {}
    for key, value in options.items():
        neutral, methods = NEUTRAL.get(f"{group}.{key}", (..., ()))
        if value != neutral or name in methods:
            is_method = group == "reg" and isinstance(value, Mapping) and "_target_" in value
            kept[key] = _without_neutral(group, value) if is_method else value
    return kept


def _replaced(options: dict[str, Any], old: str, new: str, *, nested: bool = False) -> dict[str, Any]:
    """Return the options of a group with another text where one of them is the place `old`.

    A tokenizer, which is nested in a model's options, has its place as its `name`.
    """
    kept: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            kept[key] = _replaced(value, old, new, nested=True)
        else:
            kept[key] = new if value == old and (_is_place(key) or (nested and key == "name")) else value
    return kept


def _is_place(key: str) -> bool:
    return key in _PLACES or key.endswith("_path")


def compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity without the places of files that are identified by their content."""
    kept = of(config)
    for group, names in _OWN.items():
        options = kept.get(group)
        if isinstance(options, dict) and options.get("content") is not None:
            for place in filter(None, map(options.get, names)):
                kept[group] = _replaced(kept[group], place, "<content>")
    for place in _known_files(kept):
        kept["model"] = _replaced(kept["model"], place, "<content>")
    return kept


def _known_files(config: Mapping[str, Any]) -> list[str]:
    """Return the places of the user's own word vectors and tokenizer, if their content is a key of the config."""
    model = config.get("model") or {}
    places = {"vectors": model.get("vectors"), "tokenizer": (model.get("tokenizer") or {}).get("name")}
    return [str(place) for key, place in places.items() if config.get(key) and place]


def folders(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the data and output folders, absolute and as given, each with what stands for it in the identity."""
    paths = config.get("paths") or {}
    named = [(paths[name], f"<{name}>") for name in ("data", "output") if paths.get(name)]
    return [(os.path.abspath(folder), name) for folder, name in named] + named


def _anonymous(value: Any, places: list[tuple[str, str]], key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {str(k): item if str(k) in _NO_PATHS else _anonymous(item, places, str(k)) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anonymous(item, places, key) for item in value]
    if isinstance(value, str):
        may_be_folder = os.sep in value or _is_place(key)
        for folder, name in places:
            if (value == folder and may_be_folder) or value.startswith(folder.rstrip("/") + "/"):
                return name + value[len(folder.rstrip("/")) :]
    return value


def run_id(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that are equal exactly for the same experiment under this record schema."""
    canonical = json.dumps({"schema": SCHEMA, **compared(config)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def name(config: Mapping[str, Any], run_id: str) -> str:
    """Return a run's name: `<dataset>-<model>-<reg>-s<seed>-<run_id>`."""
    cell = "-".join(str(config[group]["name"]) for group in ("dataset", "model", "reg"))
    return f"{cell}-s{config['seed']}-{run_id}"
