"""A user's own models: any classifier of transformers, and networks of torchvision and timm."""

import os

import pytest
import torch

from dropattack import FGM
from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.vision import Timm, Torchvision
from dropattack.runs import cli, experiment, identity, record
from dropattack.runs.config import compose
from tests.data.makers import WORDS, texts, write_table
from tests.models.tiny_encoders import tiny

pytest.importorskip("transformers")
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from dropattack.models.hf import HFClassifier

HIDDEN = {  # the weight that `hidden` is in each family
    "bert": "network.bert.encoder.layer.0.attention.self.query.weight",
    "distilbert": "network.distilbert.transformer.layer.0.attention.q_lin.weight",
    "roberta": "network.roberta.encoder.layer.0.attention.self.query.weight",
    "albert": "network.albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight",
    "deberta-v2": "network.deberta.encoder.layer.0.attention.self.query_proj.weight",
    "gpt2": "network.transformer.h.0.attn.c_attn.weight",
}


def save_tokenizer(folder) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)


@pytest.fixture
def spec() -> DataSpec:
    return DataSpec("text", 3, tuple(f"word{i}" for i in range(20)), padding_id=0)


@pytest.mark.parametrize("family", [  # the differences between families: the next test
    pytest.param(name, marks=() if name in ("bert", "gpt2") else pytest.mark.slow) for name in HIDDEN
])  # fmt: skip
def test_a_smoke_run_on_a_user_s_own_data_and_model_touches_no_file_of_the_package(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = texts(60)
    label = ["good" if one else "bad" for one in split.labels]
    write_table(tmp_path / "own.csv", {"review": split.texts, "second": texts(60, seed=2).texts, "mark": label})
    tiny(family).save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    columns = ["text_column=review", "label_column=mark", "text_pair_column=second", "metrics=[f1,matthews]"]
    config = compose(experiment.CONF, [
        "dataset=csv", "dataset.path=own.csv", *(f"dataset.{column}" for column in columns), "model=hf",
        "model.pretrained=model", "reg=dropattack", "scale=smoke", "tracker=none", "trainer.device=cpu",
        "trainer.progress=none", "trainer.max_steps=2",
    ])  # fmt: skip
    written = record.read(experiment.run(config))
    assert written["status"] == "finished"
    assert written["data"]["notes"]["labels"] == ["bad", "good"]
    assert written["config"]["model"]["content"] is not None
    assert {"f1", "matthews"} <= written["test"].keys() & written["validation"].keys()
    assert written["passes_per_step"] == 3


@pytest.mark.parametrize("family", HIDDEN)
def test_attack_points_and_weights_are_those_of_the_folder(family, spec, tmp_path, ragged):
    tiny(family).save_pretrained(tmp_path)
    model, (ids, lengths) = HFClassifier(spec=spec, pretrained=str(tmp_path)), ragged
    assert model.aliases["hidden"] == HIDDEN[family]
    parameters = dict(model.named_parameters())
    assert parameters[model.aliases["input"]] is model.network.get_input_embeddings().weight
    saved = tiny(family).state_dict()
    own = {
        name.removeprefix(model.network.base_model_prefix + "."): p for name, p in model.network.state_dict().items()
    }
    same = [name for name in saved if name in own and torch.equal(saved[name], own[name])]
    assert len(same) >= len(saved) - 2, "all but a pooler"
    ids = ids.clamp(min=5).where(ids > 0, 0)
    FGM(model, list(model.aliases.values()), epsilon=0.1).backward(
        lambda: torch.nn.functional.cross_entropy(model(ids, lengths), torch.arange(6) % 3)
    )
    assert all(parameters[name].grad.abs().max() > 0 for name in model.aliases.values())


def test_a_fine_tuned_head_is_kept_if_its_classes_fit(spec, tmp_path):
    base = tiny("bert").config
    base.num_labels = 3
    AutoModelForSequenceClassification.from_config(base).save_pretrained(tmp_path)
    heads = [HFClassifier(spec=spec, pretrained=str(tmp_path)).network.classifier.weight for _ in range(2)]
    assert torch.equal(*heads)
    other = DataSpec("text", 5, spec.vocabulary, padding_id=0)
    assert HFClassifier(spec=other, pretrained=str(tmp_path)).network.classifier.out_features == 5


def test_what_an_own_text_model_refuses(spec, tmp_path):
    tiny("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="knows 40: set"):
        HFClassifier(spec=DataSpec("text", 2, tuple(map(str, range(41))), padding_id=0), pretrained=str(tmp_path))
    with pytest.raises(UserError, match="sdpa or eager"):
        HFClassifier(spec=spec, pretrained=str(tmp_path), attn_implementation="fast")
    with pytest.raises(UserError, match="needs a pretrained model"):
        HFClassifier(spec=spec, pretrained=None)
    with pytest.raises(UserError, match="holds images"):
        HFClassifier(spec=DataSpec("image", 2, image_shape=(1, 8, 8)))
    with pytest.raises(UserError, match="max_length=64"):
        HFClassifier(spec=spec, pretrained=str(tmp_path))(torch.ones(1, 65, dtype=torch.long), torch.tensor([65]))


def test_segments_of_a_pair_reach_the_model(tmp_path):
    tiny("bert").save_pretrained(tmp_path)
    ids, lengths = torch.tensor([[2, 5, 3, 6, 3]]), torch.tensor([5])
    logits = []
    for separator in (None, 3):
        torch.manual_seed(0)
        spec = DataSpec("text", 2, tuple(map(str, range(20))), padding_id=0, separator_id=separator)
        model = HFClassifier(spec=spec, pretrained=str(tmp_path)).eval()
        logits.append(model(ids, lengths))
        if separator is not None:
            wanted = model.network(input_ids=ids, token_type_ids=torch.tensor([[0, 0, 0, 1, 1]])).logits
            assert torch.allclose(logits[-1], wanted, atol=1e-6)
    assert not torch.allclose(*logits)


@pytest.mark.parametrize(
    ("arch", "shape", "hidden"),
    [
        ("resnet18", (3, 32, 32), "layer4.1.conv2"),
        ("mobilenet_v3_small", (1, 8, 8), "classifier.0"),
        ("squeezenet1_1", (4, 32, 32), "features.12.expand3x3"),
    ],
)
def test_networks_of_torchvision(arch, shape, hidden):
    model = Torchvision(spec=DataSpec("image", 5, image_shape=shape), arch=arch, dropout=0.5)
    assert model.training
    assert model.aliases == {"hidden": f"network.{hidden}.weight"}
    assert model(torch.randn(3, *shape)).shape == (3, 5)
    model(torch.randn(3, *shape)).logsumexp(1).sum().backward()
    assert dict(model.named_parameters())[model.aliases["hidden"]].grad.abs().max() > 0
    pixels = torch.randn(3, *shape)
    assert not torch.equal(model(pixels), model(pixels)), "dropout before the head"


def test_trying_a_network_leaves_random_numbers_and_buffers_alone():
    torch.manual_seed(0)
    spec = DataSpec("image", 2, image_shape=(3, 8, 8))
    model, first = Torchvision(spec=spec), torch.rand(1)
    assert all(not buffer.any() for name, buffer in model.named_buffers() if name.endswith("running_mean"))
    torch.manual_seed(0)
    again, second = Torchvision(spec=spec), torch.rand(1)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_what_torchvision_refuses():
    spec = DataSpec("image", 2, image_shape=(3, 8, 8))
    with pytest.raises(UserError, match="torchvision has IMAGENET1K_V1 for resnet18, and DEFAULT"):
        Torchvision(spec=spec, weights="V7")
    with pytest.raises(UserError, match="reads images"):
        Torchvision(spec=DataSpec("text", 2, ("a",), padding_id=0))


def test_timm(monkeypatch):
    spec = DataSpec("image", 4, image_shape=(1, 32, 32))
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install timm"):
            Timm(spec=spec)
        return
    model = Timm(spec=spec, arch="resnet18", dropout=0.1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert model.aliases == {"hidden": "network.layer4.1.conv2.weight"}
    with pytest.raises(UserError, match="not a network of timm; it has"):
        Timm(spec=spec, arch="resnet19")


def test_pretrained_weights_without_a_network(monkeypatch, tmp_path):
    from dropattack.models import vision

    monkeypatch.setattr(vision, "reachable", lambda url: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="does not answer"):
        Torchvision(spec=DataSpec("image", 2, image_shape=(3, 8, 8)), weights="DEFAULT")


def test_an_own_model_is_identified_by_its_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = []
    for place, content in (("a", "1"), ("b", "1"), ("a", "2")):
        os.makedirs(place, exist_ok=True)
        (tmp_path / place / "config.json").write_text(content)
        overrides = ["dataset=imdb", "model=hf", f"model.pretrained={tmp_path / place}"]
        values = experiment.resolve(compose(cli.CONF, overrides))
        ids.append(identity.run_id(values))
        assert str(tmp_path) not in str(identity.of(values))
    assert ids[0] == ids[1] != ids[2]
