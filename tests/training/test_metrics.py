"""F1 and Matthews' correlation from confusions, compared with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef

from dropattack.batch import Batch
from dropattack.training import evaluate as module
from dropattack.training.evaluate import METRICS, evaluate


class Echo(torch.nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn(classes, seed):
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=40)
    predicted = np.where(rng.random(40) < 0.5, true, rng.integers(classes, size=40))
    if seed == 0:
        predicted[:] = 0  # one class only
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), classes).float()
    batch = Batch({"x": logits}, torch.from_numpy(true))
    found = evaluate(Echo(), [batch], classes=classes, metrics=list(METRICS))
    last = f1_score(true, predicted, labels=[classes - 1], average="macro", zero_division=0)
    assert found["f1"] == pytest.approx(last)
    assert found["matthews"] == pytest.approx(matthews_corrcoef(true, predicted))
    assert evaluate(Echo(), [batch], classes=classes).keys() == {"accuracy", "macro_f1", "loss"}


def test_the_rows_agree_with_the_accuracy_where_probabilities_round_to_a_tie():
    class Loader:
        def batches(self):
            return [Batch({"x": torch.tensor([[0.0, 1e-9], [1e-9, 0.0]])}, torch.tensor([1, 1]))]

        def rows(self):
            return [np.array([1, 0])]

    tested = module.test(Echo(), Loader(), classes=2)
    assert torch.equal(tested.probabilities, torch.full((2, 2), 0.5))
    assert tested.metrics["accuracy"] == 0.5
    assert tested.correct.tolist() == [False, True]
