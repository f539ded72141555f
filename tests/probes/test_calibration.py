"""Calibration against a hand-computed example, torchmetrics and scikit-learn."""

import pytest
import torch
import torch.nn.functional as F

from dropattack.probes.calibration import brier_score, calibration, expected_calibration_error


def test_equals_hand_computed_example():
    # Two bins: (0.5, 1] has confidences 0.9, 0.8, 0.6 with two hits; (0, 0.5] has 0.5 with none.
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.3, 0.2]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1])
    expected = 3 / 4 * abs(2 / 3 - 2.3 / 3) + 1 / 4 * abs(0 - 0.5)
    assert expected_calibration_error(p, labels, bins=2) == pytest.approx(expected)
    brier = (0.01 + 0.01) + (0.04 + 0.04) + (0.36 + 0.16 + 1.0) + (0.25 + 0.49 + 0.04)
    assert brier_score(p, labels) == pytest.approx(brier / 4)


def test_extreme_values():
    sure = F.one_hot(torch.tensor([0, 1, 1]), 2).double()
    assert expected_calibration_error(sure, torch.tensor([0, 1, 1])) == 0
    assert expected_calibration_error(sure, torch.tensor([1, 0, 0])) == 1
    assert brier_score(sure, torch.tensor([1, 0, 0])) == 2


def test_agrees_with_torchmetrics_and_sklearn():
    generator = torch.Generator().manual_seed(0)
    p = (3 * torch.randn(500, 4, generator=generator)).softmax(-1)
    labels = torch.randint(4, (500,), generator=generator)
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    theirs = metrics.multiclass_calibration_error(p, labels, num_classes=4, n_bins=15, norm="l1")
    assert expected_calibration_error(p.double(), labels) == pytest.approx(float(theirs), abs=1e-6)
    mean_squares = sum(((p[:, c] - (labels == c).float()) ** 2).mean() for c in range(4))
    assert brier_score(p.double(), labels) == pytest.approx(float(mean_squares), rel=1e-6)


def test_restored_run(restored):
    found = calibration(restored.model, restored.batches("test"), restored.batches("train"))
    assert found["accuracy"] == pytest.approx(restored.record["test"]["accuracy"])
    assert found["nll"] == pytest.approx(restored.record["test"]["loss"], rel=1e-5)
    assert found["gap_accuracy"] == pytest.approx(found["train_accuracy"] - found["accuracy"])
    assert found["gap_loss"] == pytest.approx(found["nll"] - found["train_loss"])
