"""A relative strength on an embedding is a part of the rows in use, also where the matrix is attacked whole."""

import copy

import pytest
import torch
from torch import nn

from dropattack import AWP, FGM, PGD, DropAttack, RandomAttack, Regularizer
from tests.regularizers.by_hand import assert_close, taken, weights
from tests.regularizers.test_rows import IDS, Reader, loss_of


def looked_up(model):
    model.calls = "functional"


def observed(model):
    model.embed.weight.register_hook(lambda gradient: None)


def bounded(model):
    model.embed.max_norm = 1e9


def shared(model):
    model.other = nn.Embedding(10, 6)
    model.other.weight = model.embed.weight


def compiled(model):
    model.forward = torch.compile(model.forward, backend="aot_eager")


RELATIVE = {
    "fgm": lambda m: FGM(m, "embed.weight", 0.5, relative=True),
    "fgm, linf": lambda m: FGM(m, "embed.weight", 0.5, relative=True, norm="linf"),
    "pgd": lambda m: PGD(m, ["embed.weight", "out.weight"], 0.5, 0.3, relative=True),
    "awp": lambda m: AWP(m, "embed.weight", 0.5),
    "dropattack": lambda m: DropAttack(m, "embed.weight", p=1.0, steps=2, projection="l2"),
    "randomattack": lambda m: RandomAttack(m, "embed.weight", seed=0),
}


def moved_by(reg: Regularizer, model: Reader) -> list[float]:
    """Return the length of the matrix's perturbation in each pass of a step."""
    lengths, before, loss = [], model.embed.weight.detach().clone(), loss_of(model)

    def forward():
        lengths.append(float((model.embed.weight.detach() - before).norm()))
        return loss()

    reg.backward(forward)
    return lengths


@pytest.mark.parametrize("use", [looked_up, observed, bounded, shared, compiled])
@pytest.mark.parametrize("method", RELATIVE)
def test_a_relative_strength_is_a_part_of_the_same_rows_where_the_matrix_is_attacked_whole(method, use):
    torch.manual_seed(0)
    rows = Reader(padding_idx=None if use is looked_up else 0)  # of which F.embedding knows nothing
    whole = copy.deepcopy(rows)
    use(whole)
    one, other = (moved_by(RELATIVE[method](model), model) for model in (rows, whole))
    assert one == pytest.approx(other, abs=1e-12)
    assert max(one) > 0.1
    if method != "randomattack":  # which draws another direction
        assert_close(taken(weights(rows)), taken(weights(whole)))


class Bag(nn.Module):
    """A classifier on the sum of a text's word vectors: looked up and added, or by `nn.EmbeddingBag`."""

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed, self.out = embed, nn.Linear(6, 3)
        self.double()

    def forward(self, ids):
        vectors = self.embed(ids)
        return self.out(vectors.sum(1) if vectors.dim() == 3 else vectors)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("method", sorted(set(RELATIVE) - {"randomattack"}))
def test_an_embedding_bag_is_attacked_as_the_embedding_whose_rows_it_adds_up(method, sparse):
    torch.manual_seed(0)
    rows = Bag(nn.Embedding(10, 6, padding_idx=0))
    bag = Bag(nn.EmbeddingBag(10, 6, mode="sum", padding_idx=0, sparse=sparse))
    bag.load_state_dict(rows.state_dict())
    one, other = (moved_by(RELATIVE[method](model), model) for model in (rows, bag))
    assert one == pytest.approx(other, abs=1e-12)
    assert max(one) > 0.1
    assert_close(taken(weights(rows)), taken(weights(bag)))


def test_a_relative_strength_of_a_tied_matrix_is_a_part_of_all_of_it():
    """The head's softmax gives each row a gradient, whether the batch has that word or not."""
    torch.manual_seed(0)
    model = Reader()
    model.out = nn.Linear(6, 10, bias=False).double()
    reg = FGM(model, "embed.weight", 0.5, relative=True)
    model.out.weight = model.embed.weight
    norm = float(model.embed.weight.detach().norm())
    assert moved_by(reg, model) == pytest.approx([0.0, 0.5 * norm], abs=1e-12)


def test_a_matrix_without_a_gradient_is_not_moved():
    model = Reader()
    model.out.weight.data.zero_()
    observed(model)
    reg = FGM(model, "embed.weight", relative=True)
    assert moved_by(reg, model) == [0.0, 0.0]
    assert reg.skipped == 1


def test_a_weight_that_becomes_an_embeddings_is_measured_by_its_rows():
    torch.manual_seed(0)
    model = Reader(calls="functional")
    model.head = nn.Linear(6, 10, bias=False).double()
    reg = FGM(model, "head.weight", 0.5, relative=True)
    model.embed.weight = model.head.weight
    norm = float(model.embed.weight.detach()[IDS.unique()].norm())
    assert moved_by(reg, model) == pytest.approx([0.0, 0.5 * norm], abs=1e-12)
