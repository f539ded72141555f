"""Small float64 networks, with a batch each, on which every method's gradient is compared with the oracle's.

Each stands for a way of being hard: repeated and padded tokens (LSTM), a packed two-layer bidirectional RNN (GRU),
BatchNorm in train mode, with and without a momentum (CNN), a real transformer that somebody else wrote (BERT).
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING, CLASSES = 0, 3


class Output(NamedTuple):
    """What `forward()` hands to a regularizer: the mean loss of the batch and the logits [B, classes]."""

    loss: Tensor
    logits: Tensor


class LSTMClassifier(nn.Module):
    """Padded, one direction; the last state is classified, so padding is read: its row must get no gradient even so."""

    def __init__(self, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(30, 6, padding_idx=PADDING)
        self.drop, self.drop_state = nn.Dropout(dropout), nn.Dropout(dropout)
        self.rnn = nn.LSTM(6, 7, batch_first=True)
        self.head = nn.Linear(7, CLASSES)
        with torch.no_grad():  # pretrained matrices have a padding row that is not zero: its norm must not be forgotten
            self.embed.weight[PADDING] = torch.linspace(-0.5, 0.5, 6)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.rnn(self.drop(self.embed(ids)))
        return self.head(self.drop_state(states[:, -1]))


class BiGRUClassifier(nn.Module):
    """Packed, two layers, two directions, with the RNN's own dropout between the layers."""

    def __init__(self, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(30, 6, padding_idx=PADDING)
        self.rnn = nn.GRU(6, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=dropout)
        self.head = nn.Linear(10, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids != PADDING).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(ids), lengths, batch_first=True, enforce_sorted=False)
        _, state = self.rnn(packed)
        return self.head(torch.cat([state[-2], state[-1]], dim=1))


class CNN(nn.Module):
    """Two convolutions with BatchNorm; the second averages its statistics cumulatively (momentum=None)."""

    def __init__(self, dropout: float):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5, momentum=None)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.drop(F.relu(self.bn1(self.conv1(pixels))))
        hidden = F.avg_pool2d(torch.tanh(self.bn2(self.conv2(hidden))), 6)
        return self.head(self.drop(hidden.flatten(1)))


def bert(dropout: float) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
            max_position_embeddings=12, num_labels=CLASSES, pad_token_id=PADDING, attn_implementation="eager",
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=0.3,
        )
    )  # fmt: skip


def texts(generator: torch.Generator) -> Tensor:
    """Token ids [5, 6], int64: words come back within a text and between texts, and three of the texts are padded."""
    ids = torch.randint(1, 10, (5, 6), generator=generator)
    for row, length in enumerate((6, 3, 6, 2, 4)):
        ids[row, length:] = PADDING
    return ids


def images(generator: torch.Generator) -> Tensor:
    return torch.randn(5, 2, 6, 6, dtype=torch.float64, generator=generator)


def call_bert(call: Callable[..., Any], ids: Tensor) -> Tensor:
    return call(input_ids=ids, attention_mask=(ids != PADDING).long()).logits


@functools.cache
def built(make: Callable[[float], nn.Module], dropout: float) -> nn.Module:
    torch.manual_seed(0)
    return make(dropout).double().train()


@dataclass(frozen=True)
class Network:
    """A row of the table. `weights` and `activations` are targets in the order in which they are attacked."""

    name: str
    make: Callable[[float], nn.Module]
    inputs: Callable[[torch.Generator], Tensor]
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    embedding: str | None = None  # the module whose rows are looked up with the batch's ids
    call: Callable[..., Tensor] = lambda call, inputs: call(inputs)

    def build(self, dropout: float = 0.0) -> nn.Module:
        return copy.deepcopy(built(self.make, dropout))

    def batch(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return inputs and labels [5]."""
        generator = torch.Generator().manual_seed(seed)
        inputs = self.inputs(generator)
        return inputs, torch.randint(0, CLASSES, (len(inputs),), generator=generator)

    def forward(self, call: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> Output:
        """One forward; `call` is the model, or what stands in its place in the oracle."""
        inputs, labels = batch
        logits = self.call(call, inputs)
        return Output(F.cross_entropy(logits, labels), logits)

    def targets(self, which: str) -> tuple[str, ...]:
        """`which`: the name of a group of targets, of those that TARGETS lists."""
        return {
            "weight": self.weights[:1], "weights": self.weights, "activation": self.activations[:1],
            "activations": self.activations, "mixed": (self.activations[0], self.weights[1]),
        }[which]  # fmt: skip


TARGETS = ("weight", "weights", "activation", "activations", "mixed")
WORDS = "bert.embeddings.word_embeddings"
QUERY = "bert.encoder.layer.1.attention.self.query"
NETWORKS = (
    Network(
        "lstm", LSTMClassifier, texts, ("embed.weight", "rnn.weight_ih_l0", "head.weight"), ("embed", "drop"), "embed"
    ),
    Network(
        "bigru", BiGRUClassifier, texts, ("embed.weight", "rnn.weight_hh_l0", "rnn.weight_ih_l1_reverse"),
        ("embed", "head"), "embed",
    ),
    Network("cnn", CNN, images, ("conv1.weight", "bn1.weight", "head.weight"), ("<input>", "conv2")),
    Network("bert", bert, texts, (f"{WORDS}.weight", f"{QUERY}.weight"), (WORDS, QUERY), WORDS, call_bert),
)  # fmt: skip


def fast_on(*names: str) -> pytest.MarkDecorator:
    """Run a test on all networks, of which those not named are slow."""
    params = [pytest.param(n, id=n.name, marks=() if n.name in names else pytest.mark.slow) for n in NETWORKS]
    return pytest.mark.parametrize("network", params)
