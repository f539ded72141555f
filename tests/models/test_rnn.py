"""The padded RNN equals the packed one: same logits, gradients and weights."""

import pytest
import torch
from torch import nn

from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.rnn import RNNClassifier, _flip_index

SHAPES = [(cell, layers, both) for cell in ("lstm", "gru") for layers in (1, 2, 3) for both in (False, True)]
every_shape = pytest.mark.parametrize(("cell", "layers", "both"), SHAPES)


def build(spec, cell="lstm", layers=1, both=False, **options) -> RNNClassifier:
    torch.manual_seed(0)
    options = {"hidden_size": 5, "embedding_size": 4, "embedding_std": 1.0} | options
    return RNNClassifier(spec=spec, cell=cell, layers=layers, bidirectional=both, **options)


def run(model, ids, lengths, packed):
    """Return logits, and the gradients of a loss that weights every logit differently."""
    model.packed = packed
    model.zero_grad()
    logits = model(ids, lengths)
    (logits * torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@every_shape
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_padded_equals_packed(text_spec, ragged, cell, layers, both, dtype, tolerance):
    model = build(text_spec, cell, layers, both).to(dtype)
    padded, padded_grads = run(model, *ragged, packed=False)
    packed, packed_grads = run(model, *ragged, packed=True)
    torch.testing.assert_close(padded, packed, atol=tolerance, rtol=0)
    for name, grad in packed_grads.items():
        torch.testing.assert_close(padded_grads[name], grad, atol=10 * tolerance, rtol=0, msg=name)


@every_shape
def test_equals_each_row_alone(text_spec, ragged, cell, layers, both):
    """Compared with plain `nn.LSTM` and `nn.GRU` on one unpadded row at a time: the state after the last token."""
    model = build(text_spec, cell, layers, both).double()
    ids, lengths = ragged
    expected = []
    for row, length in zip(ids, lengths.tolist(), strict=True):
        _, state = model.rnn(model.embed(row[:length])[None])
        h = state[0] if cell == "lstm" else state
        expected.append(model.head(h[-1 - both :, 0].flatten()))
    for packed in (False, True):
        model.packed = packed
        torch.testing.assert_close(model(ids, lengths), torch.stack(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("cell", "layers", "both"), [("lstm", 1, False), ("gru", 1, True), ("lstm", 2, True)])
def test_max_pooling_equals_each_row_alone(text_spec, ragged, cell, layers, both):
    """Compared with the largest state over time of plain `nn.LSTM` and `nn.GRU`, one unpadded row at a time."""
    model = build(text_spec, cell, layers, both, pooling="max").double()
    ids, lengths = ragged
    states = [model.rnn(model.embed(row[:n])[None])[0][0] for row, n in zip(ids, lengths.tolist(), strict=True)]
    expected = model.head(torch.stack([state.amax(dim=0) for state in states]))
    grads = {}
    for packed in (False, True):
        logits, grads[packed] = run(model, ids, lengths, packed)
        torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)
    for name, grad in grads[True].items():
        torch.testing.assert_close(grads[False][name], grad, atol=1e-11, rtol=0, msg=name)


@every_shape
@pytest.mark.parametrize("packed", [False, True])
def test_padding_never_matters(text_spec, ragged, cell, layers, both, packed):
    model = build(text_spec, cell, layers, both, packed=packed).double()
    ids, lengths = ragged
    wider = torch.cat([ids, torch.zeros(len(ids), 5, dtype=ids.dtype)], dim=1)
    noisy = wider.where(torch.arange(wider.shape[1]) < lengths[:, None], 19)
    logits = model(ids, lengths)
    torch.testing.assert_close(model(wider, lengths), logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(model(noisy, lengths), logits, atol=1e-12, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_row_is_read_as_its_first_token(text_spec, packed):
    model = build(text_spec, both=True, packed=packed)
    ids = torch.zeros(2, 3, dtype=torch.long)
    logits = model(ids, torch.tensor([0, 1]))
    torch.testing.assert_close(logits[0], logits[1])


def test_flip_index_is_its_own_inverse_and_leaves_padding():
    index = _flip_index(torch.tensor([3, 1, 4]), 4)
    assert index.view(3, 4).tolist() == [[2, 1, 0, 3], [4, 5, 6, 7], [11, 10, 9, 8]]
    assert torch.equal(index[index], torch.arange(12))


@every_shape
@pytest.mark.parametrize("packed", [False, True])
def test_weights_changed_in_place_are_the_weights_used(text_spec, ragged, cell, layers, both, packed):
    """Attacks write through `.data`: nothing may keep a copy, and the flat weight list must keep these tensors."""
    model = build(text_spec, cell, layers, both, packed=packed)
    before = model(*ragged)
    for name, weight in model.rnn.named_parameters():
        saved = weight.detach().clone()
        weight.data.add_(0.5)
        assert not torch.allclose(model(*ragged), before), name
        weight.data.copy_(saved)
        assert torch.equal(model(*ragged), before), name
    assert all(flat is getattr(model.rnn, n) for flat, n in zip(model.rnn._flat_weights, names(model), strict=True))


def names(model) -> list[str]:
    return [name for layer in model.rnn._all_weights for name in layer]


@every_shape
def test_state_dict_is_torchs_own(text_spec, cell, layers, both):
    model = build(text_spec, cell, layers, both)
    plain = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](4, 5, num_layers=layers, bidirectional=both, batch_first=True)
    plain.load_state_dict(model.rnn.state_dict())
    assert {n.split(".")[0] for n, _ in model.named_parameters()} == {"embed", "rnn", "head"}


@pytest.mark.parametrize("packed", [False, True])
@every_shape
def test_dropout_acts_in_training_alone(text_spec, ragged, cell, layers, both, packed):
    model = build(text_spec, cell, layers, both, packed=packed, dropout=0.5)
    assert not torch.equal(model(*ragged), model(*ragged))
    model.eval()
    assert torch.equal(model(*ragged), model(*ragged))


@pytest.mark.parametrize("both", [False, True])
def test_dropout_between_layers_packed(text_spec, ragged, both):
    model = build(text_spec, layers=2, both=both, packed=True, dropout=0.5)
    model.dropout.eval()  # embeddings and head: what is left is torch's own, between the layers
    assert not torch.equal(model(*ragged), model(*ragged))


def test_dropout_between_layers_padded(text_spec, ragged):
    model, seen = build(text_spec, layers=2, both=True, packed=False, dropout=0.5), []
    model.dropout.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    model(*ragged)
    assert seen == [(6, 7, 4), (6, 7, 10), (6, 10)], "embeddings, layer 0, last states"


def test_start(text_spec):
    big = DataSpec("text", 2, tuple(map(str, range(2000))), padding_id=0)
    model = build(big, embedding_std=0.1)
    assert model.embed.weight[1:].std().item() == pytest.approx(0.1, rel=0.05)
    assert not model.embed.weight[0].any()
    again, packed = build(text_spec), build(text_spec, packed=True)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), packed.parameters(), strict=True))


