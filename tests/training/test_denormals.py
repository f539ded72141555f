"""Moments of words not seen for long become zeros, not denormal numbers; the weights are the same."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.training import optim, seeding

TINY = torch.finfo(torch.float32).tiny


def trained(steps: int = 1_100) -> tuple[list[Tensor], Tensor]:
    """Return weights and first moments of an embedding, half of whose words only occur in the first step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(8, 4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = optim.make_optimizer(model, "adam", learning_rate=1e-3)
    for n in range(steps):
        ids = torch.tensor([[4, 5, 6, 7], [0, 1, 2, 3]] if n == 0 else [[0, 1, 2, 3], [3, 2, 1, 0]])
        F.cross_entropy(model(ids), torch.tensor([0, 1])).backward()
        optim.guarded_step(optimizer)
    return [p.detach().clone() for p in model.parameters()], optimizer.state[model[0].weight]["exp_avg"]


def test_flushing_them_changes_no_weight():
    found = {}
    for flushed in (False, True):
        torch.set_flush_denormal(flushed)
        try:
            weights, moments = trained()
        finally:
            torch.set_flush_denormal(False)
        found[flushed] = weights, int(((moments != 0) & (moments.abs() < TINY)).sum())
    assert found[False][1] > 0
    assert found[True][1] == 0
    assert all(torch.equal(one, other) for one, other in zip(found[False][0], found[True][0], strict=True))


def test_a_training_flushes_them():
    enabled = torch.are_deterministic_algorithms_enabled()
    try:
        for deterministic in (True, False):
            torch.set_flush_denormal(False)
            seeding.set_deterministic(deterministic)
            assert not (torch.full((8,), TINY) / 2).any()
    finally:
        torch.use_deterministic_algorithms(enabled)
        torch.set_flush_denormal(False)
