"""Which dimension of an activation the examples are in."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropattack import FGM, INPUT, PGD, DropAttack, FreeLB
from tests.regularizers.by_hand import assert_close, taken, weights

IDS, Y = torch.tensor([[3, 1, 3, 0, 4], [2, 2, 9, 5, 0], [7, 8, 5, 0, 0]]), torch.tensor([0, 2, 1])


class Reader(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 6, padding_idx=0)
        self.rnn = nn.GRU(6, 6, batch_first=batch_first)
        self.out = nn.Linear(6, 3)
        self.batch_first = batch_first
        self.double()

    def forward(self, ids):
        states, _ = self.rnn(self.embed(ids if self.batch_first else ids.t()))
        return self.out(states.mean(1 if self.batch_first else 0))


METHODS = {
    "fgm": lambda m, **k: FGM(m, "embed", **k),
    "pgd": lambda m, **k: PGD(m, "embed", epsilon=0.5, **k),
    "freelb": lambda m, **k: FreeLB(m, "embed.weight", init=0.0, epsilon=0.2, **k),
    "dropattack": lambda m, **k: DropAttack(m, "embed", epsilon=0.1, p=1.0, steps=2, relative=True, **k),
    "joint": lambda m, **k: DropAttack(m, ["embed", "out.weight"], p=1.0, grouping="joint", projection="l2", **k),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
def test_time_first_is_batch_first(make):
    found = []
    for batch_first in (True, False):
        model = Reader(batch_first)
        make(model, **({} if batch_first else {"batch_dim": 1})).backward(
            lambda model=model: F.cross_entropy(model(IDS), Y)
        )
        found.append(taken(weights(model)))
    assert_close(*found)


def test_starts_keep_off_the_padding_and_inside_their_radius():
    model, seen = Reader(batch_first=False), []
    model.rnn.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    FreeLB(model, "embed", steps=1, init=0.5, batch_dim=1).backward(lambda: F.cross_entropy(model(IDS), Y))
    delta = seen[0] - model.embed(IDS.t()).detach()
    assert not delta[IDS.t() == 0].any()
    assert (delta.norm(dim=(0, 2)) <= 0.5).all()


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
def test_a_model_that_takes_sequences_first_asks(make):
    model = Reader(batch_first=False)
    with pytest.raises(RuntimeError, match=r"'embed' has the shape \(5, 3, 6\), and 'rnn' takes .* batch_dim=1"):
        make(model).backward(lambda: F.cross_entropy(model(IDS), Y))
    make(model, batch_dim=0).backward(lambda: F.cross_entropy(model(IDS), Y))


def test_images_and_vectors_of_such_a_model_do_not_ask():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Unflatten(1, (2, 3)), nn.LSTM(3, 3))
    x = torch.randn(3, 3, 2, 2)
    for name in (INPUT, "1"):
        FGM(model, name).backward(lambda: model(x)[0].square().mean())


def test_a_batch_dim_that_the_activation_does_not_have():
    model = Reader(True)
    for batch_dim in (3, -4):
        with pytest.raises(
            RuntimeError, match=rf"'embed' has the shape \(3, 5, 6\), which has no .* batch_dim={batch_dim}"
        ):
            FGM(model, "embed", batch_dim=batch_dim).backward(lambda: F.cross_entropy(model(IDS), Y))
