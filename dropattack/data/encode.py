"""Convert a Dataset to tensors once: texts are tokenised, padded and cached; images pass through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dropattack.data.cache import Content, cached
from dropattack.data.types import Dataset, DataSpec, Encoded, ImageSplit, TensorSplit, TextSplit
from dropattack.errors import UserError

FORMAT = 1  # increase when the cached content changes


class Fitted(Protocol):
    """A tokenizer with its vocabulary."""

    vocabulary: tuple[str, ...]
    padding_id: int

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at least one per text."""
        ...


class Tokenizer(Protocol):
    """The interface that `encode` needs; see `WordTokenizer` and `PretrainedTokenizer`."""

    def settings(self) -> dict[str, Any]:
        """Return the JSON values that, together with the texts, determine the encoding."""
        ...

    def fit(self, dataset: Dataset) -> Fitted: ...


def encode(
    dataset: Dataset, tokenizer: Tokenizer | None = None, *, cache: str | Path | None = None, code: str | None = None
) -> Encoded:  # fmt: skip
    """Return the data set as tensors; see `TensorSplit` for their shapes.

    Args:
        dataset: the data set.
        tokenizer: required for text, unused for images.
        cache: folder for encoded text, keyed by the data's fingerprint and the tokenizer's settings; None: no cache.
        code: a digest of the tokenizer's code, if that may change: that of a plug-in.

    Raises:
        UserError: text without a tokenizer.
    """
    if isinstance(dataset.train, ImageSplit):
        images = {name: split for name, split in dataset.splits.items() if isinstance(split, ImageSplit)}
        _, channels, height, width = dataset.train.pixels.shape
        return Encoded(
            DataSpec("image", len(dataset.classes), image_shape=(channels, height, width)),
            **{
                name: TensorSplit(torch.from_numpy(split.pixels), torch.from_numpy(split.labels))
                for name, split in images.items()
            },
        )
    if tokenizer is None:
        raise UserError(f"Dataset {dataset.name} is text: this model needs a tokenizer (model.tokenizer) to read it.")
    key = {"format": FORMAT, "data": dataset.fingerprint, "tokenizer": tokenizer.settings()}
    if code is not None:
        key["code"] = code
    arrays, values = cached(cache, f"{dataset.name}-tokens", key, lambda: _tokenise(dataset, tokenizer))
    spec = DataSpec("text", len(dataset.classes), tuple(values["vocabulary"]), values["padding_id"],
                    separator_id=values.get("separator_id"))  # fmt: skip
    return Encoded(
        spec,
        **{
            name: TensorSplit(
                torch.from_numpy(arrays[f"{name}.inputs"]),
                torch.from_numpy(split.labels),
                torch.from_numpy(arrays[f"{name}.lengths"]),
            )
            for name, split in dataset.splits.items()
        },
    )


def _tokenise(dataset: Dataset, tokenizer: Tokenizer) -> Content:
    fitted = tokenizer.fit(dataset)
    arrays = {}
    values: dict[str, Any] = {"vocabulary": list(fitted.vocabulary), "padding_id": fitted.padding_id}
    for name, split in dataset.splits.items():
        assert isinstance(split, TextSplit)
        if split.pairs is None:
            ids = fitted(split.texts)
        elif (of_pairs := getattr(fitted, "of_pairs", None)) is not None:
            ids, values["separator_id"] = of_pairs(split.texts, split.pairs), getattr(fitted, "separator_id", None)
        else:
            raise UserError(
                f"Dataset {dataset.name} holds pairs of texts, and this model reads one text per row: take model=hf or "
                "model=bert, or leave dataset.text_pair_column out."
            )
        arrays[f"{name}.inputs"], arrays[f"{name}.lengths"] = padded(ids, fitted.padding_id)
    return arrays, values


def padded(ids: Sequence[Sequence[int] | np.ndarray], padding_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad N rows of token ids on the right: (int32 [N, longest], int64 [N] lengths)."""
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    matrix = np.full((len(ids), lengths.max()), padding_id, dtype=np.int32)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row, np.int32) for row in ids])
    return matrix, lengths
