"""Check the names of attack targets before torch is imported, where a model's names follow from its config."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from dropattack.errors import UserError

OPTIONS = ("targets", "inputs")  # options of a method that name parameters, modules or the model's attack points
POINTS = ("input", "hidden")
INPUT = "<input>"
RNN = "dropattack.models.rnn.RNNClassifier"
COMPOSE = "dropattack.regularizers.Compose"


def methods(reg: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the options of each method by their place in the config: `reg`, or `reg.fgm`, … in a composition.

    Raises:
        UserError: a composition lacks the options of one of its methods.
    """
    if reg.get("_target_") != COMPOSE:
        return {"reg": reg}
    names = reg.get("methods") or ()
    if lacking := [str(name) for name in names or ["methods"] if not isinstance(reg.get(str(name)), Mapping)]:
        raise UserError(
            f"reg={reg.get('name')} has no options of {lacking[0]}: choose the composition by its methods, such as "
            "reg=dropattack+rdrop"
        )
    return {f"reg.{name}": reg[name] for name in names}


def check(config: Mapping[str, Any]) -> None:
    """Refuse a target that no parameter or module of the model can have.

    Raises:
        UserError: names the target and what there is. Models whose names only the built model knows pass.
    """
    points, known = config["model"].get("attack_points") or {}, names_of(config["model"])
    for place, reg in methods(config["reg"]).items():
        for option, name in ((one, name) for one in OPTIONS for name in reg.get(one) or ()):
            if name in POINTS and name not in points:
                raise UserError(f"model={config['model']['name']} names no attack point {name!r}")
            if known is None or name == INPUT or any(fnmatchcase(one, points.get(name, name)) for one in known):
                continue
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            nearest = f"nearest: {', '.join(near)}; " if near else ""
            raise UserError(
                f"{place}.{option}: {name!r} matches no parameter or module of model={config['model']['name']}; "
                f"{nearest}there are {', '.join(known)}"
            )


def names_of(model: Mapping[str, Any]) -> list[str] | None:
    """Return the names of an RNN's parameters and modules; None for other models."""
    if model.get("_target_") != RNN:
        return None
    directions = ("", "_reverse")[: 1 + bool(model["bidirectional"])]
    parts = [f"l{layer}{direction}" for layer in range(model["layers"]) for direction in directions]
    weights = [f"rnn.{kind}_{part}" for part in parts for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return ["embed.weight", *weights, "head.weight", "head.bias", "embed", "rnn", "dropout", "head"]
