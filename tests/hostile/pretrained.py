"""Hostile folders of pretrained models: without weights, with weights of another model, with code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.data.makers import WORDS
from tests.hostile.case import CANARY, Bomb, Case
from tests.hostile.tables import good

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 40,
         "max_position_embeddings": 32}  # fmt: skip
CODE = "open({canary!r}, 'w')\n"


def bert(*changes: Callable[[Path], object]) -> Callable[[Path], Sequence[str]]:
    """Make a folder of BERT with a tokenizer but no weights, then change it."""

    def make(folder: Path) -> Sequence[str]:
        good(folder)
        place = folder / "bert"
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"], **SIZES}))
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (place / "vocab.txt").write_text("\n".join(words))
        kind = {"tokenizer_class": "BertTokenizer", "model_max_length": 32}
        (place / "tokenizer_config.json").write_text(json.dumps(kind))
        for change in changes:
            change(place)
        return ["dataset=imdb", "model=bert", "model.pretrained=bert"]

    return make


def weights(place: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**SIZES)).save_pretrained(place)


def cut(place: Path) -> None:
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def others(place: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3)}, place / "model.safetensors", metadata={"format": "pt"})


def pickled(place: Path) -> None:
    """Write weights in torch's old format, a pickle, here with code in it."""
    import torch

    torch.save({"embeddings.word_embeddings.weight": Bomb(place.parent / CANARY)}, place / "pytorch_model.bin")


def bare_pickle(place: Path) -> None:
    (place / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(place.parent / CANARY)))


def pickle_by_another_name(place: Path) -> None:
    (place / "model.safetensors").write_bytes(pickle.dumps(Bomb(place.parent / CANARY)))


def own_model_code(place: Path) -> None:
    """Write a config that names a class to be imported from the folder."""
    (place / "modeling_evil.py").write_text(CODE.format(canary=str(place.parent / CANARY)))
    auto = {"AutoConfig": "modeling_evil.Config", "AutoModel": "modeling_evil.Model"}
    (place / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto, **SIZES}))


def own_tokenizer_code(place: Path) -> None:
    (place / "tokenization_evil.py").write_text(CODE.format(canary=str(place.parent / CANARY)))
    auto = {"AutoTokenizer": ["tokenization_evil.Slow", "tokenization_evil.Fast"]}
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": auto}))


def no_tokenizer(place: Path) -> None:
    weights(place)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (place / name).unlink()


def broken_tokenizer(place: Path) -> None:
    (place / "tokenizer.json").write_text('{"version": "1.0", "model": {')


def broken_config(place: Path) -> None:
    (place / "config.json").write_text("{")


CASES = (
    Case(
        "a BERT folder without weights",
        bert(),
        r"model\.pretrained=bert: no encoder .*no file named model\.safetensors.*Name a folder",
    ),
    Case(
        "a BERT folder without a tokenizer",
        bert(no_tokenizer),
        r"bert holds no usable tokenizer \(it has no vocabulary\); name another model",
    ),
    Case(
        "a BERT folder with half a tokenizer",
        bert(weights, broken_tokenizer),
        r"bert holds no usable tokenizer \(.*\); name another model",
    ),
    Case(
        "a BERT folder with half a config",
        bert(weights, broken_config),
        r"bert holds no usable tokenizer \(.*config\.json.*\); name another model",
    ),
    Case(
        "BERT's weights cut short",
        bert(weights, cut),
        r"model\.pretrained=bert: no encoder .*deserializing header.*Name a folder",
    ),
    Case(
        "weights of another model",
        bert(others),
        r"model\.pretrained=bert: the weights in bert lack 21 of the encoder's tensors .*another model",
    ),
    Case(
        "a pickle of weights with code in it",
        bert(pickled),
        r"model\.pretrained=bert: no encoder .*a pickle of more than tensors, which was not run.*Name a folder",
    ),
    Case(
        "a bare pickle with code in it",
        bert(bare_pickle),
        r"model\.pretrained=bert: no encoder .*a pickle of more than tensors, which was not run.*Name a folder",
    ),
    Case(
        "a pickle that calls itself safetensors",
        bert(pickle_by_another_name),
        r"model\.pretrained=bert: no encoder .*deserializing header.*Name a folder",
    ),
    Case(
        "a model with code of its own",
        bert(own_model_code),
        r"model\.pretrained=bert: no encoder .*custom code.*Name a folder",
    ),
    Case(
        "a tokenizer with code of its own",
        bert(weights, own_tokenizer_code),
        r"bert holds no usable tokenizer \(.*\); name another model",
    ),
    Case(
        "an empty folder for BERT",
        lambda folder: [*bert()(folder)[:-1], "model.pretrained=data"],
        r"data holds no usable tokenizer \(.*\); name another model",
    ),
    Case(
        "no folder for BERT",
        lambda folder: [*bert()(folder)[:-1], "model.pretrained=../nowhere"],
        r"Pretrained model \.\./nowhere: no such folder; give an existing folder",
    ),
    Case(
        "a name of BERT's with a line break",
        lambda folder: [*bert()(folder)[:-1], "model.pretrained='a\nb'"],
        r"Pretrained model a\\nb is neither a folder nor in the Hugging Face cache.*name a folder",
    ),
)
