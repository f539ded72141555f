"""DropAttack's `mode="notebook"` against a transcription of the authors' step, and what theirs gives on a CPU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.authors_step import exact_step, notebook_step
from tests.regularizers.networks import NETWORKS
from tests.regularizers.oracles import Landscape, spread
from tests.regularizers.test_oracles import Method, error, label, library, recorded

RNNS = NETWORKS[:2]
EPSILON = 0.7


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: w.grad for name, w in model.named_parameters()}


def dropattack(model: nn.Module, network, batch, targets, **kwargs):
    """One call of the library on a copy of the model: its gradient, losses and the masks that it drew, by target."""
    model = copy.deepcopy(model)
    reg = library(Method("DropAttack", {"epsilon": EPSILON, **kwargs}), model, targets, seed=5)
    with recorded() as draws:
        losses = reg.backward(lambda: network.forward(model, batch))
    land = Landscape(network, model, batch, targets)
    if kwargs["p"] == 1:
        draws = []
        masks = {name: torch.ones_like(w) for name, w in land.theta.items()}
    else:
        masks = {n: spread(land, n, m, land.theta[n].detach()) for n, m in zip(targets, draws, strict=True)}
    return gradients(model), losses, masks


@pytest.mark.parametrize("p", [1.0, 0.5])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("network", RNNS, ids=label)
def test_notebook_mode_is_the_authors_step(network, steps, p):
    model, batch, targets = network.build(), network.batch(), network.weights
    found, losses, masks = dropattack(model, network, batch, targets, steps=steps, p=p, mode="notebook")
    theirs = exact_step(
        model,
        lambda: network.forward(model, batch).loss,
        targets,
        epsilon=EPSILON,
        steps=steps,
        draw=lambda name, weight: masks[name],
    )
    assert error(found, gradients(model)) <= 1e-10
    torch.testing.assert_close(losses.clean, theirs[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(losses.total, sum(theirs), rtol=1e-10, atol=0)


@pytest.mark.parametrize("network", RNNS, ids=label)
def test_modes_agree_at_one_step_and_differ_at_three(network):
    model, batch, targets = network.build(), network.batch(), network.weights
    for steps in (1, 3):
        paper, notebook = (
            dropattack(model, network, batch, targets, steps=steps, p=0.5, mode=mode)[0]
            for mode in ("paper", "notebook")
        )
        assert (error(notebook, paper) <= 1e-10) == (steps == 1)


class Padded(nn.Module):
    """Embedding → RNN → linear, the notebooks' classifier; padded, so that float32 LSTMs take the oneDNN path."""

    def __init__(self, cell: type[nn.RNNBase]):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.rnn = cell(16, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[0][:, -1])


@pytest.mark.parametrize(
    ("cell", "dtype"), [(nn.LSTM, torch.float64), (nn.GRU, torch.float64), (nn.GRU, torch.float32)], ids=str
)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_authors_last_backward_is_wrong_upstream_of_an_attacked_rnn_weight(cell, dtype, steps):
    """Losses are exact, and so is attacking the embedding alone; with the RNN's matrix the embedding's gradient is not.

    Not a promise of ours: it is why a CPU run of the notebooks is no reference. If torch changes what its CPU kernels
    save for backward, this test says so, and the method card has to follow.
    """
    torch.manual_seed(0)
    theirs = Padded(cell).to(dtype)
    ids, labels = torch.randint(0, 50, (8, 12)), torch.randint(0, 3, (8,))
    noise = 1e-3 if dtype == torch.float32 else 1e-10
    for targets, exact in ((["embed.weight"], True), (["embed.weight", "rnn.weight_ih_l0"], False)):
        ours = copy.deepcopy(theirs)
        losses = []
        for step, model in ((notebook_step, theirs), (exact_step, ours)):
            model.zero_grad()
            losses.append(
                step(
                    model,
                    lambda model=model: F.cross_entropy(model(ids), labels),
                    targets,
                    epsilon=5.0,
                    steps=steps,
                    draw=lambda name, weight: torch.ones_like(weight),
                )
            )
        torch.testing.assert_close(torch.stack(losses[0]), torch.stack(losses[1]))
        found, wanted = theirs.embed.weight.grad, ours.embed.weight.grad
        relative = float((found - wanted).norm() / wanted.norm())
        assert relative <= noise if exact else relative > 0.05
        torch.testing.assert_close(theirs.head.weight.grad, ours.head.weight.grad)  # downstream: exact


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU], ids=str)
@pytest.mark.parametrize("attacked", ["rnn.weight_ih_l0", "rnn.weight_hh_l0"])
def test_an_attacked_recurrent_matrix_has_the_rnn_itself_upstream(cell, attacked):
    """The method card tells `weight_ih` from `weight_hh`, through which earlier time steps go."""
    torch.manual_seed(0)
    theirs = Padded(cell).double()
    ours = copy.deepcopy(theirs)
    ids, labels = torch.randint(0, 50, (8, 12)), torch.randint(0, 3, (8,))
    for step, model in ((notebook_step, theirs), (exact_step, ours)):
        step(
            model,
            lambda model=model: F.cross_entropy(model(ids), labels),
            ["embed.weight", attacked],
            epsilon=5.0,
            steps=1,
            draw=lambda name, weight: torch.ones_like(weight),
        )
    for (name, found), wanted in zip(theirs.rnn.named_parameters(), ours.rnn.parameters(), strict=True):
        relative = float((found.grad - wanted.grad).norm() / wanted.grad.norm())
        assert (relative > 0.05) == (attacked == "rnn.weight_hh_l0"), name
