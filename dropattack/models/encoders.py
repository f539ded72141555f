"""Pretrained text encoders of every family that transformers' `AutoModel` maps: how to load and read each."""

import inspect
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from dropattack.data.pretrained import resolve_pretrained
from dropattack.errors import UserError

# The families' names for the dropout of hidden states and of attention weights.
DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "hidden_dropout",
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout", "embd_dropout", "resid_dropout",
    "dropout_rate", "embed_dropout", "emb_pdrop",
)  # fmt: skip
QUERY = re.compile(
    r"\b(query|query_proj|q_proj|q_a_proj|q_lin|q|wq|in_proj|c_attn|wqkv|qkv|qkv_proj|query_key_value)(\.weight)?$",
    re.I,
)
BERT_POINTS = {
    "input": "encoder.embeddings.word_embeddings.weight",
    "hidden": "encoder.encoder.layer.0.attention.self.query.weight",
}
TOKENS, PADDING = 2, 6  # of the text used to try an encoder: short, so that padding is close to the token that is read


@dataclass(frozen=True)
class Reading:
    """How to read a text's vector from an encoder's output.

    Attributes:
        width: size of the vector.
        pooled: use the encoder's own `pooler_output`.
        last: use the state of the last token, because a causal model's first token sees no other; else the first.
    """

    width: int
    pooled: bool = True
    last: bool = False

    def __call__(self, output: Any, lengths: Tensor) -> Tensor:
        """Return [B, width] from the encoder's `output`, for texts of `lengths` [B]."""
        if self.pooled:
            return output.pooler_output
        states = output.last_hidden_state
        if not self.last:
            return states[:, 0]
        at = lengths.to(states.device, non_blocking=True) - 1
        return states[torch.arange(len(states), device=states.device), at]


def load(pretrained: str, *, attention: str, dropout: float) -> tuple[PreTrainedModel, Reading]:
    """Return an encoder in float32, and how to read it.

    `attention` is `sdpa` or `eager`; a family without `sdpa` gets `eager`, which computes the same. `dropout` applies
    wherever the family has one. An encoder-decoder contributes its encoder.

    Raises:
        UserError: no weights are available under that name, weights of another model, or a family that does not turn
            right-padded token ids into states that are independent of the padding.
    """
    place = resolve_pretrained(pretrained)
    try:
        with quiet():
            # Never run a folder's own code, nor ask whether to; read only tensors from pickles.
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
            check_kind(config, pretrained)
            configure(config, dropout)
            model, report = AutoModel.from_pretrained(
                place, config=config, output_loading_info=True, trust_remote_code=False, weights_only=True,
                attn_implementation=attention if has_sdpa(config) else "eager",
            )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # missing or damaged files raise many kinds of errors
        raise UserError(
            f"model.pretrained={pretrained}: no encoder could be loaded from {place} ({reason_of(error)}). Name a "
            "folder that save_pretrained wrote, a model of the Hugging Face hub, or take model.pretrained=minilm."
        ) from error
    # Masked-language checkpoints often lack a pooler, which is then learnt; anything else would stay random.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(
            f"model.pretrained={pretrained}: the weights in {place} lack {len(missing)} of the encoder's tensors "
            f"({missing[0]}, …); they belong to another model."
        )
    encoder = model.get_encoder() if config.is_encoder_decoder else model
    encoder = encoder.float()  # also for half-precision checkpoints: lowering precision is left to autocast
    return encoder, reading_of(encoder, pretrained)


def configure(config: PreTrainedConfig, dropout: float) -> None:
    """Set the dropout wherever the family has one, and switch the cache of generation off."""
    for name in DROPOUTS:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, dropout)
    if hasattr(config, "use_cache"):
        config.use_cache = False


def reason_of(error: Exception) -> str:
    """Return the cause of a failed load in one clause."""
    if isinstance(error, pickle.UnpicklingError):  # torch's message explains how to run it anyway
        return "its weights are a pickle of more than tensors, which was not run"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .:")[:200]


def reading_of(encoder: PreTrainedModel, pretrained: str) -> Reading:
    """Return how to read the encoder, found by trying it on one short text; a BERT needs no trial.

    Raises:
        UserError: the encoder needs more than token ids and a mask, or padding changes its states.
    """  # noqa: DOC501  the ValueError becomes a UserError
    if isinstance(encoder, BertModel):
        return Reading(encoder.config.hidden_size)
    kind, training = encoder.config.model_type, encoder.training
    encoder.eval()
    try:
        ids = torch.arange(5, 5 + TOKENS)[None]
        other = ids[:, -1] + 1
        another_end, another_start = ids.clone(), ids.clone()
        another_end[:, -1] = another_start[:, 0] = other
        padded = torch.cat([ids, other.expand(1, PADDING)], dim=1)
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            output, ended, started, wider = (
                encoder(input_ids=x, attention_mask=(torch.arange(x.shape[1]) < TOKENS)[None].long())
                for x in (ids, another_end, another_start, padded)
            )
        states, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        if states.shape[:2] != (1, TOKENS):
            raise ValueError(f"{TOKENS} tokens become states of shape {tuple(states.shape)}")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150].rstrip(" .:")
        raise UserError(
            f"model.pretrained={pretrained}: a {kind} model does not encode a short text from its token ids and a mask "
            f"alone ({reason}). Take another family, such as BERT, RoBERTa or DistilBERT."
        ) from error
    finally:
        encoder.train(training)
    if isinstance(pooled, Tensor) and pooled.dim() == 2:
        reading = Reading(pooled.shape[-1])
    elif _differ(states[:, 0], ended.last_hidden_state[:, 0]):
        reading = Reading(states.shape[-1], pooled=False)
    elif _differ(states[:, -1], started.last_hidden_state[:, -1]):
        reading = Reading(states.shape[-1], pooled=False, last=True)
    else:
        raise UserError(
            f"model.pretrained={pretrained}: in a {kind} model on this machine no token sees another (its attention "
            "may need a GPU kernel). Take another family, such as BERT, RoBERTa or DistilBERT."
        )
    length = torch.tensor([TOKENS])
    if _differ(reading(output, length), reading(wider, length), 1e-5):
        raise UserError(
            f"model.pretrained={pretrained}: in a {kind} model padding changes what a text means, so results would "
            "depend on the batch. Take another family, such as BERT, RoBERTa or DistilBERT."
        )
    return reading


