"""The plan of `make tune`: the trials of each round, and the selection of the best."""

import pytest

from dropattack.errors import UserError
from dropattack.sweeps import tuning
from dropattack.sweeps.table import Table

PLAN = tuning.Plan(
    seed=1, learning_rate="lr", rates=(1, 0.5, 2),
    strengths={"none": [{}], "fgm": [{"eps": 1.0}, {"eps": 0.3}, {"eps": 3.0}]},
)  # fmt: skip


def tried(**settings):
    accuracy, loss = settings.pop("accuracy"), settings.pop("loss", 1.0)
    return {"settings": settings, "validation_accuracy": accuracy, "validation_loss": loss}


def test_rates_first_then_strengths_at_the_best_rate():
    assert PLAN.first("fgm", 0.1) == [{"lr": 0.1, "eps": 1.0}, {"lr": 0.05, "eps": 1.0}, {"lr": 0.2, "eps": 1.0}]
    assert PLAN.second("fgm", 0.05, 0.1) == [{"lr": 0.05, "eps": 0.3}, {"lr": 0.05, "eps": 3.0}]


def test_a_method_without_a_strength_gets_as_many_trials():
    counts = {len(PLAN.first(m, 1.0)) + len(PLAN.second(m, 1.0, 1.0)) for m in PLAN.strengths}
    assert counts == {5}


@pytest.mark.parametrize(("best", "beside"), [(0.1, (0.0794, 0.126)), (0.05, (0.063, 0.0794)), (0.2, (0.126, 0.1587))])
def test_nearby_rates_stay_in_the_common_range(best, beside):
    found = [settings["lr"] for settings in PLAN.second("none", best, 0.1)]
    assert found == pytest.approx(beside, rel=1e-3)
    assert all(0.05 < rate < 0.2 for rate in found)


def test_the_most_accurate_trial_wins_and_ties_take_the_lower_loss():
    best = tuning.winner([tried(lr=1, accuracy=0.8), tried(lr=2, accuracy=0.9, loss=0.5),
                          tried(lr=3, accuracy=0.9, loss=0.4), tried(lr=4, accuracy=None)])  # fmt: skip
    assert best["settings"] == {"lr": 3}
    assert tuning.winner([tried(lr=1, accuracy=None)]) is None


def test_a_winner_at_the_edge_of_the_search_is_named():
    rates = [tried(lr=lr, eps=1.0, accuracy=accuracy) for lr, accuracy in ((1, 0.5), (2, 0.6), (4, 0.5))]
    trials = [*rates, tried(lr=2, eps=3.0, accuracy=0.7)]
    assert list(tuning.at_edge(trials, trials[-1])) == ["eps"]
    assert list(tuning.at_edge(trials[:3], trials[1])) == []


def test_settings_are_tuned_for_whole_cells_only():
    grids = (("dataset=mnist", "model=cnn", "reg=fgm", "reg.every=2,4"),)
    with pytest.raises(UserError, match=r"table t: reg\.every is not supported"):
        tuning.tuned_cells(Table("t", "T", "comparison", grids, 5))
