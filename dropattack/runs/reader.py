"""How a trained model reads its inputs: classes, vocabulary and tokenizer, or the size and statistics of images.

It is kept beside a run's weights as `reader.json`, so that the model can be used without the data it was trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropattack.data.types import Dataset, DataSpec, Encoded, TensorSplit
from dropattack.errors import UserError
from dropattack.files import write_atomically
from dropattack.runs import build

if TYPE_CHECKING:
    import numpy as np


FILE = "reader.json"
WORDS, PIECES = "dropattack.data.text.WordTokenizer", "dropattack.data.text.PretrainedTokenizer"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


@dataclass(frozen=True)
class Reader:
    """A model's view of its inputs.

    Attributes:
        kind: `text` or `image`.
        classes: the name of each class.
        tokenizer: text: the options of `model.tokenizer`, with its `_target_`.
        vocabulary: text: the token of each id.
        padding_id: text: the id of padding.
        pairs: text: whether each row has two texts.
        separator_id: text: see `DataSpec`.
        dropped: words that produce no token.
        pattern: the regular expression of a word.
        image_shape: images: channels, height, width.
        mean: images: per channel, of pixels in 0..1.
        std: images: like `mean`.
    """

    kind: str
    classes: tuple[str, ...]
    tokenizer: Mapping[str, Any] | None = None
    vocabulary: tuple[str, ...] | None = None
    padding_id: int | None = None
    dropped: tuple[str, ...] = ()
    pattern: str = ""
    image_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pairs: bool = False
    separator_id: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], found: Dataset | Path, encoded: Encoded) -> Reader:
        """Return the reader of a run, given the results of `build.read_data` and `build.encode_data`."""
        spec = encoded.spec
        numbers = tuple(str(number) for number in range(spec.classes))  # packed data has no names
        reader = cls(spec.kind, found.classes if isinstance(found, Dataset) else numbers)
        if (statistics := encoded.train.pixel_statistics) is not None:
            return replace(reader, image_shape=spec.image_shape, **statistics._asdict())
        tokenizer = config["model"]["tokenizer"]
        reader = replace(
            reader, tokenizer=dict(tokenizer), vocabulary=spec.vocabulary, padding_id=spec.padding_id,
            pairs=isinstance(found, Dataset) and getattr(found.train, "pairs", None) is not None,
            separator_id=spec.separator_id,
        )  # fmt: skip
        if tokenizer["_target_"] != WORDS:
            return reader
        words = build.instantiate("model.tokenizer", tokenizer)
        settings = words.settings()
        dropped = settings["stop_words"]
        if dropped and not words.lowercase and isinstance(found, Dataset):  # the spellings that the data has
            dropped = sorted(words.fit(found).dropped)
        return replace(reader, dropped=tuple(dropped), pattern=settings["pattern"])

    def save(self, folder: Path) -> None:
        """Write `reader.json` in the folder of a run's weights.

        Raises:
            OSError: the disk is full or fails.
        """
        text = json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))
        write_atomically(folder / FILE, text.encode(errors="surrogatepass"))

    @classmethod
    def load(cls, folder: Path) -> Reader | None:
        """Return what `save` wrote; None if there is no such file, as for runs of earlier versions.

        Raises:
            UserError: the file is damaged.
        """
        try:
            values: dict[str, Any] = json.loads((folder / FILE).read_bytes().decode(errors="surrogatepass"))
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / FILE} is damaged ({error}); run the experiment again with rerun=true"
            ) from error

    @property
    def spec(self) -> DataSpec:
        """The properties of the data that the model was built for."""
        shape: Any = self.image_shape
        return DataSpec(self.kind, len(self.classes), self.vocabulary, self.padding_id, shape, self.separator_id)  # type: ignore[arg-type]

    def texts(
        self, texts: Sequence[str], labels: np.ndarray | None = None, pairs: Sequence[str] | None = None
    ) -> TensorSplit:  # fmt: skip
        """Return N texts, or pairs of texts, as tensors.

        Args:
            texts: the first or only text of each row.
            labels: int64 [N]; None: zeros.
            pairs: the second text of each row, if the model was trained on pairs.

        Raises:
            UserError: the model reads images, another number of texts per row, or a tokenizer that cannot be rebuilt;
                or there is no text.
        """
        from dropattack.data.encode import padded

        if self.kind != "text":
            raise UserError("this model classifies images: name image files, not texts")
        if not texts:
            raise UserError("there is no text to read")
        if self.pairs and pairs is None:
            raise UserError(
                "this model reads pairs of texts: name the second text of each with --pair, or a CSV file with a "
                "column of second texts"
            )
        if pairs is not None and not self.pairs:
            raise UserError("this model reads one text per row, not pairs of texts")
        fitted = self.fitted()
        ids = fitted(texts) if pairs is None else fitted.of_pairs(texts, pairs)
        inputs, lengths = padded(ids, self.padding_id or 0)
        return _split(inputs, labels, lengths)

    def images(self, paths: Sequence[Path], labels: np.ndarray | None = None) -> TensorSplit:
        """Return image files as tensors, converted to the channels and resized to the size that the model reads.

        Raises:
            UserError: the model reads text, there is no image, or a file is not an image.
        """
        import numpy as np

        from dropattack.data.imagefolder import pixels_of

        if self.kind != "image" or self.image_shape is None:
            raise UserError("this model classifies texts, not images")
        if not paths:
            raise UserError("there is no image to read")
        channels, height, width = self.image_shape
        if channels not in (1, 3):
            raise UserError(f"this model reads images of {channels} channels, which no image file has")
        pixels = np.empty((len(paths), channels, height, width), np.uint8)
        for row, path in enumerate(paths):
            try:
                pixels[row] = pixels_of(path, channels, height, width)
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(f"{path} cannot be read as an image ({error})") from error
        return _split(pixels, labels, None)

    def fitted(self) -> Any:
        """Return the tokenizer of the training, with its vocabulary: `Words` or `Pieces`.

        Raises:
            UserError: it is of another kind, or not available.
        """
        from dropattack.data.text import Pieces, PretrainedTokenizer, Words, WordTokenizer

        options = {key: value for key, value in (self.tokenizer or {}).items() if key != "_target_"}
        target, vocabulary = (self.tokenizer or {}).get("_target_"), self.vocabulary or ()
        if target == WORDS:
            words = WordTokenizer(**options)  # a plug-in need not name every option
            return Words(vocabulary, frozenset(self.dropped), re.compile(self.pattern), words.lowercase,
                         words.max_length)  # fmt: skip
        if target != PIECES:
            raise UserError(
                f"the tokenizer {target} cannot be rebuilt from a run's folder; choose words or word pieces"
            )
        pieces = PretrainedTokenizer(**options)
        if pieces.name is None:
            backend = _pieces(vocabulary)
            backend.enable_truncation(pieces.max_length)
            return Pieces(backend, vocabulary, self.padding_id or 0, vocabulary.index("[UNK]"))
        fitted = pieces.fit(None)  # type: ignore[arg-type]  # a pretrained one needs no data
        if fitted.vocabulary != vocabulary:
            raise UserError(f"the tokenizer of {pieces.name} is not the one of the training; install that one")
        return fitted


def _pieces(vocabulary: Sequence[str]) -> Any:
    """Rebuild the word pieces of `wordpiece.trained_pieces` from their vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return made


def _split(inputs: np.ndarray, labels: np.ndarray | None, lengths: np.ndarray | None) -> TensorSplit:
    import torch

    known = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else torch.from_numpy(labels)
    return TensorSplit(torch.from_numpy(inputs), known, None if lengths is None else torch.from_numpy(lengths))
