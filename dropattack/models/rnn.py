"""LSTM and GRU classifiers with exact results on padded batches, without packing where it is slow."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.data.types import DataSpec
from dropattack.errors import UserError

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RNNClassifier(nn.Module):
    """Embedding → LSTM or GRU → pooling over the valid states of each direction → linear head.

    The notebooks' three models are `cell="lstm"` (IMDB), `cell="gru", bidirectional=True` (PHEME), and the same with
    `layers=2` (AGNews). Submodules: `embed`, `rnn` (a real `nn.LSTM` or `nn.GRU`, so its weights have torch's names and
    state dicts are interchangeable), `dropout`, `head`.

    Args:
        spec: the data's `vocabulary`, `padding_id` and number of `classes`.
        vectors: pretrained embeddings [V, embedding_size]; trained further, as in the notebooks.
        found: bool [V], the known rows of `vectors`; the others keep their random values. None: all rows.
        embedding_std: standard deviation of the random embeddings; judge an absolute ε against it.
        pooling: `last` takes the last valid state of each direction, as the notebooks do; `max` takes the largest valid
            value of each unit.
        dropout: dropout on the embeddings, between layers and before the head. The notebooks use none.
        packed: how to read right-padded batches; the result is the same. True packs; False runs over the padding and
            takes each row's last valid state; None packs bidirectional networks on a GPU, for the reasons below.

    Initialisation: embeddings N(0, embedding_std²) with a zero padding row; `rnn` and `head` as torch does it
    (uniform ±1/√hidden_size). All values come from torch's global generator, so the initial weights depend only on the
    seed, not on the regularizer or `packed`.

    Time packed / padded, forward and backward (batch 32, T = 256, hidden and embeddings 300, 10,000 words, 7 to 9 %
    padding as in length-sorted batches; float32, one thread of an AMD EPYC, torch 2.15; CPU seconds, medians of
    interleaved steps, n = 5; in brackets, n = 3, with an allocator that keeps its memory, MALLOC_TRIM_THRESHOLD_):

        LSTM                11.2 (3.3)      GRU                2.9 (2.4)
        BiLSTM              11.9 (3.6)      BiGRU              2.7 (2.3)
        BiLSTM, 2 layers     9.6            BiGRU, 2 layers    2.6

    So a CPU runs over the padding with either cell; packing could pay off only if more than half were padding. On a
    GPU, a padded bidirectional network copies its weights at every call, so short texts are faster packed; a
    unidirectional LSTM is faster padded (`python -m benchmarks.rnn_input`).

    Raises:
        UserError: an unknown cell or pooling, data without a vocabulary, or vectors of another shape.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        cell: Literal["lstm", "gru"] = "lstm",
        layers: int = 1,
        bidirectional: bool = False,
        hidden_size: int = 300,
        embedding_size: int = 300,
        embedding_std: float = 0.1,
        vectors: Tensor | None = None,
        found: Tensor | None = None,
        pooling: Literal["last", "max"] = "last",
        dropout: float = 0.0,
        packed: bool | None = None,
    ):
        super().__init__()
        if cell not in CELLS:
            raise UserError(f"model.cell={cell!r} is not known; choose one of {', '.join(CELLS)}.")
        if pooling not in ("last", "max"):
            raise UserError(f"model.pooling={pooling!r} is not known; choose one of last, max.")
        if spec.vocabulary is None:
            raise UserError(f"An RNN reads text, and this data set holds {spec.kind}s; take model=cnn.")
        self.pooling, self.packed = pooling, packed
        self.embed = nn.Embedding(len(spec.vocabulary), embedding_size, padding_idx=spec.padding_id)
        self.rnn = CELLS[cell](
            embedding_size,
            hidden_size,
            num_layers=layers,
            bidirectional=bidirectional,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,  # torch warns if there is only one layer
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), spec.classes)
        self._start_embeddings(embedding_std, vectors, found)

    @torch.no_grad()
    def _start_embeddings(self, std: float, vectors: Tensor | None, found: Tensor | None) -> None:
        weight = self.embed.weight
        nn.init.normal_(weight, std=std)
        if vectors is not None:
            if vectors.shape != weight.shape:
                raise UserError(
                    f"The pretrained vectors are {list(vectors.shape)}, the embeddings {list(weight.shape)} "
                    f"(words, size): set model.embedding_size={vectors.shape[-1]}."
                )
            rows = torch.ones(len(vectors), dtype=torch.bool) if found is None else found.bool()
            weight[rows] = vectors[rows].to(weight)
        if self.embed.padding_idx is not None:
            weight[self.embed.padding_idx] = 0.0

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of right-padded `input_ids` int64 [B, T] with `lengths` int64 [B], at most T.

        Values beyond a row's length have no effect. A row of length 0 is read as its first token, padding or not,
        because an empty text needs some prediction. Lengths may be on the host or on the device; packing reads them
        on the host, which synchronises only if they are on the device.
        """
        x = self.dropout(self.embed(input_ids))
        lengths = lengths.clamp(min=1)
        state = self._packed(x, lengths) if self._packs(x) else self._padded(x, lengths)
        return self.head(self.dropout(state))

    def _packs(self, x: Tensor) -> bool:
        return x.is_cuda and self.rnn.bidirectional if self.packed is None else self.packed

    def _packed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map [B, T, E] → [B, D·H] by packing, which needs the lengths on the host."""
        host = lengths if lengths.device.type == "cpu" else lengths.cpu()
        # Sort here: `enforce_sorted=False` would wait for the copy of the order to the device.
        host, order = host.sort(descending=True, stable=True)
        order = order.to(x.device, non_blocking=True)
        sequence = nn.utils.rnn.pack_padded_sequence(x.index_select(0, order), host, batch_first=True)
        states, state = self.rnn(sequence)
        if self.pooling == "max":
            padded, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, padding_value=-math.inf)
            return padded.amax(dim=1).index_select(0, order.argsort())
        h = state[0] if isinstance(state, tuple) else state  # [layers·D, B, H]; an LSTM's state is (h, c)
        directions = 1 + self.rnn.bidirectional
        return h[-directions:].transpose(0, 1).flatten(1).index_select(0, order.argsort())

    def _padded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return [B, D·H] for `x` [B, T, E] by running over the padding.

        Left to right, padding comes after the valid tokens. Right to left it would come first, so each row is flipped
        within its length and read left to right with the `_reverse` weights. One-layer RNNs run directly on the
        parameters of `self.rnn`, so attacks in place take effect: no copy can go stale.
        """
        lengths = lengths.to(x.device, non_blocking=True)
        if not self.rnn.bidirectional:
            return self._pool(self.rnn(x)[0], lengths)
        flip = _flip_index(lengths, x.shape[1])
        ahead, back = self._layer(0, x, flip)
        for layer in range(1, self.rnn.num_layers):
            x = self.dropout(torch.cat([ahead, _permute(back, flip)], dim=-1))
            ahead, back = self._layer(layer, x, flip)
        return torch.cat([self._pool(ahead, lengths), self._pool(back, lengths)], dim=-1)

    def _pool(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Map [B, T, H] → [B, H]; the order of a row's valid states does not matter to a maximum."""
        if self.pooling == "last":
            return _at(states, lengths - 1)
        padding = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
        return states.masked_fill(padding[..., None], -math.inf).amax(dim=1)

    def _layer(self, layer: int, x: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
        """Run one bidirectional layer: [B, T, ·] → [B, T, H] per direction; the second is still flipped."""
        ahead, back = self.rnn.all_weights[2 * layer : 2 * layer + 2]  # 4 tensors each
        return self._one_direction(x, ahead), self._one_direction(_permute(x, flip), back)

    def _one_direction(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        """Run one layer left to right, [B, T, ·] → [B, T, H], with the ops that `nn.LSTM` and `nn.GRU` call."""
        zeros = x.new_zeros(1, x.shape[0], self.rnn.hidden_size)
        # has_biases, num_layers, dropout, train, bidirectional, batch_first
        options = (True, 1, 0.0, self.training, False, True)
        if isinstance(self.rnn, nn.LSTM):
            return torch.lstm(x, (zeros, zeros), weights, *options)[0]
        return torch.gru(x, zeros, weights, *options)[0]


def _at(x: Tensor, position: Tensor) -> Tensor:
    """Return row b of `x` [B, T, H] at `position[b]`: [B, H]."""
    return x[torch.arange(len(x), device=x.device), position]


def _flip_index(lengths: Tensor, width: int) -> Tensor:
    """Return int64 [B·T], the source of each cell of a flattened [B, T] batch when each row is flipped in its length.

    The permutation is its own inverse and leaves the padding in place.
    """
    at = torch.arange(width, device=lengths.device)
    end = lengths[:, None]
    source = torch.where(at < end, end - 1 - at, at)  # [B, T]
    return (source + width * torch.arange(len(lengths), device=lengths.device)[:, None]).flatten()


def _permute(x: Tensor, index: Tensor) -> Tensor:
    """Reorder the B·T cells of [B, T, ·] by `index`; copies whole rows, unlike `gather`."""
    return x.flatten(0, 1).index_select(0, index).view_as(x)
