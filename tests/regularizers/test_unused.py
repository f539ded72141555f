"""A target, model or optimizer that has no part in the step is an error, and no plain step under the method's name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack import AWP, FGM, MSAM, PGD, RWP, SAM, DropAttack, RandomAttack


@pytest.mark.parametrize("method", [FGM, PGD, DropAttack, RandomAttack])
def test_a_weight_outside_the_forward_is_an_error_and_not_a_plain_step(model, forward, method):
    model.unused = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"'unused.weight' got no gradient: is it part of this model's forward"):
        method(model, ["embed.weight", "unused.weight"]).backward(forward)
    SAM(model).backward(forward)  # all weights, whichever take part
    assert model.unused.weight.grad is None


@pytest.mark.parametrize("make", [lambda m, t: RWP(m, t, gamma=0.5), lambda m, t: MSAM(m, t, rho=0.5)])
def test_methods_that_read_no_gradient_refuse_what_the_forward_does_not_use(make):
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y, other = torch.randn(3, 4), torch.tensor([0, 1, 2]), nn.Linear(4, 3)

    def step(targets, network):
        reg = make(model, targets)
        reg.follow(optimizer)
        for _ in range(2):
            reg.backward(lambda: F.cross_entropy(network(x), y))
            optimizer.step()
            optimizer.zero_grad()

    step("*", model["used"])
    with pytest.raises(RuntimeError, match=r"'unused.weight' got no gradient: is it part of this model's forward\?"):
        step("unused.weight", model["used"])
    with pytest.raises(RuntimeError, match="the loss depends on no trainable weight of the model"):
        step("*", other)


def test_msam_refuses_the_optimizer_of_other_weights(model, forward):
    reg = MSAM(model)
    reg.follow(torch.optim.SGD([w.detach().clone() for w in model.parameters()], 0.1, momentum=0.9))
    with pytest.raises(RuntimeError, match="the optimizer that MSAM follows steps none of its targets"):
        reg.backward(forward)


def test_awp_without_a_matrix_called_weight_is_refused():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.norm = nn.Parameter(torch.ones(3, 3)), nn.LayerNorm(3)

    with pytest.raises(ValueError, match=r"matrices called weight.*targets="):
        AWP(Named())
    assert len(AWP(Named(), "kernel").targets) == 1
    assert len(AWP(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))).targets) == 2
