"""Small data specs and batches for the models' tests."""

import pytest
import torch

from dropattack.data.types import DataSpec

LENGTHS = (7, 1, 4, 7, 2, 6)  # in no order; a single token, and rows without padding


@pytest.fixture
def text_spec() -> DataSpec:
    return DataSpec(kind="text", classes=3, vocabulary=tuple(f"word{i}" for i in range(20)), padding_id=0)


@pytest.fixture
def image_spec():
    def make(side: int, channels: int = 1) -> DataSpec:
        return DataSpec(kind="image", classes=10, image_shape=(channels, side, side))

    return make


@pytest.fixture
def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` [6, 7], right-padded with 0, and their lengths."""
    lengths = torch.tensor(LENGTHS)
    ids = torch.randint(1, 20, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    return ids.where(torch.arange(ids.shape[1]) < lengths[:, None], 0), lengths