def test_vectors_fill_the_rows_that_were_found(text_spec):
    vectors = torch.arange(80.0).view(20, 4)
    found = torch.arange(20) % 2 == 1
    model, random = build(text_spec, vectors=vectors, found=found), build(text_spec)
    assert torch.equal(model.embed.weight[found], vectors[found])
    assert torch.equal(model.embed.weight[~found], random.embed.weight[~found])
    assert torch.equal(model.head.weight, random.head.weight), "the same seed starts the same, with or without GloVe"
    everywhere = build(text_spec, vectors=vectors)
    assert torch.equal(everywhere.embed.weight[1:], vectors[1:])
    assert not everywhere.embed.weight[0].any(), "the padding row stays zero"
    assert model.embed.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cell": "rnn"}, "lstm, gru"),
        ({"pooling": "mean"}, "last, max"),
        ({"vectors": torch.zeros(20, 50)}, "model.embedding_size=50"),
        ({"vectors": torch.zeros(19, 4)}, r"\[19, 4\]"),
    ],
)
def test_errors(text_spec, options, said):
    with pytest.raises(UserError, match=said):
        build(text_spec, **options)


def test_images_are_refused(image_spec):
    with pytest.raises(UserError, match="model=cnn"):
        build(image_spec(28))


@pytest.mark.gpu
@every_shape
def test_gpu_agrees_and_its_weights_stay_flat(text_spec, ragged, cell, layers, both):
    model = build(text_spec, cell, layers, both)
    expected = model(*ragged)
    model.cuda()
    for packed in (None, True, *([] if both else [False])):
        model.packed = packed
        torch.testing.assert_close(model(*(t.cuda() for t in ragged)).cpu(), expected, atol=1e-3, rtol=1e-3)
    storages = {p.untyped_storage().data_ptr() for p in model.rnn.parameters()}
    assert len(storages) == 1, "one cuDNN buffer"
