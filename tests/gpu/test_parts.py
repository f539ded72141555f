"""Packed data: the same tensors and the same metadata, in parts of limited size."""

import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from dropattack.data import packed, vectors
from dropattack.errors import UserError
from dropattack.gpu import parts
from dropattack.runs import build, experiment
from dropattack.runs.config import compose

TEXT = ["dataset=imdb", "model=lstm", "scale=smoke", "model.vectors=glove", "model.embedding_size=4"]


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Make a data folder with a small IMDB and small word vectors."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(300)]
    (root / "imdb").mkdir(parents=True)
    for split in ("train", "test"):
        texts = [" ".join(rng.choice(words, size=rng.integers(1, 30))) for _ in range(400)]
        table = pa.table({"text": texts, "label": [n % 2 for n in range(400)]})
        pa.parquet.write_table(table, root / "imdb" / f"{split}.parquet")
    place = root / vectors.GLOVE_FILES[0]
    place.parent.mkdir()
    numbers = pa.array(rng.standard_normal(250 * 4).astype(np.float32))
    table = pa.table({"word": words[50:], "vector": pa.FixedSizeListArray.from_arrays(numbers, 4)})
    pa.parquet.write_table(table, place)
    monkeypatch.setenv("DROPATTACK_DATA", str(root))
    return root


def config(root: Path, output: Path):
    return experiment.resolve(compose(experiment.CONF, [*TEXT, f"paths.data={root}", f"paths.output={output}"]))


def test_a_packed_run_has_the_same_data_and_the_same_weights(data, tmp_path):
    made = parts.pack([(*TEXT, "seed=0"), (*TEXT, "seed=1")], to=tmp_path / "packed", limit=parts.MIB)
    assert len(made) == 1
    elsewhere = made[0][0] / "data"
    assert not (elsewhere / "imdb").exists(), "no text travels"
    here, there = config(data, tmp_path / "o"), config(elsewhere, tmp_path / "o")
    (facts, encoded), (other_facts, other) = build.load_data(here), build.load_data(there)
    assert facts == other_facts
    for split in ("train", "validation", "test"):
        for name in ("inputs", "labels", "lengths"):
            assert torch.equal(getattr(getattr(encoded, split), name), getattr(getattr(other, split), name)), name
    assert encoded.spec == other.spec
    weights, other_weights = build.build_model(here, encoded), build.build_model(there, other)
    assert all(map(torch.equal, weights.state_dict().values(), other_weights.state_dict().values()))


def test_other_tokenizer_makes_another_file(data):
    one = config(data, data)
    other = {**one["model"]["tokenizer"], "max_length": 7}
    assert packed.path_of(data, one["dataset"], one["model"]["tokenizer"]) != packed.path_of(
        data, one["dataset"], other
    )
    moved = {**one["dataset"], "root": "/elsewhere", "cache": None}
    assert packed.path_of(data, one["dataset"], None) == packed.path_of(data, moved, None)


def test_parts_stay_below_their_limit(data, tmp_path):
    ((whole, _),) = parts.pack([(*TEXT, "seed=0")], to=tmp_path / "packed", limit=parts.MIB)
    sizes = [f.stat().st_size for f in whole.rglob("*") if f.is_file()]
    made = parts.pack([(*TEXT, "seed=0")], to=tmp_path / "packed", limit=max(sizes))
    assert sorted(size for _, size in made) == sorted(sizes), "no two of them fit in one part"
    with pytest.raises(UserError, match="raise --limit"):
        parts.pack([(*TEXT, "seed=0")], to=tmp_path / "packed", limit=100)


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: lzma.compress(b"nothing"), lambda b: b""])
def test_damaged_file_is_named(data, tmp_path, damage):
    folder = parts.pack([(*TEXT, "seed=0")], to=tmp_path / "packed", limit=parts.MIB)[0][0]
    (path,) = folder.rglob("*.xz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="is damaged"):
        packed.read(path)


def test_images_are_not_packed(data, tmp_path):
    facts, encoded = build.load_data(config(data, tmp_path))
    with pytest.raises(ValueError, match="only single texts"):
        packed.write(tmp_path / "x", facts, replace(encoded, spec=replace(encoded.spec, kind="image")))
