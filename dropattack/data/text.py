"""Text → token ids: words for the RNNs, word pieces for BERT."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dropattack.data.pretrained import pretrained_identity
from dropattack.data.types import Dataset, TextSplit
from dropattack.data.wordpiece import PAD, UNK, pretrained_pieces, trained_pieces
from dropattack.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)  # IMDB's reviews are HTML
# A word keeps its apostrophes ("don't"); any other run of visible characters is punctuation.
WORDS = re.compile(r"\w+(?:['’]\w+)*")
WORDS_AND_PUNCTUATION = re.compile(WORDS.pattern + r"|[^\w\s]+")
CHUNK = 2_000  # texts encoded at a time: the word-piece library's result holds far more than the ids


@dataclass(frozen=True)
class WordTokenizer:
    """Split text into words; the vocabulary is counted on the data, most frequent first. [PAD] is 0, [UNK] is 1.

    Plain Python: on one core it takes half the time of Hugging Face's word-level tokenizer (10 CPU seconds for IMDB).

    The notebooks' setting is `remove_stop_words=True, remove_punctuation=True, vocabulary_size=250_000,
    vocabulary_from="all"`. They use NLTK's tokenizer and stop words, which need a download; the stop words here are
    scikit-learn's ENGLISH_STOP_WORDS (318 words, NLTK has fewer), and "don't" stays one word, where NLTK makes two.

    Args:
        vocabulary_size: maximum, including the two special tokens; ties in frequency are broken alphabetically.
        min_frequency: rarer words are unknown.
        max_length: tokens per text, after removing stop words and punctuation; the rest is cut off.
        vocabulary_from: `train`, or `all` splits (the notebooks' choice: test words get untrained embeddings).

    Raises:
        UserError: an invalid setting.
    """

    lowercase: bool = True
    remove_stop_words: bool = False
    remove_punctuation: bool = False
    vocabulary_size: int = 80_000
    min_frequency: int = 1
    max_length: int = 256
    vocabulary_from: Literal["train", "all"] = "train"

    def __post_init__(self) -> None:
        _at_least(self, vocabulary_size=3, min_frequency=1, max_length=1)
        if self.vocabulary_from not in ("train", "all"):
            raise UserError(f"tokenizer.vocabulary_from={self.vocabulary_from} is unknown; choose train or all.")

    def settings(self) -> dict[str, Any]:
        """See `encode.Tokenizer`."""
        identity = {"pattern": self._pattern.pattern, "stop_words": sorted(self._stop_words())}
        return {"type": "words", **identity, **asdict(self)}

    def fit(self, dataset: Dataset) -> Words:
        """Count the vocabulary."""
        stop_words = self._stop_words()
        counts: Counter[str] = Counter()
        for text in _clean(_texts(dataset, self.vocabulary_from)):
            counts.update(self._pattern.findall(text.lower() if self.lowercase else text))
        ranked = sorted((-count, word) for word, count in counts.items() if count >= self.min_frequency)
        kept = [word for _, word in ranked if word.lower() not in stop_words][: self.vocabulary_size - 2]
        dropped = frozenset(stop_words if self.lowercase else (w for w in counts if w.lower() in stop_words))
        return Words((PAD, UNK, *kept), dropped, self._pattern, self.lowercase, self.max_length)

    @property
    def _pattern(self) -> re.Pattern[str]:
        return WORDS if self.remove_punctuation else WORDS_AND_PUNCTUATION

    def _stop_words(self) -> frozenset[str]:
        if not self.remove_stop_words:
            return frozenset()
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return ENGLISH_STOP_WORDS


@dataclass(frozen=True)
class Words:
    """A word vocabulary, ready to encode. Words in `dropped` produce no token."""

    vocabulary: tuple[str, ...]
    dropped: frozenset[str]
    pattern: re.Pattern[str]
    lowercase: bool
    max_length: int
    padding_id: int = 0
    unknown_id: int = 1
    _ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ids = {word: i for i, word in enumerate(self.vocabulary)} | dict.fromkeys(self.dropped, -1)
        object.__setattr__(self, "_ids", ids)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, at most `max_length`; a text with no tokens left becomes one [UNK]."""
        find, get, unknown = self.pattern.findall, self._ids.get, self.unknown_id
        result = []
        for text in _clean(texts):
            words = find(text.lower() if self.lowercase else text)
            ids = [i for word in words if (i := get(word, unknown)) >= 0]
            result.append(ids[: self.max_length] or [unknown])
        return result


@dataclass(frozen=True)
class PretrainedTokenizer:
    """The word pieces of a pretrained model, or of a BERT vocabulary trained on the data.

    Args:
        name: a model of the Hugging Face hub, a folder, `minilm` (see `pretrained.resolve_pretrained`), or None, which
            trains a lower-cased word-piece vocabulary of `vocabulary_size` on the train split.
        max_length: tokens per text, including [CLS] and [SEP].
        vocabulary_size: size of the trained vocabulary; has no effect with a name.

    Raises:
        UserError: an invalid setting; in `fit`: a name that is not available.
    """

    name: str | None = "minilm"
    max_length: int = 256
    vocabulary_size: int = 8_000

    def __post_init__(self) -> None:
        _at_least(self, max_length=3, vocabulary_size=200)

    def settings(self) -> dict[str, Any]:
        """See `encode.Tokenizer`."""
        import tokenizers

        own = asdict(self)
        if self.name is not None:
            del own["vocabulary_size"]
            own |= {"files": pretrained_identity(self.name), "special_tokens": "are text"}
        return {"type": "pieces", "tokenizers": tokenizers.__version__, **own}

    def fit(self, dataset: Dataset) -> Pieces:
        """Load the vocabulary, or train it on the train split."""
        if self.name is None:
            backend, pad, unknown = trained_pieces(lambda: _clean(_texts(dataset, "train")), self.vocabulary_size)
        else:
            backend, pad, unknown = pretrained_pieces(self.name)
        backend.no_padding()
        backend.encode_special_tokens = True  # a [SEP] that somebody wrote is text, and does not begin a second one
        backend.enable_truncation(self.max_length)
        by_id = {i: token for token, i in backend.get_vocab().items()}
        vocabulary = tuple(by_id.get(i, f"[unused-{i}]") for i in range(max(by_id) + 1))
        return Pieces(backend, vocabulary, pad, unknown, _separator(backend))


@dataclass(frozen=True)
class Pieces:
    """A word-piece vocabulary, ready to encode."""

    backend: Backend
    vocabulary: tuple[str, ...]
    padding_id: int
    unknown_id: int
    separator_id: int | None = None

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, with the model's special tokens."""
        return self._encoded(list(_clean(texts)))

    def of_pairs(self, texts: Sequence[str], pairs: Sequence[str]) -> list[list[int]]:
        """Return the ids of each pair of texts; if both together are too long, the longer one is cut."""
        return self._encoded(list(zip(_clean(texts), _clean(pairs), strict=True)))

    def _encoded(self, inputs: Sequence[Any]) -> list[list[int]]:
        result = []
        for start in range(0, len(inputs), CHUNK):
            encodings = self.backend.encode_batch_fast(inputs[start : start + CHUNK])
            result += [encoding.ids or [self.unknown_id] for encoding in encodings]
        return result


def _separator(backend: Backend) -> int | None:
    """Return the special token after which the second text of a pair begins, or None if segments have no numbers."""
    encoding = backend.encode("a", "b")
    if 1 not in encoding.type_ids or encoding.type_ids.index(1) == 0:
        return None
    last = encoding.type_ids.index(1) - 1
    return encoding.ids[last] if encoding.special_tokens_mask[last] else None


def _texts(dataset: Dataset, source: str) -> Iterator[str]:
    for name, split in dataset.splits.items():
        if isinstance(split, TextSplit) and (source == "all" or name == "train"):
            yield from split.texts
            yield from split.pairs or ()


def _clean(texts: Iterable[str]) -> Iterator[str]:
    return (LINE_BREAK.sub(" ", text) for text in texts)


def _at_least(tokenizer: object, **least: int) -> None:
    for option, smallest in least.items():
        value = getattr(tokenizer, option)
        if not isinstance(value, int) or value < smallest:
            raise UserError(f"tokenizer.{option}={value} must be a whole number of at least {smallest}.")
