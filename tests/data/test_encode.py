"""Encoding of data sets as tensors, and its cache."""

import logging

import numpy as np
import pytest
import torch

from dropattack import source
from dropattack.data import encode as module
from dropattack.data.cache import cached
from dropattack.data.encode import encode, padded
from dropattack.data.text import PretrainedTokenizer, WordTokenizer
from dropattack.data.types import Dataset
from dropattack.errors import UserError
from dropattack.runs import build
from tests.data.makers import dataset, image_split


def test_padded():
    matrix, lengths = padded([[5], [6, 7, 8], [9, 9]], 4)
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [[5, 4, 4], [6, 7, 8], [9, 9, 4]]
    assert lengths.tolist() == [1, 3, 2]


@pytest.mark.parametrize("tokenizer", [WordTokenizer(max_length=12), PretrainedTokenizer(None, 12, 200)])
def test_text(tokenizer):
    data = dataset(60, 3)
    encoded = encode(data, tokenizer)
    fitted = tokenizer.fit(data)
    assert encoded.spec.kind == "text"
    assert encoded.spec.classes == 3
    assert encoded.spec.vocabulary == fitted.vocabulary
    for name, split in data.splits.items():
        made = getattr(encoded, name)
        assert made.inputs.dtype == torch.int32
        assert made.inputs.is_contiguous()
        assert torch.equal(made.labels, torch.from_numpy(split.labels))
        for row, ids in enumerate(fitted(split.texts)):
            assert made.inputs[row, : made.lengths[row]].tolist() == ids
            assert (made.inputs[row, made.lengths[row] :] == encoded.spec.padding_id).all()


def test_images_pass_through():
    data = Dataset("toy", tuple("0123456789"), image_split(), image_split(seed=1), image_split(seed=2))
    encoded = encode(data)
    assert encoded.spec.image_shape == (3, 8, 8)
    assert encoded.spec.vocabulary is None
    assert encoded.train.inputs.dtype == torch.uint8
    assert encoded.train.inputs.numpy() is not None
    assert np.array_equal(encoded.test.inputs.numpy(), data.test.pixels)


def test_text_needs_a_tokenizer():
    with pytest.raises(UserError, match=r"toy is text.*model\.tokenizer"):
        encode(dataset())


def same(one, other):
    return all(
        torch.equal(getattr(getattr(one, name), part), getattr(getattr(other, name), part))
        for name in ("train", "validation", "test")
        for part in ("inputs", "labels", "lengths")
    ) and (one.spec == other.spec)


def test_cache_is_used_and_keyed_by_content(tmp_path, monkeypatch):
    first = encode(dataset(), WordTokenizer(), cache=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_tokenise", lambda *_: pytest.fail("the cache was not used"))
        assert same(first, encode(dataset(), WordTokenizer(), cache=tmp_path))
    encode(dataset(), WordTokenizer(max_length=5), cache=tmp_path)
    encode(dataset(41), WordTokenizer(), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # and no temporary file


def test_an_edited_tokenizer_of_a_plug_in_is_used(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("SIZE = 1\n")
    monkeypatch.setitem(source.others, "mine", tmp_path / "mine.py")
    monkeypatch.setattr(build, "instantiate", lambda *_: WordTokenizer())
    tokenized = []
    original = module._tokenise
    monkeypatch.setattr(module, "_tokenise", lambda *given: tokenized.append(given) or original(*given))
    config = {"model": {"tokenizer": {"_target_": "mine.Words"}}, "paths": {"output": str(tmp_path)}}
    for text, runs in (("SIZE = 1\n", 1), ("SIZE = 1\n", 1), ("SIZE = 2\n", 2)):
        (tmp_path / "mine.py").write_text(text)
        for known in (source._tree, source._plain, source._imports):
            known.cache_clear()
        build.encode_data(config, dataset())
        assert len(tokenized) == runs


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "text"])
def test_damaged_cache_is_rebuilt(tmp_path, caplog, damage):
    first = encode(dataset(), WordTokenizer(), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    bad = {"empty": b"", "half": good[: len(good) // 2], "text": b"x" * 100, "bit": good[:-9] + b"\1" + good[-8:]}[
        damage
    ]
    assert bad != good
    path.write_bytes(bad)
    with caplog.at_level(logging.WARNING):
        assert same(first, encode(dataset(), WordTokenizer(), cache=tmp_path))
    assert "damaged" in caplog.text
    caplog.clear()
    assert same(first, encode(dataset(), WordTokenizer(), cache=tmp_path))
    assert not caplog.text


def test_unwritable_cache_only_warns(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        arrays, values = cached(tmp_path / "file" / "cache", "x", {}, lambda: ({"a": np.arange(3)}, {"b": 1}))
    assert "cannot be cached" in caplog.text
    assert (arrays["a"].tolist(), values) == ([0, 1, 2], {"b": 1})


def test_failed_build_leaves_nothing(tmp_path):
    with pytest.raises(UserError):
        cached(tmp_path, "x", {}, lambda: (_ for _ in ()).throw(UserError("bad")))
    assert not list(tmp_path.iterdir())
