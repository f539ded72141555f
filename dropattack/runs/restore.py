"""A record and the folder its run wrote → the model as it was tested, and the data it was trained and tested on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dropattack.data.loader import pixel_statistics
from dropattack.errors import UserError
from dropattack.probes.restored import Restored
from dropattack.runs import build, experiment, record
from dropattack.runs.config import compose


def restore(
    path: Path, *, data: Path, output: Path | None = None, device: str | torch.device = "cpu"
) -> Restored:  # fmt: skip
    """Build a finished run's model and data again, and load the weights that were tested.

    Args:
        path: the record.
        data: the folder of data sets, `<data>` in the record.
        output: the folder that the run wrote to, `<output>` in the record, with `checkpoints/` and `cache/`. None: the
            folder above the record's own.

    Raises:
        UserError: no record, a run that is not finished, a config that is not the run's, no weights or another run's,
            data that is not what the run was trained on.
    """
    found = record.read(path)
    if found["status"] != "finished":
        raise UserError(f"{path} is the record of a run that {found['status']}: there are no weights to look at")
    if record.run_id(found["config"]) != found["run_id"]:
        raise UserError(f"{path}: its config does not give its run_id {found['run_id']}; was it changed by hand?")
    output = path.resolve().parents[1] if output is None else output
    weights = _weights(found["run_id"], output, path)
    config = settled(found["config"], data=data, output=output)
    dataset, encoded = build.load_data(config)
    if dataset.fingerprint != found["data"]["fingerprint"]:
        raise UserError(f"{path}: the data in {data} is not what this run was trained on (its fingerprint differs)")
    model = build.build_model(config, encoded)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the model ({str(error).splitlines()[-1].strip()})") from error
    mean, std = pixel_statistics(encoded.train) if encoded.spec.kind == "image" else (None, None)
    return Restored(path, found, model.to(device).eval(), encoded, torch.device(device), mean, std)


def settled(config: Mapping[str, Any], *, data: Path, output: Path) -> dict[str, Any]:
    """A record's config with real folders."""
    paths = {"data": str(data), "output": str(output)}
    return {**_settled(config, paths), "paths": paths}


def complete(config: Mapping[str, Any], *, output: Path, data: Path | None = None) -> dict[str, Any]:
    """A record's config as it has to be to run again, one thread on a CPU, and with the same run id.

    Args:
        output: where the run writes.
        data: None: the folder that conf/config.yaml names.

    Raises:
        UserError: the config has changed since.
    """
    base = experiment.resolve(compose(experiment.CONF, ["tracker=none"]))
    values = settled(config, data=Path(base["paths"]["data"]) if data is None else data, output=output)
    quiet = {"device": "cpu", "threads": 1, "progress": "none", "eval_batch_size": values["trainer"]["batch_size"],
             "checkpoint": {"every_epochs": 0, "every_minutes": 0, "share": 1}}  # fmt: skip
    values["trainer"] = {**base["trainer"], **values["trainer"], **quiet}
    values |= {key: base[key] for key in ("rerun", "settings", "tracker")}
    if record.run_id(values) != record.run_id(config):
        raise UserError("its config gives another run now: a setting was added to conf/ since")
    return values


def _weights(run_id: str, output: Path, path: Path) -> dict[str, Tensor]:
    folder = output / "checkpoints" / run_id
    try:
        described = json.loads((folder / "best.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "best.safetensors")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: its weights are not in {folder}; name the folder that the run wrote to (--runs)"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: its weights in {folder} cannot be read ({error})") from error
    if described.get("run_id") != run_id:
        raise UserError(f"{folder} holds the weights of run {described.get('run_id')}, and {path} is run {run_id}")
    return weights


def _settled(value: Any, paths: Mapping[str, str]) -> Any:
    """A record's config with real folders for `<data>`, `<output>` and `~`."""
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
