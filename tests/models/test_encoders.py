"""`model.pretrained` with every family of text encoders: it works, or one sentence says why it cannot."""

import warnings

import pytest
import torch

from dropattack.data.types import DataSpec
from dropattack.errors import UserError

pytest.importorskip("transformers")
from transformers import AutoModel, ViTConfig, ViTModel, Wav2Vec2Config, Wav2Vec2Model

from dropattack import FGM, Identity
from dropattack.models import encoders
from dropattack.models.bert import Bert
from dropattack.runs.build import build_reg
from tests.models.tiny_encoders import FAMILIES, tiny

REFUSED = {
    "canine": "does not encode a short text",
    "convbert": "padding changes what a text means",
    "fnet": "padding changes what a text means",
    "funnel": "does not encode a short text",
    "mra": "no token sees another",
    "nystromformer": "padding changes what a text means",
    "yoso": "padding changes what a text means",
}
UNTRIED = {"modernvbert", "neomme", "perceiver", "ultravbert"}  # a few sizes do not make a tiny model
CAUSAL = {
    "biogpt", "bloom", "ctrl", "falcon", "gemma", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral", "mixtral",
    "modernbert-decoder", "mpt", "openai-gpt", "opt", "phi", "qwen2",
}  # fmt: skip

QUICK = {  # one of each kind of family; importing and loading all of them takes a minute
    "albert", "bert", "canine", "ctrl", "deberta-v2", "distilbert", "electra", "fnet", "gpt2", "llama", "longformer",
    "modernbert", "mpnet", "mra", "roberta", "t5", "xlnet",
}  # fmt: skip


@pytest.fixture
def spec() -> DataSpec:
    return DataSpec(kind="text", classes=3, vocabulary=tuple(f"word{i}" for i in range(20)), padding_id=0)


def saved(family: str, folder) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny(family).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES if name not in UNTRIED
])  # fmt: skip
def test_a_family(family, spec, tmp_path, ragged):
    folder = saved(family, tmp_path)
    if family in REFUSED:
        with pytest.raises(UserError, match=REFUSED[family]) as caught:
            Bert(spec=spec, pretrained=folder)
        assert family.split("_")[0] in str(caught.value)
        return
    model, (ids, lengths) = Bert(spec=spec, pretrained=folder, dropout=0.1).train(), ragged
    ids = ids.clamp(min=5).where(ids > 0, 0)  # special tokens mean more than themselves to some

    assert model._read.last == (family in CAUSAL)
    assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.1 for m in model.modules())
    points = {point: model.aliases.get(name, name) for point, name in encoders.BERT_POINTS.items()}
    attack = Identity() if family == "ctrl" else FGM(model, list(points.values()), epsilon=0.1)  # scales words in place
    attack.backward(lambda: torch.nn.functional.cross_entropy(model(ids, lengths), torch.arange(6) % 3))
    parameters = dict(model.named_parameters())
    for point, name in points.items():
        assert parameters[name].grad.abs().max() > 0, (point, name)
    assert parameters[points["input"]] is model.encoder.get_input_embeddings().weight

    model.eval()
    with torch.no_grad():
        logits = model(ids, lengths)
        assert logits.shape == (6, 3)
        assert logits.isfinite().all()
        wider = torch.cat([ids, torch.zeros(len(ids), 5, dtype=ids.dtype)], dim=1)
        noisy = wider.where(torch.arange(wider.shape[1]) < lengths[:, None], 19)
        for other in (wider, noisy):
            torch.testing.assert_close(model(other, lengths), logits, atol=1e-4, rtol=1e-4)
        changed = ids.clone()
        changed[0, 3] = 6 if ids[0, 3] != 6 else 7
        assert not torch.equal(model(changed, lengths)[0], logits[0]), "a word in the middle is read"


@pytest.mark.parametrize("made", [
    lambda: ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)),
    lambda: Wav2Vec2Model(Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=[8], conv_stride=[5],
        conv_kernel=[10], num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )),
], ids=["images", "sound"])  # fmt: skip
def test_what_reads_no_text_is_refused(spec, tmp_path, made):
    made().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not the token ids of a text"):
        Bert(spec=spec, pretrained=str(tmp_path))


@pytest.mark.parametrize("family", ["distilbert", "deberta-v2", "mpnet", "gpt2", "modernbert", "albert"])
def test_the_weights_are_those_of_the_folder(family, spec, tmp_path):
    folder = saved(family, tmp_path)
    model, wanted = Bert(spec=spec, pretrained=folder, attn_implementation="eager"), AutoModel.from_pretrained(folder)
    for name, weight in wanted.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], weight), name
    assert model.encoder.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["roberta", "mpnet", "xlm-roberta"])
def test_the_longest_text_leaves_out_the_positions_that_padding_takes(family, spec, tmp_path):
    model = Bert(spec=spec, pretrained=saved(family, tmp_path))
    most = encoders.positions(model.encoder)
    assert most < 64
    model(torch.full((1, most), 5), torch.tensor([most]))
    with pytest.raises(UserError, match=f"max_length={most}"):
        model(torch.full((1, most + 1), 5), torch.tensor([most + 1]))


def test_the_quick_families_exist():
    assert set(FAMILIES) >= QUICK


def test_trying_an_encoder_leaves_torch_s_random_numbers_alone(spec, tmp_path):
    encoder = tiny("gpt2").train()
    before = torch.get_rng_state()
    encoders.reading_of(encoder, "gpt2")
    assert torch.equal(torch.get_rng_state(), before)
    assert encoder.training


def test_a_config_s_attack_points_are_those_of_the_family(spec, tmp_path):
    model = Bert(spec=spec, pretrained=saved("distilbert", tmp_path))
    config = {
        "seed": 0,
        "model": {"name": "bert", "attack_points": encoders.BERT_POINTS},
        "reg": {
            "_target_": "dropattack.regularizers.FGM",
            "targets": ["input", "hidden", "head.weight"],
            "epsilon": 1.0,
        },
    }
    names = [target.name for target in build_reg(config, model).targets]
    assert names == [
        "encoder.embeddings.word_embeddings.weight", "encoder.transformer.layer.0.attention.q_lin.weight",
        "head.weight",
    ]  # fmt: skip
