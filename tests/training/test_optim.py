"""Learning rates by hand, and what each optimizer decays."""

import pytest
import torch
from torch import nn
from toys import toy_loaders, toy_train

from dropattack.training import optim


def factors(steps: int, **options) -> list[float]:
    return [optim.rate_factor(step, steps=steps, **options) for step in range(steps)]


def test_schedules_without_warmup():
    assert factors(4) == [1, 1, 1, 1]
    assert factors(4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert factors(4, schedule="cosine") == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warmup_rises_linearly_to_the_peak_of_the_schedule(schedule):
    found = factors(10, schedule=schedule, warmup=0.3)
    assert found[:3] == [0.25, 0.5, 0.75]
    assert found[3:] == factors(7, schedule=schedule)


def test_fractional_warmup_steps_are_rounded_up():
    assert factors(5, warmup=0.25)[:3] == [1 / 3, 2 / 3, 1]


def test_each_training_step_uses_its_rate(monkeypatch):
    rates = []
    monkeypatch.setattr(optim, "set_rate", lambda optimizer, rate: rates.append(rate))
    loaders = toy_loaders()
    toy_train(loaders=loaders, epochs=2, learning_rate=0.5, schedule="linear", warmup=0.1)
    assert rates == [0.5 * factor for factor in factors(2 * len(loaders[0]), schedule="linear", warmup=0.1)]


def test_rate_is_set_in_all_parameter_groups():
    optimizer = optim.make_optimizer(nn.Linear(2, 2), "adamw", learning_rate=1.0)
    optim.set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("name", "decays_bias"), [("adam", True), ("adamw", False), ("sgd", True)])
def test_weight_decay_without_gradient(name, decays_bias):
    """AdamW's is a factor of the weights, and spares biases and norms."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
            p.grad = torch.zeros_like(p)
    optim.guarded_step(optim.make_optimizer(model, name, learning_rate=0.1, weight_decay=0.5))
    assert all(bool((p < 1).all()) == (p.ndim > 1 or decays_bias) for p in model.parameters())
    if name == "adamw":
        torch.testing.assert_close(model[0].weight, torch.full((2, 3), 1 - 0.1 * 0.5))
