"""Write a trained encoder as a Hugging Face model for sequence classification, with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dropattack.errors import UserError
from dropattack.files import disk_problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dropattack.runs.trained import Trained

EXPORTED = ("dropattack.models.bert.Bert", "dropattack.models.hf.HFClassifier")
TOLERANCE = 1e-5  # of logits, between the model and the exported one


def export(trained: Trained, folder: Path) -> Path:
    """Write config.json, model.safetensors and the tokenizer to `folder`, and check that they give the same logits.

    Returns:
        `folder`.

    Raises:
        UserError: the model has no Hugging Face form, or the folder cannot be written.
    """
    own = trained.record["config"]["model"]
    if own["_target_"] not in EXPORTED:  # before transformers is imported
        raise UserError(f"only model=bert and model=hf have a Hugging Face form, and this is model={own['name']}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; name a new one")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from dropattack.models import encoders
    from dropattack.models.hf import HFClassifier

    model = trained.model
    if isinstance(model, HFClassifier):
        made = model.network
        made.config.update(_classes(trained))
    else:
        made = _bert(trained)
    with encoders.quiet():
        try:
            made.save_pretrained(folder)
            _tokenizer(trained).save_pretrained(folder)
        except OSError as error:
            raise UserError(disk_problem(folder, error)) from error
        back = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    _compare(trained, back, AutoTokenizer.from_pretrained(folder))
    return folder


def _bert(trained: Trained) -> PreTrainedModel:
    """Return `BertForSequenceClassification` with the weights of `model=bert`, if its encoder is a BERT."""
    from copy import deepcopy

    from transformers import BertForSequenceClassification, BertModel

    from dropattack.models.bert import Bert

    model = trained.model
    assert isinstance(model, Bert)
    if not isinstance(model.encoder, BertModel):
        kind = model.encoder.config.model_type
        raise UserError(
            f"Hugging Face's classifier for {kind} has another head than model=bert; train model=hf instead"
        )
    config = deepcopy(model.encoder.config)
    config.update({**_classes(trained), "classifier_dropout": float(model.dropout.p)})
    made = BertForSequenceClassification(config)
    made.load_state_dict(
        {f"bert.{key}": value for key, value in model.encoder.state_dict().items()}
        | {f"classifier.{key}": value for key, value in model.head.state_dict().items()}
    )
    return made


def _classes(trained: Trained) -> dict[str, Any]:
    """Return the classes as values of a Hugging Face config."""
    names = trained.reader.classes
    return {
        "id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "single_label_classification",
    }  # fmt: skip


def _tokenizer(trained: Trained) -> Any:
    """Return the tokenizer in Hugging Face's form, cut off at the length of the training."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from dropattack.data.pretrained import resolve_pretrained

    options = dict(trained.reader.tokenizer or {})
    length = options["max_length"]
    if options["name"] is not None:
        return AutoTokenizer.from_pretrained(
            resolve_pretrained(options["name"]), model_max_length=length, split_special_tokens=True
        )
    special = {f"{key}_token": f"[{key.upper()}]" for key in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained.reader.fitted().backend, model_max_length=length, split_special_tokens=True,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], **special
    )  # fmt: skip


def _compare(trained: Trained, back: Any, tokenizer: Any) -> None:
    """Check that both give the same logits on texts, read by the tokenizer of each; one of them is padded."""
    texts, pairs = ["a text of [SEP] several words", "no"], ["the second one", "is longer than the first"]
    second = pairs if trained.reader.pairs else None
    split = trained.reader.texts(texts, np.zeros(2, dtype=np.int64), second)
    tokens = tokenizer(texts, second, padding=True, truncation=True, return_tensors="pt")
    device = next(trained.model.parameters()).device
    with torch.no_grad():
        ours = trained.model(input_ids=split.inputs.long().to(device), lengths=split.lengths).cpu()
        theirs = back(**tokens).logits
    if (apart := float((ours - theirs).abs().max())) > TOLERANCE:
        raise RuntimeError(f"the exported model's logits differ by {apart:g}")
