"""Attacks and corruptions: more harm with more strength, within bounds, and the same for every model."""

import pytest
import torch

from dropattack.data.types import DataSpec, TensorSplit
from dropattack.probes.corruptions import IMAGE, TEXT, corrupted_image, corrupted_text
from dropattack.probes.robustness import Pixels, attack_accuracy, robustness


@pytest.fixture(scope="module")
def pixels(restored):
    split = restored.split("test")
    return [(split.inputs.float() / 255, split.labels)], Pixels(restored.model, restored.mean, restored.std).eval()


def test_wrapped_model_normalises_pixels_like_the_loader(restored, pixels):
    batches, model = pixels
    (given,) = restored.batches("test", size=1000)
    torch.testing.assert_close(model(batches[0][0]), restored.model(given.inputs["pixels"]), rtol=1e-4, atol=1e-5)


def test_accuracy_falls_with_epsilon_and_pgd_is_stronger(pixels):
    batches, model = pixels
    epsilons = [0.0, 0.03, 0.1, 0.3]
    fgsm = attack_accuracy(model, batches, "fgsm", epsilons)
    pgd = attack_accuracy(model, batches, "pgd", epsilons, steps=10)
    clean = float((model(batches[0][0]).argmax(-1) == batches[0][1]).float().mean())
    for found in (fgsm, pgd):
        assert found["0"] == pytest.approx(clean)
        assert found["0"] > found["0.03"] > found["0.1"] > found["0.3"]
    assert pgd["0.1"] <= fgsm["0.1"]
    assert pgd == attack_accuracy(model, batches, "pgd", epsilons, steps=10)  # seeded
    with pytest.raises(ValueError, match="attacks: fgsm, pgd"):
        attack_accuracy(model, batches, "bim", epsilons)


def test_robustness_leaves_the_global_generator_unchanged(restored):
    state = torch.get_rng_state()
    found = robustness(restored, rows=30, epsilons=[0.1], steps=2)
    assert torch.equal(state, torch.get_rng_state())
    assert set(found) == {"clean", "fgsm", "pgd", *IMAGE}
    assert set(found["pgd"]) == {"0.1"}
    assert found == robustness(restored, rows=30, epsilons=[0.1], steps=2)


@pytest.mark.parametrize("kind", IMAGE)
def test_corrupted_images_stay_in_range_and_worsen_with_severity(kind):
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    spoilt = [corrupted_image(x, kind, severity) for severity in IMAGE[kind]]
    assert all(s.shape == x.shape and s.min() >= 0 and s.max() <= 1 for s in spoilt)
    changes = [float((s - x).norm()) for s in spoilt]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert torch.equal(spoilt[0], corrupted_image(x, kind, IMAGE[kind][0]))


def test_unknown_corruptions_are_named(restored):
    with pytest.raises(ValueError, match="no corruption 'fog'"):
        corrupted_image(torch.rand(1, 1, 8, 8), "fog", 1.0)
    with pytest.raises(ValueError, match="no corruption 'word_drop' for this data"):
        corrupted_text(restored.split("test"), restored.encoded.spec, "word_drop", 0.1)


@pytest.fixture
def text():
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(40)))
    lengths = torch.tensor([3, 12, 40])
    ids = torch.zeros(3, 42, dtype=torch.int32)
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.arange(4, 4 + length, dtype=torch.int32)
        ids[row, 0], ids[row, length - 1] = 2, 3
    return TensorSplit(ids, torch.zeros(3, dtype=torch.int64), lengths), DataSpec("text", 2, words, padding_id=0)


@pytest.mark.parametrize("kind", TEXT)
def test_corrupted_texts_keep_special_tokens_and_padding(text, kind):
    split, spec = text
    for rate in (0.0, 0.5, 1.0):
        spoilt = corrupted_text(split, spec, kind, rate)
        for ids, length, before in zip(spoilt.inputs, spoilt.lengths, split.inputs, strict=True):
            own = ids[:length].tolist()
            assert own[0] == 2
            assert own[-1] == 3
            assert (ids[length:] == 0).all()
            assert set(own) <= set(before.tolist())
            assert len(own) >= 3  # one word remains
        if rate == 0:
            assert torch.equal(spoilt.inputs, split.inputs)
        again = corrupted_text(split, spec, kind, rate)
        assert torch.equal(spoilt.inputs, again.inputs)


def test_rates_are_met(text):
    _, spec = text
    ids = torch.arange(4, 44, dtype=torch.int32).repeat(200, 1)
    split = TensorSplit(ids, torch.zeros(200, dtype=torch.int64), torch.full((200,), 40))
    dropped = corrupted_text(split, spec, "word_drop", 0.3)
    assert float(dropped.lengths.float().mean()) == pytest.approx(40 * 0.7, rel=0.03)
    swapped = corrupted_text(split, spec, "word_swap", 1.0)
    assert swapped.inputs[0, :4].tolist() == [5, 4, 7, 6]  # each at most once
    assert torch.equal(swapped.inputs.sort(1).values, ids)
