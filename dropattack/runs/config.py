"""Compose a run's config, or say in one sentence what is wrong with it.

Imports only Hydra, the standard library and the user's plug-ins, so that a bad override is reported in well under a
second.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropattack import plugins
from dropattack.errors import UserError
from dropattack.runs import composition
from dropattack.runs.nearest import nearest, nearest_key
from dropattack.runs.resolvers import register_resolvers
from dropattack.runs.yaml_io import UNREADABLE, first_line

GROUPS = ("dataset", "model", "reg", "scale", "trainer", "tracker", "settings", "experiment")
OPEN_GROUPS = ("dataset", "model", "reg", "tracker")  # groups where `+reg.option=…` may add a constructor argument
SEARCH = "hydra.searchpath"  # the key of folders with more config files


def load_plugins(conf: Path, parsed: Sequence[Override]) -> None:
    """Import the plug-ins that overrides name, and the installed ones, and offer what they register to Hydra.

    Raises:
        UserError: a plug-in cannot be imported, or registers a choice that conf/ has.
    """
    plugins.load_installed()
    for override in parsed:
        if override.key_or_group == "plugins":
            names = override.value()
            if not isinstance(names, list):
                raise UserError(f"{override.input_line}: write a list, plugins=[{names}].")
            plugins.load(str(name) for name in names)
    for (group, name), node in list(plugins.registered.items()):
        if (conf / group / f"{name}.yaml").exists():
            del plugins.registered[group, name]
            raise UserError(f"{node['_target_']} is registered as {group}={name}, which exists; give it another name.")
        ConfigStore.instance().store(group=group, name=name, node=node)


def choices(conf: Path, group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return the choices of a config group, and `null` if the group is optional.

    These are the YAML files of `conf` and of other folders, and what plug-ins have registered.
    """
    files = (path.stem for folder in (conf, *folders) for path in (folder / group).glob("*.yaml"))
    names = sorted({*files, *(name for of, name in plugins.registered if of == group)})
    return [*names, "null"] if group == "experiment" else names


def expand(conf: Path, parsed: Sequence[Override]) -> list[str]:
    """Return the overrides with compositions of methods as single choices: see `dropattack.runs.composition`."""
    return composition.expanded(conf, parsed, choices(conf, "reg", search_folders(parsed)))


def compose(conf: Path, overrides: Sequence[str]) -> DictConfig:
    """Return the config of one run, composed from the files of `conf` and the overrides.

    Raises:
        UserError: an override is malformed, names an unknown group, choice or key, or gives a value of the wrong type.
    """
    register_resolvers()
    parsed = parse(overrides)
    load_plugins(conf, parsed)
    overrides = expand(conf, parsed)
    parsed = parse(overrides)
    folders = search_folders(parsed)
    for override in parsed:
        _check_group(conf, override, folders)
    chosen = tuple(override.input_line or "" for override in parsed if override.key_or_group in (*GROUPS, SEARCH))
    files = _files((conf, *folders))
    try:
        base = _base(conf, chosen, files)
        config = _changed(base, parsed) or _compose(conf, overrides)
        _check_environment(OmegaConf.to_container(config))
        values = OmegaConf.to_container(config, resolve=True)
    except UNREADABLE as error:
        raise UserError(_explain(conf, chosen, files, parsed, error)) from error
    for override in parsed:
        _check_type(base, values, override)
    return config


def search_folders(parsed: Sequence[Override]) -> list[Path]:
    """Return the folders of `--config-dir`."""
    found = [override.value() for override in parsed if override.key_or_group == SEARCH]
    return [Path(str(url).removeprefix("file://")) for urls in found if isinstance(urls, list) for url in urls]


def _check_environment(values: Any) -> None:
    """Allow only folders to come from the environment: everything else, even secrets, goes into the record."""
    for group, content in values.items():
        if group != "paths" and "oc.env" in str(content):
            raise UserError(f"{group} reads the environment (oc.env), but its values go into the record: write it out")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides one by one, so that the error can name the malformed one."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
            if not parsed[-1].key_or_group:
                raise HydraException("there is nothing before the =")
        except HydraException as error:
            hint = "write key=value, such as trainer.epochs=3, and quote special characters of the shell and YAML"
            raise UserError(f"cannot read the override {text!r}: {hint}") from error
    return parsed


