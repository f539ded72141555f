"""What surrounds a run: Hydra's own options, and the variables of a launcher. Checked before anything is started.

A run writes below `paths.output` alone and has one record, so what would move it elsewhere, or start it twice under
one name, is refused here rather than found out at the end of a sweep.
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
from dropattack.runs.config import nearest, register_resolvers

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
BASIC = "BasicLauncher"  # runs the cells of a sweep in this process
CHDIR = (
    "hydra.job.chdir=true would move relative paths away from where the record is looked for; a run writes below "
    "paths.output alone, so leave hydra.job.chdir out and set paths.output"
)


def check_hydra(conf: Path, overrides: Sequence[str], *, sweep: bool) -> None:
    """Check Hydra's own options as they come out for a run with these overrides.

    Args:
        conf: the folder of config groups.
        overrides: of one run, with its `hydra.…` and `hydra/…`, none of which names several values.
        sweep: whether `--multirun` was given, which writes to `hydra.sweep.dir`.

    Raises:
        UserError: a launcher or sweeper that is not installed, an option that does not exist, a folder that cannot be
            written, or an option that the bookkeeping of runs cannot follow.
    """
    own = [text for text in overrides if text.lstrip("+~").startswith("hydra")]
    try:
        hydra = _composed(conf, overrides)
    except (HydraException, OmegaConfBaseException, AttributeError, OSError) as error:
        raise UserError(_explain(conf, own, overrides, error)) from error
    if hydra.job.chdir:
        raise UserError(CHDIR)
    if any(text.startswith("hydra.mode") for text in own):
        raise UserError("hydra.mode is not set by hand: --multirun starts a sweep")
    if not str(hydra.sweeper.get("_target_")).endswith(".BasicSweeper") or hydra.sweeper.get("params"):
        raise UserError(
            "a sweep's cells are those of Hydra's basic sweeper: leave hydra/sweeper and hydra.sweeper.params out, "
            "and name the values on the command line, such as seed=0,1"
        )
    check_environment(shared=sweep and not str(hydra.launcher.get("_target_")).endswith(BASIC))
    if sweep:
        _check_folder(str(hydra.sweep.dir), "hydra.sweep.dir")
    elif any(text.startswith("hydra.run.dir") for text in own):
        _check_folder(str(hydra.run.dir), "hydra.run.dir")


def check_environment(environment: Mapping[str, str] | None = None, *, shared: bool = False) -> None:
    """Refuse the variables of torchrun where they do not describe this process.

    Args:
        environment: None takes this process's.
        shared: whether other processes of a sweep will inherit them, each of which would take the same rank.

    Raises:
        UserError: which names the variables.
    """
    environment = os.environ if environment is None else environment
    found = {name: environment[name] for name in TORCHRUN if environment.get(name)}
    said = " ".join(f"{name}={value}" for name, value in found.items())
    if any(not found[name].lstrip("-").isdigit() for name in TORCHRUN[:3] if name in found):
        raise UserError(f"{said}: these are whole numbers where torchrun sets them; unset what was left behind")
    of_one = {"RANK": "0", "LOCAL_RANK": "-1", "WORLD_SIZE": "1"}
    alone = all(found.get(name, value) == value for name, value in of_one.items())
    missing = [name for name in TORCHRUN if name not in found]
    if missing and not alone:
        raise UserError(
            f"the environment has {said} but not {', '.join(missing)}, so this process would wait for others that "
            "nobody started; start it with torchrun, or unset what was left behind"
        )
    if shared and found.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"the environment has {said}, and every process of this sweep would take that rank; unset them, or take "
            "hydra/launcher=basic"
        )


def _composed(conf: Path, overrides: Sequence[str]) -> Any:
    register_resolvers()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        hydra = hydra_compose("config", overrides=list(overrides), return_hydra_config=True).hydra
    OmegaConf.resolve(hydra.sweep)
    return hydra


def _explain(conf: Path, own: Sequence[str], overrides: Sequence[str], error: Exception) -> str:
    """Name the one of Hydra's own options without which the rest composes, or the last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    options = [line for line in lines[1:] if line.replace("_", "").isalnum()]  # what there is, one a line
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
            return f"{text}: Hydra has no option {name!r}; `python run.py --cfg hydra` shows those it has"
        return f"{text} does not fit: {lines[-1] if len(lines) == 1 else lines[0]}"
    return lines[0]


def _check_folder(name: str, key: str) -> None:
    """Hydra makes the folder before the first cell; who cannot make it is told the key."""
    folder = Path(name)
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    # Root may "write" to /proc and /sys, and nothing can be made there.
    pseudo = not {Path("/proc"), Path("/sys")}.isdisjoint((there.resolve(), *there.resolve().parents))
    if pseudo or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{key}={name} cannot be written: name a folder that you may write to")
