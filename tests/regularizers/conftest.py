"""A small LSTM classifier, and its forward on one batch."""

import pytest

from tests.regularizers.networks import NETWORKS

LSTM = NETWORKS[0]


@pytest.fixture
def model():
    return LSTM.build()


@pytest.fixture
def forward(model):
    batch = LSTM.batch()
    return lambda: LSTM.forward(model, batch)