def _differ(one: Tensor, two: Tensor, tolerance: float = 1e-6) -> bool:
    """Return whether two tensors differ beyond rounding, whose order in mixtures of experts depends on the tokens."""
    return bool((one - two).abs().max() > tolerance * one.abs().max())


def reads_segments(encoder: PreTrainedModel) -> bool:
    """Return whether the encoder tells the two texts of a pair apart by numbers."""
    takes = "token_type_ids" in inspect.signature(encoder.forward).parameters
    return takes and getattr(encoder.config, "type_vocab_size", 0) > 1


def segments(input_ids: Tensor, separator_id: int) -> Tensor:
    """Return the segment of each token, int64 [B, T]: 0 up to the first separator, 1 after it."""
    is_end = (input_ids == separator_id).long()
    return ((is_end.cumsum(1) - is_end) > 0).long()


def positions(encoder: PreTrainedModel) -> int | None:
    """Return the maximum length of a text in tokens, or None. RoBERTa-like models count from the padding id."""
    most = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return most if isinstance(most, int) and most > 0 else None


def attack_points(encoder: PreTrainedModel, holder: str = "encoder") -> dict[str, str]:
    """Return the names of `input`, the word embeddings, and `hidden`, the first layer's query (or first) matrix.

    Frozen layers are passed over: `hidden` is in the first layer that is trained. The names are those of parameters in
    a module that holds the encoder under the name `holder`.
    """
    words = next(encoder.get_input_embeddings().parameters())
    (of_words,) = (name for name, p in encoder.named_parameters() if p is words)
    matrices = [
        name for name, p in encoder.named_parameters() if p.dim() >= 2 and p is not words and "embed" not in name
    ]
    matrices = [name for name in matrices if encoder.get_parameter(name).requires_grad] or matrices
    hidden = next((name for name in matrices if QUERY.search(name)), matrices[0])
    return {"input": f"{holder}.{of_words}", "hidden": f"{holder}.{hidden}"}


def freeze(encoder: PreTrainedModel, trainable: int) -> None:
    """Freeze all layers but the last `trainable`. Embeddings and what follows the layers stay trainable.

    Raises:
        UserError: the encoder has no list of layers, or fewer than that.
    """
    count = getattr(encoder.config, "num_hidden_layers", None)
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        raise UserError(
            f"model.trainable_layers={trainable}: a {encoder.config.model_type} model has no list of layers to freeze; "
            "set it to null."
        )
    layers = stacks[0]
    if isinstance(trainable, bool) or not isinstance(trainable, int) or not 0 <= trainable <= len(layers):
        raise UserError(f"model.trainable_layers={trainable} must be null or a whole number from 0 to {len(layers)}.")
    layers[: len(layers) - trainable].requires_grad_(False)


def check_kind(config: PreTrainedConfig, pretrained: str) -> None:
    """Check that a family reads the token ids of a text.

    Raises:
        UserError: it reads images or sound.
        ValueError: transformers has no encoder of this kind.
    """
    family = _class_of(config)
    if family is None:
        raise ValueError(f"transformers has no encoder of the kind {config.model_type}")
    if family.main_input_name != "input_ids" or "input_ids" not in inspect.signature(family.forward).parameters:
        raise UserError(
            f"model.pretrained={pretrained}: a {config.model_type} model reads {family.main_input_name}, not the token "
            "ids of a text. Take a text encoder, such as BERT, RoBERTa or DistilBERT."
        )


def _class_of(config: PreTrainedConfig) -> Any:
    found = MODEL_MAPPING.get(type(config), None)
    return found[0] if isinstance(found, tuple | list) else found


def has_sdpa(config: PreTrainedConfig) -> bool:
    """Return whether the family has the fast attention."""
    return bool(getattr(_class_of(config), "_supports_sdpa", False))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar, its report on the pretraining head, and torch's warnings on old pickles."""
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


def check_width(width: int, most: int | None) -> None:
    """Raise a UserError if a batch of `width` tokens exceeds the model's `most` positions; None has no limit."""
    if most is not None and width > most:
        raise UserError(
            f"A text of {width} tokens is too long for {most} positions: set model.tokenizer.max_length={most}."
        )
