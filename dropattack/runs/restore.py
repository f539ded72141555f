"""Restore the tested model and the data of a run from its record and output folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dropattack import plugins
from dropattack.errors import UserError
from dropattack.probes.restored import Restored
from dropattack.runs import build, experiment, identity, record
from dropattack.runs.config import compose


def restore(
    path: Path, *, data: Path, output: Path | None = None, device: str | torch.device = "cpu"
) -> Restored:  # fmt: skip
    """Return a finished run's model, with the tested weights, and its data.

    Args:
        path: the record.
        data: the data folder, `<data>` in the record.
        output: the run's output folder, `<output>` in the record, with `checkpoints/` and `cache/`. None: the parent of
            the record's folder.
        device: the device of the model.

    Raises:
        UserError: no record, an unfinished run, a config that does not match the run id, missing weights or those of
            another run, or data other than the training data.
    """
    found, folder, weights = read_kept(path, output)
    config = settled(found["config"], data=data, output=folder.parents[1])
    load_plugins(path, config, [config["dataset"], config["model"], config["model"].get("tokenizer") or {}])
    dataset, encoded = build.load_data(config)
    if dataset.fingerprint != found["data"]["fingerprint"]:
        raise UserError(other_data(path, config, data))
    options = {key: value for key, value in config["model"].items() if key != "vectors"}  # the weights replace them
    model = build.build_model({**config, "model": options}, encoded)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the model ({str(error).splitlines()[-1].strip()})") from error
    points = build.attack_points(config, model)
    return Restored(path, found, model.to(device).eval(), encoded, torch.device(device), points)


def other_data(path: Path, config: Mapping[str, Any], data: Path) -> str:
    """Return that the data of a run is not what it was trained on."""
    own = config["dataset"].get("path")
    where = f"{own} has changed since the training" if own else f"the data in {data} is not the data of this run"
    return f"{path}: {where} (its fingerprint differs)"


def load_plugins(path: Path, config: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> None:
    """Import the plug-ins that these parts of a run's config come from.

    Raises:
        UserError: one cannot be imported, or its code has changed since the training.
    """
    owners = {str(part.get("_target_")).partition(".")[0] for part in parts}
    every: Mapping[str, str] = config.get("plugins") or {}
    known = {name: digest for name, digest in every.items() if name.partition(".")[0] in owners}
    plugins.load(known)
    now = plugins.digests(known)
    if changed := [name for name, digest in known.items() if now[name] != digest]:
        raise UserError(f"{path}: the plug-in {changed[0]} has changed since the training, so the weights may not fit "
                        "it; take its earlier version, or train again")  # fmt: skip


def read_kept(path: Path, output: Path | None = None) -> tuple[dict[str, Any], Path, dict[str, Tensor]]:
    """Return a finished run's record, the folder with its weights, and the tested weights.

    Args:
        path: the record.
        output: as in `restore`.

    Raises:
        UserError: no record, an unfinished run, a config that does not match the run id, or missing weights.
    """
    found = record.read(path)
    if found["status"] != "finished":
        raise UserError(f"{path} is the record of a run that {found['status']}, so it has no weights")
    if identity.run_id(found["config"]) != found["run_id"]:
        raise UserError(f"{path}: its config does not match its run_id {found['run_id']}; was it edited?")
    output = path.resolve().parents[1] if output is None else output
    folder = output / "checkpoints" / found["run_id"]
    return found, folder, _weights(found, folder, path)


def settled(config: Mapping[str, Any], *, data: Path, output: Path) -> dict[str, Any]:
    """Return a record's config with real folders."""
    paths = {"data": str(data), "output": str(output)}
    return {**_settled(config, paths), "paths": paths}


def complete(config: Mapping[str, Any], *, output: Path, data: Path | None = None) -> dict[str, Any]:
    """Return a record's config, completed to run again with the same run id, on a CPU with one thread.

    What a record's config lacks, such as the kernels, is that of its scale.

    Args:
        config: the config of a record.
        output: the output folder.
        data: the data folder; None uses that of conf/config.yaml.

    Raises:
        UserError: the files in conf/ have changed since.
    """
    base = experiment.resolve(compose(experiment.CONF, ["tracker=none", f"scale={config['scale']['name']}"]))
    values = settled(config, data=Path(base["paths"]["data"]) if data is None else data, output=output)
    quiet = {"device": "cpu", "threads": 1, "progress": "none", "eval_batch_size": values["trainer"]["batch_size"],
             "checkpoint": {"every_epochs": 0, "every_minutes": 0, "share": 1}}  # fmt: skip
    values["trainer"] = {**base["trainer"], **values["trainer"], **quiet}
    values |= {key: base[key] for key in ("rerun", "settings", "tracker")}
    if identity.run_id(values) != identity.run_id(config):
        raise UserError("its config gives another run id now: a setting was added to conf/ since")
    return values


def _weights(found: Mapping[str, Any], folder: Path, path: Path) -> dict[str, Tensor]:
    run_id = found["run_id"]
    try:
        described = json.loads((folder / "best.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "best.safetensors")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: its weights are not in {folder}; name the output folder of the run (--runs), or run it again "
            "with rerun=true"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: its weights in {folder} cannot be read ({error})") from error
    if described.get("run_id") != run_id:
        raise UserError(f"{folder} holds the weights of run {described.get('run_id')}, but {path} is run {run_id}")
    tested = [(one.get("test") or {}).get("accuracy") for one in (described, found)]
    if tested[0] != tested[1]:  # of another machine, or of a rerun that ended between the two
        warnings.warn(f"{path}: its test accuracy is {tested[1]}, but that of the weights in {folder} was {tested[0]}: "
                      "they are of another training of this run", stacklevel=2)  # fmt: skip
    return weights


def _settled(value: Any, paths: Mapping[str, str]) -> Any:
    """Replace `<data>`, `<output>` and `~` in a record's config by real folders."""
    if isinstance(value, Mapping):
        return {key: _settled(item, paths) for key, item in value.items()}
    if isinstance(value, list):
        return [_settled(item, paths) for item in value]
    if not isinstance(value, str):
        return value
    for name, folder in paths.items():
        if value == f"<{name}>" or value.startswith(f"<{name}>/"):
            return folder + value[len(name) + 2 :]
    return str(Path(value).expanduser()) if value.startswith("~/") else value
