"""The settings of runs: which of them a method chooses, and how those of several runs differ.

Settings are flat, as in `{"reg.epsilon": 5.0}`. A row is that of `records.read_records`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dropattack.runs import identity

# Settings chosen by the method: the regularizer, what `reg=dropout`, `reg=mixup` and others set in the model or the
# trainer and, in tuned settings, the learning rate.
METHOD = (
    *("reg", "model.dropout", "trainer.learning_rate", "trainer.label_smoothing", "trainer.mixup"),
    *("trainer.average", "trainer.average_decay", "trainer.average_start"),
)

PLAIN = "reg.plain."  # the trainer's settings of the methods that longer training is compared with
DRAW = "dataset.subset_seed"  # of the training rows that a fraction keeps


def join_draws(rows: Sequence[dict[str, Any]]) -> None:
    """Give runs whose seeds drew their own training rows one context.

    A draw that several seeds share is a setting of theirs, also of the run whose seed happens to be that of the draw.
    """
    fixed = {(row["drawn"], row["settings"].get(DRAW)) for row in rows if row["settings"].get(DRAW) != row["seed"]}
    for row in rows:
        draw = row["settings"].get(DRAW)
        if draw == row["seed"] and (row["drawn"], draw) not in fixed:
            row["context"] = row["drawn"]
            row["settings"] = {key: value for key, value in row["settings"].items() if key != DRAW}


def plugins_aside(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Return the keys of the plug-ins that neither data set nor model come from, and whether the method does.

    Plain training, which does not name the plug-in of a method, is compared with it.
    """
    tops: dict[str, set[str]] = {}
    for key, value in settings.items():
        if key.endswith("._target_"):
            tops.setdefault(str(value).partition(".")[0], set()).add(key.partition(".")[0])
    found = {}
    for key in plugins_of(settings):
        groups = tops.get(key.split(".")[1], set())
        if not groups - {"reg"}:
            found[key] = bool(groups)
    return found


def plugins_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digest of each plug-in's code."""
    return {key: value for key, value in settings.items() if key.startswith("plugins.")}


def name_neutral(rows: Sequence[dict[str, Any]]) -> None:
    """Give each run the options that it leaves out (`identity.NEUTRAL`) and that others of its kind name."""
    named: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for key in identity.NEUTRAL.keys() & row["settings"].keys():
            named.setdefault(_kind(row, key), set()).add(key)
    for row in rows:
        for group in ("reg", "model", "dataset", "trainer"):
            for key in named.get(_kind(row, f"{group}."), set()):
                row["settings"].setdefault(key, identity.NEUTRAL[key][0])


def _kind(row: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Return the group of an option, and which choice of that group has it."""
    group = key.partition(".")[0]
    return group, str(row[{"reg": "method"}.get(group, group)]) if group != "trainer" else ""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten `{"reg": {"epsilon": 5.0}}` to `{"reg.epsilon": 5.0}`; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each of several flat settings, its values of the keys that are not the same in all of them."""
    keys = sorted({key for one in settings for key in one})
    missing = object()
    differing = [key for key in keys if any(one.get(key, missing) != settings[0].get(key, missing) for one in settings)]
    return [{key: one.get(key) for key in differing} for one in settings]


def distinguishing(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each of several settings, what distinguishes it, leaving out values that most of them share."""
    kept: list[dict[str, Any]] = [{} for _ in settings]
    for key in settings[0]:
        values = [str(one[key]) for one in settings]
        common, count = Counter(values).most_common(1)[0]
        for one, own, value in zip(settings, kept, values, strict=True):
            if value != common or 2 * count <= len(values):
                own[key] = one[key]
    return [own or dict(one) for one, own in zip(settings, kept, strict=True)]  # if nothing is left, show everything


def of_context(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the methods of a comparison share; longer training counts with the usual length."""
    plain = {key: value for key, value in settings.items() if key.startswith(PLAIN)}
    usual = {f"trainer.{key.removeprefix(PLAIN)}": value for key, value in plain.items()}
    return {key: value for key, value in settings.items() if not is_chosen(key)} | usual


def lengthened(settings: Mapping[str, Any]) -> float:
    """Return how many times as many epochs a run has as the methods it is compared with."""
    usual = settings.get(f"{PLAIN}epochs")
    return settings["trainer.epochs"] / usual if usual else 1.0


def is_chosen(key: str) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in METHOD)
