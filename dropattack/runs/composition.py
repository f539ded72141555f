"""Compositions by name: `reg=compose reg.methods=[dropattack,rdrop]`, or `reg=dropattack+rdrop` for short.

A composition is a choice of the group `reg` that is made when it is named. Each of its methods has a node of its own,
from the method's file, so `reg.rdrop.alpha=2` sets an option of one of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from dropattack.errors import UserError
from dropattack.runs.attacked import COMPOSE
from dropattack.runs.yaml_io import read_yaml

NAME, SIGN, METHODS = "compose", "+", "reg.methods"
EXAMPLE = "such as reg.methods=[dropattack,rdrop]"


def expanded(conf: Path, parsed: Sequence[Override], known: Sequence[str]) -> list[str]:
    """Return overrides with `reg=compose reg.methods=[…]` as one choice, and offer each composition to Hydra.

    Args:
        conf: the folder of config groups.
        parsed: the overrides, also of a sweep.
        known: the choices of the group `reg`.

    Raises:
        UserError: a method does not exist, cannot be composed, or is named twice.
    """
    lines = [override.input_line or "" for override in parsed]
    chosen = {place: _values(override) for place, override in enumerate(parsed) if override.key_or_group == "reg"}
    listed = {place: override for place, override in enumerate(parsed) if override.key_or_group == METHODS}
    if any(NAME in values for values in chosen.values()):
        methods = [value for override in listed.values() for value in _values(override)]
        default = read_yaml(conf / "reg" / f"{NAME}.yaml")["methods"]
        made = [_joined(value) for value in (methods or [default])]
        for place, values in chosen.items():
            values[:] = [name for value in values for name in (made if value == NAME else [value])]
            lines[place] = f"reg={','.join(map(str, values))}"
        lines = [line for place, line in enumerate(lines) if place not in listed]
    elif listed and (composed := next((v for values in chosen.values() for v in values if is_composition(v)), None)):
        raise UserError(f"reg={composed} names its methods: leave {METHODS} out")
    for name in [value for values in chosen.values() for value in values if is_composition(value)]:
        _offer(conf, name, known)
    return lines


def is_composition(choice: Any) -> bool:
    """Return whether a choice of `reg` names several methods: `dropattack+rdrop`."""
    return isinstance(choice, str) and SIGN in choice


def _values(override: Override) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    swept: Any = override.value()
    return list(swept.list) if hasattr(swept, "list") else list(override.sweep_iterator())


def _joined(methods: Any) -> str:
    if not isinstance(methods, list) or not all(isinstance(name, str) and name for name in methods):
        raise UserError(f"{METHODS}={methods} must be a list of methods, {EXAMPLE}")
    if len(methods) < 2:
        instead = f"reg={methods[0]}" if methods else "reg=none"
        raise UserError(f"{METHODS}=[{','.join(methods)}] composes nothing: name two methods, {EXAMPLE}, or {instead}")
    return SIGN.join(methods)


def _offer(conf: Path, name: str, known: Sequence[str]) -> None:
    methods = name.split(SIGN)
    for method in methods:
        if method not in known:
            near = difflib.get_close_matches(method, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"reg={name}: there is no method {method!r}{hint}; methods: {', '.join(known)}")
        if methods.count(method) > 1:
            raise UserError(f"reg={name} names {method} twice: each method can be composed once")
        for why in _refusals(conf / "reg" / f"{method}.yaml"):
            raise UserError(f"reg={name}: {method} {why}")
    members = [{f"/reg@{method}": method} for method in methods]
    node = {"defaults": [*members, "_self_"], "_target_": COMPOSE, "name": name, "methods": methods}
    ConfigStore.instance().store(group="reg", name=name, node=node)


def _refusals(path: Path) -> Iterator[str]:
    """Yield why the method of a file cannot be composed: it is a setting of the model or trainer, or plain training."""
    if not path.is_file():  # of a plug-in, or of a folder of the user's own
        return
    values = read_yaml(path)
    if others := [f"{group}.{key}" for group in ("model", "trainer") for key in values.get(group, ())]:
        yield f"sets {', '.join(others)} and has no loss of its own: leave it out, and set these beside the composition"
    elif str(values.get("_target_")).endswith((".Identity", ".Compose")):
        yield "has no loss of its own: leave it out of the composition"
