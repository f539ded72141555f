"""Check Hydra's own options and the variables of a launcher before anything is started.

A run writes only below `paths.output` and has one record. Options that would move it elsewhere, or start it twice under
one name, are refused here instead of failing at the end of a sweep.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropattack.errors import UserError
from dropattack.runs.config import SEARCH, expand, load_plugins, parse
from dropattack.runs.nearest import nearest
from dropattack.runs.resolvers import register_resolvers

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
BASIC = "BasicLauncher"  # runs the cells of a sweep in this process
CONFIG_DIR = ("--config-dir", "-cd")
CHDIR = (
    "hydra.job.chdir=true would change what relative paths mean, so the record would not be found; a run writes "
    "only below paths.output, so leave hydra.job.chdir out and set paths.output"
)


def prepared(conf: Path, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--config-dir DIR` as Hydra's search path, and `reg=compose` as one choice.

    The plug-ins that they name are imported before. The search path is an override like any other, so it reaches every
    cell of a sweep.

    Raises:
        UserError: there is no such folder, or a plug-in cannot be imported.
    """
    rest, folders = [], []
    left = iter(arguments)
    for argument in left:
        flag, equals, value = argument.partition("=")
        if flag not in CONFIG_DIR:
            rest.append(argument)
            continue
        name = value if equals else next(left, "")
        folder = Path(name).expanduser()
        if not name or not folder.is_dir():
            raise UserError(f"{flag} {name}: there is no such folder; name one that holds dataset/, model/ or reg/")
        folders.append(f"file://{folder.resolve()}")
    if folders:
        rest.append(f"{SEARCH}=[{','.join(repr(folder) for folder in folders)}]")
    load_plugins(conf, parse([argument for argument in rest if argument.startswith("plugins=")]))
    given = [argument for argument in rest if argument.startswith(("reg", SEARCH)) and "=" in argument]
    made = expand(conf, parse(given))
    return rest if made == given else [*(argument for argument in rest if argument not in given), *made]


def check_hydra(conf: Path, overrides: Sequence[str], *, sweep: bool) -> None:
    """Check Hydra's own options, composed for a run with these overrides.

    Args:
        conf: the folder of config groups.
        overrides: the overrides of one run, including `hydra.…` and `hydra/…`, each with a single value.
        sweep: whether `--multirun` was given, so that Hydra writes to `hydra.sweep.dir`.

    Raises:
        UserError: a launcher or sweeper that is not installed, an option that does not exist, a folder that cannot be
            written, or an option that would break the bookkeeping of runs.
    """
    own = [text for text in overrides if text.lstrip("+~").startswith("hydra")]
    try:
        hydra = _composed(conf, overrides)
    except (HydraException, OmegaConfBaseException, AttributeError, OSError) as error:
        raise UserError(_explain(conf, own, overrides, error)) from error
    if hydra.job.chdir:
        raise UserError(CHDIR)
    if any(text.startswith("hydra.mode") for text in own):
        raise UserError("do not set hydra.mode: --multirun starts a sweep")
    if not str(hydra.sweeper.get("_target_")).endswith(".BasicSweeper") or hydra.sweeper.get("params"):
        raise UserError(
            "sweeps use Hydra's basic sweeper only: leave hydra/sweeper and hydra.sweeper.params out, "
            "and name the values on the command line, such as seed=0,1"
        )
    check_environment(shared=sweep and not str(hydra.launcher.get("_target_")).endswith(BASIC))
    if sweep:
        _check_folder(str(hydra.sweep.dir), "hydra.sweep.dir")
    elif any(text.startswith("hydra.run.dir") for text in own):
        _check_folder(str(hydra.run.dir), "hydra.run.dir")


def check_environment(environment: Mapping[str, str] | None = None, *, shared: bool = False) -> None:
    """Refuse torchrun's variables if they do not describe this process.

    Args:
        environment: the variables; None uses this process's.
        shared: whether other processes of a sweep will inherit them, and so would all take the same rank.

    Raises:
        UserError: names the variables.
    """
    environment = os.environ if environment is None else environment
    found = {name: environment[name] for name in TORCHRUN if environment.get(name)}
    said = " ".join(f"{name}={value}" for name, value in found.items())
    if any(not found[name].lstrip("-").isdigit() for name in TORCHRUN[:3] if name in found):
        raise UserError(f"{said}: torchrun sets these to whole numbers; unset the leftover variables")
    of_one = {"RANK": "0", "LOCAL_RANK": "-1", "WORLD_SIZE": "1"}
    alone = all(found.get(name, value) == value for name, value in of_one.items())
    missing = [name for name in TORCHRUN if name not in found]
    if missing and not alone:
        raise UserError(
            f"the environment has {said} but not {', '.join(missing)}, so this process would wait for others that "
            "nobody started; start it with torchrun, or unset the leftover variables"
        )
    if shared and found.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"the environment has {said}, and every process of this sweep would take that rank; unset them, or use "
            "hydra/launcher=basic"
        )


def _composed(conf: Path, overrides: Sequence[str]) -> Any:
    register_resolvers()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        hydra = hydra_compose("config", overrides=expand(conf, parse(overrides)), return_hydra_config=True).hydra
    OmegaConf.resolve(hydra.sweep)
    return hydra


def _explain(conf: Path, own: Sequence[str], overrides: Sequence[str], error: Exception) -> str:
    """Explain the option of Hydra whose removal lets the rest compose, or return the first line of the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    options = [line for line in lines[1:] if line.replace("_", "").isalnum()]  # the available choices, one per line
    for text in own:
        try:
            _composed(conf, [other for other in overrides if other != text])
        except Exception:
            continue
        name, _, value = text.partition("=")
        if "/" in name and options:
            package = "; its package may have to be installed" if "launcher" in name else ""
            return f"there is no {name} {value!r} here{nearest(value, options)}; choices: {', '.join(options)}{package}"
        if "append to your config" in str(error):
            return f"{text}: Hydra has no option {name!r}; `dropattack run --cfg hydra` lists them"
        return f"{text} is invalid: {lines[-1] if len(lines) == 1 else lines[0]}"
    return lines[0]


def _check_folder(name: str, key: str) -> None:
    """Check that Hydra can create the folder; name the key if not."""
    folder = Path(name)
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    # Root may "write" to /proc and /sys, but cannot create files there.
    pseudo = not {Path("/proc"), Path("/sys")}.isdisjoint((there.resolve(), *there.resolve().parents))
    if pseudo or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{key}={name} cannot be written: name a folder that you may write to")
