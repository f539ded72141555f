"""Use the model of a finished run on new inputs.

model = load(Path("outputs/records/imdb-lstm-none-s0-….json"))
model.test(model.reader.texts(["What a film!"])).probabilities     # float32 [1, classes]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropattack.data.loader import Loader
from dropattack.data.types import Encoded, TensorSplit
from dropattack.errors import UserError
from dropattack.runs import build
from dropattack.runs.reader import Reader
from dropattack.runs.restore import load_plugins, other_data, read_kept, settled
from dropattack.training.evaluate import Tested, test


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode on `device`, its record, and how it reads inputs."""

    record: dict[str, Any]
    model: nn.Module
    reader: Reader
    device: torch.device

    def test(self, split: TensorSplit, size: int = 100) -> Tested:
        """Return the metrics on a split, and each row's probabilities, in batches of `size` rows."""
        loader = Loader(
            split, batch_size=size, shuffle=False, device=self.device, mean=self.reader.mean, std=self.reader.std
        )
        return test(self.model, loader, classes=len(self.reader.classes))


def load(
    path: Path, *, data: Path = Path("data"), output: Path | None = None, device: str | torch.device = "cpu"
) -> Trained:  # fmt: skip
    """Return the tested model of a finished run from its record and output folder.

    The data it was trained on is only read if the run's folder does not say how the model reads its inputs, which
    earlier versions did not keep.

    Args:
        path: the record.
        data: the data folder, `<data>` in the record.
        output: the run's output folder; None: the parent of the record's folder.
        device: the device of the model.

    Raises:
        UserError: see `restore`; or the model is of a plug-in that cannot be imported.
    """
    found, folder, weights = read_kept(path, output)
    config = settled(found["config"], data=data, output=folder.parents[1])
    load_plugins(path, config, [config["model"], config["model"].get("tokenizer") or {}])
    reader = Reader.load(folder)
    if reader is None:
        given = build.read_data(config)
        facts, encoded = build.encode_data(config, given)
        if facts.fingerprint != found["data"]["fingerprint"]:
            raise UserError(other_data(path, config, data))
        reader = Reader.of(config, given, encoded)
    model = _model(config, reader)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the model ({str(error).splitlines()[-1].strip()})") from error
    return Trained(found, model.to(device).eval(), reader, torch.device(device))


def _model(config: Mapping[str, Any], reader: Reader) -> nn.Module:
    """Build the model without data; pretrained vectors are left out, because the weights replace them."""
    options = {key: value for key, value in config["model"].items() if key != "vectors"}
    nothing = TensorSplit(torch.empty(0), torch.empty(0))
    return build.build_model({**config, "model": options}, Encoded(reader.spec, nothing, nothing, nothing))
