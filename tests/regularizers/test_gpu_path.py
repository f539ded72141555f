"""The path of a GPU, where neither the number of rows nor a norm is known on the host, run on a CPU."""

import pytest
import torch

from dropattack import AWP, FGM, PGD, SAM, DropAttack
from dropattack.regularizers import functional
from dropattack.regularizers.rows import Rows
from tests.regularizers.networks import NETWORKS


@pytest.mark.parametrize("ids", [[[3, 1, 3], [2, 2, 9]], [[0, 0, 0], [0, 0, 0]], [[5]]])
def test_rows_without_waiting_are_the_rows(ids):
    ids = torch.tensor(ids).flatten()
    want, got = Rows.of(ids), Rows.without_waiting(ids)
    assert torch.equal(got.index[got.used], want.index)
    assert torch.equal(got.index[got.inverse], ids)
    gradient = torch.randn(len(ids), 4)
    torch.testing.assert_close(got.sum(gradient, 2)[got.used], want.sum(gradient, 2))
    assert not got.sum(gradient, 2)[~got.used].any()
    other = Rows.of(torch.tensor([1, 3, 7]))
    values = torch.arange(12.0).view(3, 4)
    torch.testing.assert_close(got.take(values, other)[got.used], want.take(values, other))
    assert not got.take(values, other)[~got.used].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda m: FGM(m, epsilon=0.3, relative=True),
        lambda m: PGD(m, ["embed.weight", "head.weight"], 0.3, 0.2, steps=2, relative=True, norm="linf"),
        lambda m: DropAttack(m, ["embed.weight", "embed"], p=1.0, steps=2, projection="l2"),
        SAM,
        lambda m: AWP(m, gamma=0.3),
    ],
)
def test_the_path_of_a_gpu_gives_the_same_gradient(make, monkeypatch):
    """Slots that stand for no row count as nothing, in the gradient, in its norm and in that of the target."""
    network = NETWORKS[0]
    found = []
    for gpu in (False, True):
        model, batch = network.build(), network.batch()
        with monkeypatch.context() as patch:
            if gpu:
                patch.setattr(Rows, "of", Rows.without_waiting)
                patch.setattr(functional, "is_at_hand", lambda x: False)
            make(model).backward(lambda model=model, batch=batch: network.forward(model, batch))
        found.append([p.grad for p in model.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def test_only_a_cpu_is_asked_whether_norms_are_usable():
    assert functional.all_usable(torch.tensor([1.0, 2.0]))
    for norm in (torch.tensor(0.0), torch.tensor([1.0, float("inf")]), torch.tensor(float("nan"))):
        assert not functional.all_usable(norm)
    assert not functional.all_usable(torch.ones((), device="meta"))
