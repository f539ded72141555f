"""Small networks trained once, for the commands that use them."""

from pathlib import Path

import pytest

from dropattack.data.types import Dataset
from dropattack.runs import build, experiment, record
from dropattack.runs.config import compose
from dropattack.runs.restore import settled
from tests.data.makers import texts, write_split

QUIET = ("scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.progress=none")


def train(folder: Path, line: str) -> Path:
    return experiment.run(compose(experiment.CONF, [*QUIET, *line.split(), f"paths.output={folder}"]))


def data_of(path: Path) -> Dataset:
    """Return the data set of a run."""
    return build.read_data(settled(record.read(path)["config"], data=path.parents[1] / "data", output=path.parents[1]))


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> dict[str, Path]:
    """Train on digits, plainly with seeds 0 and 1 and with FGM with seeds 0 and 2; return the records by name."""
    folder = tmp_path_factory.mktemp("digits")
    cells = [("none", 0), ("none", 1), ("fgm", 0), ("fgm", 2)]
    common = "dataset=digits model=cnn trainer.epochs=2"
    return {f"{reg}{seed}": train(folder, f"{common} reg={reg} seed={seed}") for reg, seed in cells}


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> dict[str, Path]:
    """Train an LSTM, which reads words, and a small BERT, which reads word pieces, on files in IMDB's layout."""
    folder = tmp_path_factory.mktemp("words")
    for seed, name in enumerate(("train", "test")):
        write_split(folder / "data" / "imdb" / f"{name}.parquet", texts(400, seed=seed, prefix=name))
    common = f"dataset=imdb paths.data={folder / 'data'}"
    return {model: train(folder, f"{common} model={model}") for model in ("lstm", "bert")}
