"""Small networks trained once, for the commands that use them."""

from functools import cache
from pathlib import Path

import pytest

from dropattack.data.types import Dataset
from dropattack.runs import build, experiment, record
from dropattack.runs.config import compose
from dropattack.runs.restore import settled

QUIET = ("scale=smoke", "tracker=none", "trainer.device=cpu", "trainer.progress=none")


def train(folder: Path, line: str) -> Path:
    return experiment.run(compose(experiment.CONF, [*QUIET, *line.split(), f"paths.output={folder}"]))


@cache
def data_of(path: Path) -> Dataset:
    """Return the data set of a run."""
    return build.read_data(settled(record.read(path)["config"], data=Path("data"), output=path.parents[1]))


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> dict[str, Path]:
    """Train on digits, plainly with seeds 0 and 1 and with FGM with seeds 0 and 2; return the records by name."""
    folder = tmp_path_factory.mktemp("digits")
    cells = [("none", 0), ("none", 1), ("fgm", 0), ("fgm", 2)]
    common = "dataset=digits model=cnn trainer.epochs=2"
    return {f"{reg}{seed}": train(folder, f"{common} reg={reg} seed={seed}") for reg, seed in cells}


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> dict[str, Path]:
    """Train an LSTM, which reads words, and a small BERT, which reads word pieces, on docstrings."""
    folder = tmp_path_factory.mktemp("words")
    lstm = train(folder, "dataset=pydoc model=lstm")
    data = data_of(lstm)
    with pytest.MonkeyPatch.context() as patch:  # collecting the docstrings takes longer than training on them
        patch.setattr(build, "read_data", lambda config: data)
        return {"lstm": lstm, "bert": train(folder, "dataset=pydoc model=bert")}
