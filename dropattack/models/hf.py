"""Any classifier of transformers: the user's own folder, or a name on the hub, with the family's own head."""

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

from dropattack.data.pretrained import resolve_pretrained
from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models import encoders

TOKENS, PADDING = 3, 4  # of the text used to try a model


class HFClassifier(nn.Module):
    """The classifier that `AutoModelForSequenceClassification` makes of a pretrained model; submodule `network`.

    `Bert` puts the same linear head on every family; this model keeps the family's own head (RoBERTa's has a dense
    layer too), and its weights if the folder has them for this number of classes. A head that the folder lacks is
    initialised by transformers, using torch's global generator.

    Args:
        spec: the data's `vocabulary`, `padding_id` and number of `classes`.
        pretrained: a folder written by `save_pretrained`, a name on the Hugging Face hub, or `minilm`.
        attn_implementation: `sdpa`, or `eager`, which second derivatives need. Families without `sdpa` use `eager`.
        dropout: dropout wherever the family has one.

    Attributes:
        aliases: {"input": name of the word embeddings, "hidden": name of the first layer's query matrix}, found by
            `get_input_embeddings` and by the names that the families use.

    Raises:
        UserError: no model under that name, a model of another task or kind of data, weights that belong to another
            model, a vocabulary larger than the model's, or a model whose logits depend on the padding.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        pretrained: str | None = "minilm",
        attn_implementation: str = "sdpa",
        dropout: float = 0.1,
    ):
        super().__init__()
        if spec.vocabulary is None:
            raise UserError(f"model=hf reads text, and this data set holds {spec.kind}s; take model=torchvision.")
        if pretrained is None:
            raise UserError("model=hf needs a pretrained model: set model.pretrained to a folder or a hub name, or "
                            "take model=bert, which can start from scratch.")  # fmt: skip
        if attn_implementation not in ("sdpa", "eager"):
            raise UserError(f"model.attn_implementation={attn_implementation!r} is not known; choose sdpa or eager.")
        self.network = _load(pretrained, spec, attn_implementation, dropout)
        self._positions = encoders.positions(self.network)
        self._separator = spec.separator_id if encoders.reads_segments(self.network) else None
        self.aliases = encoders.attack_points(self.network, holder="network")
        known = next(self.network.get_input_embeddings().parameters()).shape[0]
        if len(spec.vocabulary) > known:
            raise UserError(
                f"The tokenizer has {len(spec.vocabulary)} tokens and model.pretrained={pretrained} knows {known}: "
                f"set model.tokenizer.name={pretrained}."
            )
        self._check_padding(pretrained, spec.padding_id or 0)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of right-padded `input_ids` int64 [B, T] with `lengths` int64 [B]; padding is ignored.

        Raises:
            UserError: T exceeds the model's positions.
        """
        width = input_ids.shape[1]
        encoders.check_width(width, self._positions)
        inside = torch.arange(width, device=input_ids.device) < lengths.to(input_ids.device, non_blocking=True)[:, None]
        extra = {} if self._separator is None else {"token_type_ids": encoders.segments(input_ids, self._separator)}
        return self.network(input_ids=input_ids, attention_mask=inside.long(), **extra).logits

    def _check_padding(self, pretrained: str, padding_id: int) -> None:
        """Try the model on one short text, alone and with padding."""
        training, kind = self.training, self.network.config.model_type
        ids = torch.arange(5, 5 + TOKENS)[None]
        wider = torch.cat([ids, torch.full((1, PADDING), padding_id)], dim=1)
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=()):
                alone, padded = (self(x, torch.tensor([TOKENS])) for x in (ids, wider))
        except Exception as error:
            raise UserError(
                f"model.pretrained={pretrained}: a {kind} model does not classify a short text from its token ids and "
                f"a mask alone ({encoders.reason_of(error)}). Take another family, such as BERT or RoBERTa."
            ) from error
        finally:
            self.train(training)
        if not torch.allclose(alone, padded, atol=1e-4):
            raise UserError(
                f"model.pretrained={pretrained}: in a {kind} model padding changes what a text means, so results would "
                "depend on the batch. Take another family, such as BERT or RoBERTa."
            )


def _load(pretrained: str, spec: DataSpec, attention: str, dropout: float) -> PreTrainedModel:
    """Load a classifier in float32, with a head for `spec.classes`."""
    place = resolve_pretrained(pretrained)
    try:
        with encoders.quiet():
            # Never run a folder's own code, nor ask whether to; read only tensors from pickles.
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
            _check(config, pretrained)
            encoders.configure(config, dropout)
            if config.num_labels != spec.classes:
                config.num_labels = spec.classes
            if config.pad_token_id is None:  # by which a causal model finds the last token
                config.pad_token_id = spec.padding_id
            network, report = AutoModelForSequenceClassification.from_pretrained(
                place, config=config, output_loading_info=True, trust_remote_code=False, weights_only=True,
                ignore_mismatched_sizes=True,  # a head for other classes
                attn_implementation=attention if encoders.has_sdpa(config) else "eager",
            )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # missing or damaged files raise many kinds of errors
        raise UserError(
            f"model.pretrained={pretrained}: no classifier could be loaded from {place} ({encoders.reason_of(error)}). "
            "Name a folder that save_pretrained wrote, or a model of the Hugging Face hub."
        ) from error
    base = f"{network.base_model_prefix}."
    keys = [*report["missing_keys"], *(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])]
    if strange := sorted(name for name in keys if name.startswith(base) and ".pooler." not in name):
        raise UserError(
            f"model.pretrained={pretrained}: the weights in {place} lack {len(strange)} of the model's tensors "
            f"({strange[0]}, …); they belong to another model."
        )
    return network.float()


def _check(config: PreTrainedConfig, pretrained: str) -> None:
    encoders.check_kind(config, pretrained)
    if config.is_encoder_decoder:
        raise UserError(
            f"model.pretrained={pretrained}: a {config.model_type} model is a sequence-to-sequence model, which writes "
            "texts; take a classifier or an encoder, or model=bert, which reads its encoder."
        )
    if type(config) not in CLASSIFIERS:
        raise ValueError(f"transformers has no classifier of the kind {config.model_type}")
