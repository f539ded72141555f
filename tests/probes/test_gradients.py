"""Gradient norms against hand-written gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack.batch import Batch
from dropattack.data.types import DataSpec
from dropattack.models.rnn import RNNClassifier
from dropattack.probes.gradients import EpochProbe, gradient_norms


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(6, 3)

    def forward(self, pixels):
        return self.head(pixels.flatten(1))


def test_norms_of_a_linear_model_by_hand():
    model, x, y = Linear(), torch.randn(5, 2, 1, 3), torch.tensor([0, 1, 2, 0, 1])
    batches = [Batch({"pixels": x[:3]}, y[:3]), Batch({"pixels": x[3:]}, y[3:])]
    found = gradient_norms(model, batches, {"input": "<input>", "hidden": "head.weight"}, std=[0.5, 0.25])
    with torch.no_grad():
        error = model(x).softmax(-1) - F.one_hot(y, 3)  # ∂ℓ/∂z
        on_pixels = (error @ model.head.weight).view_as(x) / torch.tensor([0.5, 0.25]).view(2, 1, 1)
        on_weight = [error[s].T @ x[s].flatten(1) / len(y[s]) for s in (slice(0, 3), slice(3, 5))]
        on_bias = [error[s].mean(0) for s in (slice(0, 3), slice(3, 5))]
    assert found["input"]["mean"] == pytest.approx(float(on_pixels.flatten(1).norm(dim=1).mean()), rel=1e-5)
    assert found["input"]["n"] == 5
    assert found["hidden"]["mean"] == pytest.approx(float(sum(g.norm() for g in on_weight)) / 2, rel=1e-5)
    together = [(w.norm() ** 2 + b.norm() ** 2).sqrt() for w, b in zip(on_weight, on_bias, strict=True)]
    assert found["weights"]["mean"] == pytest.approx(float(sum(together)) / 2, rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_input_of_a_text_is_the_output_of_its_embedding():
    torch.manual_seed(0)
    spec = DataSpec("text", 2, tuple(f"w{i}" for i in range(9)), padding_id=0)
    model = RNNClassifier(spec=spec, hidden_size=4, embedding_size=4).train()
    ids, lengths, labels = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]), torch.tensor([0, 1])
    batch = Batch({"input_ids": ids, "lengths": lengths}, labels)
    points = {"input": "embed.weight", "hidden": "rnn.weight_ih_l0"}
    found = gradient_norms(model, [batch], points)
    norms = []
    for row in range(2):  # no word occurs twice, so an example's gradient on its rows equals that on its embeddings
        loss = F.cross_entropy(model(ids[row : row + 1], lengths[row : row + 1]), labels[row : row + 1])
        norms.append(float(torch.autograd.grad(loss, model.embed.weight)[0].norm()))
    assert found["input"]["mean"] == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert model.training  # restored


def test_epoch_probe_uses_no_random_numbers_and_current_weights():
    model, x = Linear(), torch.randn(4, 6)
    probe = EpochProbe(model, [Batch({"pixels": x}, torch.tensor([0, 1, 2, 0]))], {"input": "<input>"})
    state = torch.get_rng_state()
    before = probe()
    assert set(before) == {"input", "weights"}
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert probe()["input"] != before["input"]