def cells(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run of a sweep: all combinations of the values, the last override varying fastest.

    Raises:
        UserError: an override is malformed, or sweeps over something other than a list of values.
    """
    choices_of: dict[str, list[str]] = {}  # the last of repeated overrides wins
    for override in parse(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices_of[key] = [f"{key}={override.get_value_element_as_str()}"]
            continue
        try:
            choices_of[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        except HydraException as error:
            raise UserError(f"{override.input_line}: a sweep lists its values, such as {key}=1,2,3") from error
    return [list(cell) for cell in itertools.product(*choices_of.values())]


Files = tuple[object, ...]  # equal while nothing that Hydra reads has changed


def _files(folders: Sequence[Path]) -> Files:
    """Return the size and time of every YAML file in `folders`, and what plug-ins have registered."""
    found: list[object] = [repr(plugins.registered)]
    for top in folders:
        for folder, _, names in os.walk(top):
            for name in names:
                if name.endswith(".yaml"):
                    status = os.lstat(os.path.join(folder, name))
                    found.append((folder, name, status.st_mtime_ns, status.st_size))
    return tuple(found)


@lru_cache(maxsize=256)
def _base(conf: Path, chosen: tuple[str, ...], files: Files) -> DictConfig:
    """Compose the config from group choices only: the other overrides are compared with it, and change a copy of it."""
    return _compose(conf, chosen)


def _changed(base: DictConfig, parsed: Sequence[Override]) -> DictConfig | None:
    """Return a copy of `base` with the values of the overrides, in a tenth of the time that Hydra takes to compose it.

    Group choices are in `base` already. None means that an override does something else than give an existing key
    another value, or is wrong: then Hydra has to compose the config, or to say what is wrong.
    """
    config = base.copy()
    for override in parsed:
        if override.key_or_group in (*GROUPS, SEARCH):
            continue
        if override.type is not OverrideType.CHANGE or override.package is not None or override.is_sweep_override():
            return None
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except UNREADABLE:
            return None
    return config


def _compose(conf: Path, overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides))


def _check_group(conf: Path, override: Override, folders: Sequence[Path]) -> None:
    group, value = override.key_or_group, override.value()
    added = override.is_add() or override.is_force_add()
    if added and group not in GROUPS and not group.startswith(("hydra", *(f"{open_}." for open_ in OPEN_GROUPS))):
        raise UserError(f"{override.input_line}: nothing reads a key {group!r} that the config does not have")
    if group not in GROUPS or override.is_delete():
        return
    known = choices(conf, group, folders)
    for choice in [str(item) for item in override.sweep_iterator()] if override.is_sweep_override() else [value]:
        if group == "reg" and composition.is_composition(choice):  # its methods were checked when it was offered
            continue
        if isinstance(choice, dict | list):
            raise UserError(
                f"{group} takes one name, such as {group}={known[0]}; its options are set one by one, "
                f"such as {group}.name=…"
            )
        name = "null" if choice is None else str(choice)
        if name not in known:
            raise UserError(f"there is no {group} {name!r}{nearest(name, known)}; choices: {', '.join(known)}")


def _explain(
    conf: Path, chosen: tuple[str, ...], files: Files, parsed: Sequence[Override], error: Exception
) -> str:  # fmt: skip
    """Explain the first override with an unknown key; otherwise return the first line of Hydra's message."""
    if isinstance(error, UnicodeDecodeError):  # the error does not name the file
        paths = [conf / override.key_or_group / f"{override.value()}.yaml" for override in parsed]
        return f"a file of the config is not UTF-8, one of {', '.join(str(path) for path in paths if path.is_file())}"
    try:
        base = _base(conf, chosen, files)
    except UNREADABLE:
        return first_line(error)
    keys = sorted(_keys(base))
    for override in parsed:
        key = override.key_or_group
        if key in GROUPS or key.startswith("hydra") or override.is_add() or override.is_force_add():
            continue
        if key not in keys and OmegaConf.select(base, key, default=keys) is keys:
            return _unknown(conf, base, key, keys)
    return first_line(error)


def _unknown(conf: Path, base: DictConfig, key: str, keys: Sequence[str]) -> str:
    group, leaf = key.partition(".")[0], key.rpartition(".")[2]
    settable = [name for name in keys if "." in name and not name.startswith("model.recipe")]
    if group not in base:
        hint = nearest_key(key, [*GROUPS, *(name for name in keys if "." not in name), *settable])
        return f"there is no group or key {key!r}{hint}; groups: {', '.join(GROUPS)}"
    sentence = f"there is no key {key!r}"
    chosen = OmegaConf.select(base, f"{group}.name")
    if chosen is not None:
        sentence += f" in {group}={chosen}"
    pattern = re.compile(rf"^\s*{re.escape(leaf)}:", re.MULTILINE)
    files = sorted((conf / group).glob("*.yaml"))
    owners = [path.stem for path in files if leaf and pattern.search(_text_with_bases(path))]
    if owners:
        verb = "has" if len(owners) == 1 else "have"
        return f"{sentence}; {', '.join(f'{group}={owner}' for owner in owners)} {verb} it"
    if hint := nearest_key(key, settable):
        return sentence + hint
    own = [name.partition(".")[2] for name in keys if name.startswith(f"{group}.") and name.count(".") == 1]
    return f"{sentence}; keys of {group}: {', '.join(name for name in own if not name.startswith('_'))}"


def _text_with_bases(path: Path) -> str:
    """Return the text of a file of conf/ and of its base/ files."""
    text = path.read_text()
    bases = re.findall(r"^\s*- base@\w+: (\w+)", text, re.MULTILINE)
    return text + "".join((path.parent / "base" / f"{name}.yaml").read_text() for name in bases)


def _check_type(base: DictConfig, values: Any, override: Override) -> None:
    """Check that a value has the default's type, so that a number stays a number."""
    key = override.key_or_group
    if key in GROUPS or key.startswith("hydra") or override.is_delete():
        return
    try:
        default = OmegaConf.select(base, key)
    except OmegaConfBaseException:  # the default depends on another override
        return
    given, wanted = _select(values, key), _kind(default)
    if given is None or wanted in (None, _kind(given)) or (wanted == "a text" and _kind(given) == "a number"):
        return
    shown = str(default).lower() if isinstance(default, bool) else default
    raise UserError(f"{key}={given} should be {wanted}, such as {shown}")


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if OmegaConf.is_list(value) or isinstance(value, list | tuple):
        return "a list"
    if OmegaConf.is_dict(value) or isinstance(value, dict):
        return "a mapping"
    return None


def _select(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys, inner and leaf."""
    for key in config:
        yield f"{prefix}{key}"
        child = config._get_node(key)
        if OmegaConf.is_dict(child) and not child._is_none():
            yield from _keys(child, f"{prefix}{key}.")
