"""A small network trained once: digits, a few epochs, with its record and weights."""

from pathlib import Path

import pytest
import torch

from dropattack.commands.main import main
from dropattack.data.types import DataSpec
from dropattack.models.cnn import CNN
from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.runs.restore import restore


def train(folder: Path, *overrides: str) -> Path:
    base = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.progress=none"]
    rows = ["dataset.train_rows=600", "dataset.test_rows=120", "trainer.epochs=4"]
    return experiment.run(compose(experiment.CONF, [*base, *rows, f"paths.output={folder}", *overrides]))


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> list[Path]:
    """Train two runs, without a regularizer and with FGM, and return their records."""
    folder = tmp_path_factory.mktemp("runs")
    return [train(folder, "reg=none"), train(folder, "reg=fgm", "reg.epsilon=0.2")]


@pytest.fixture(scope="session")
def restored(runs):
    return restore(runs[0], data=Path("data"))


@pytest.fixture
def vgg() -> CNN:
    """Return a network with BatchNorm statistics that differ from their initial values."""
    torch.manual_seed(0)
    model = CNN(spec=DataSpec("image", 10, image_shape=(3, 32, 32)), arch="vgg", depth=11, width=0.0625)
    model.train()(torch.randn(16, 3, 32, 32))
    return model.eval()


@pytest.fixture
def published(monkeypatch):
    """Collect what would be sent to the dashboard, by name, instead of sending it."""
    sent: dict[str, dict] = {}
    monkeypatch.setattr("dropattack.sweeps.publish.publish", lambda files, *, name, **about: sent.update(
        {name: {"files": [path.name for path in files], **about}}))  # fmt: skip
    return sent


@pytest.fixture
def command(published):
    """Run a command in this process: `command("probe", "record.json", "--rows", "9")`; return the exit code."""
    return lambda name, *arguments: main([name, *map(str, arguments)])


@pytest.fixture
def changed(runs, tmp_path):
    """Copy the first record with some keys changed; its weights stay where they are."""

    def make(**changes):
        return record.write(tmp_path / "records" / "changed.json", {**record.read(runs[0]), **changes})

    return make
