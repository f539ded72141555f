"""The plan of `make tune`: which settings are tried, the halving over seeds, and the selection of the best."""

import json
import math
import re
from dataclasses import replace

import pytest

from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.runs import experiment, record
from dropattack.runs.config import compose
from dropattack.sweeps import search, tuning
from dropattack.sweeps.table import TableConfig

MIDI = experiment.CONF / "tune" / "midi.yaml"
CONFIG = {"dataset": {"name": "pheme"}, "model": {"recipe": {"learning_rate": 0.001}}}


def trial(**settings):
    accuracy, loss = settings.pop("accuracy"), settings.pop("loss", 1.0)
    return {"settings": settings, "validation_accuracy": accuracy, "validation_loss": loss}


def test_all_methods_try_as_many_settings_within_the_same_ranges():
    plan = tuning.planned(MIDI)
    tried = {method: plan.settings(method, CONFIG) for method in plan.methods}
    assert {len(settings) for settings in tried.values()} == {plan.rungs[0][0]}
    rates = [one["trainer.learning_rate"] for settings in tried.values() for one in settings]
    assert min(rates) >= 0.00033
    assert max(rates) <= 0.003
    masked = math.sqrt(0.5)  # DropAttack's mask lets half of the elements through
    reached = {"fgm": 1.0, "pgd": 1.0, "dropattack": masked}
    for (method, factor), place in zip(reached.items(), range(6), strict=False):
        assert tried[method][place]["reg.epsilon"] * factor == pytest.approx(
            tried["fgm"][place]["reg.epsilon"], rel=0.02
        )
    assert all(one["reg.alpha"] == pytest.approx(one["reg.epsilon"] / 2, rel=0.02) for one in tried["pgd"])


def test_a_search_is_repeatable_and_its_repetitions_differ():
    plan = tuning.planned(MIDI)
    assert plan.settings("fgm", CONFIG) == plan.settings("fgm", CONFIG)
    first, second = (plan.settings("fgm", CONFIG, repeat) for repeat in (0, 1))
    assert first[0] == second[0], "the middle of the space"
    assert all(one != other for one, other in zip(first[1:], second[1:], strict=True))
    assert not set(plan.seeds(3, 0)) & set(plan.seeds(3, 1))


@pytest.mark.parametrize(
    ("setting", "places", "wanted"),
    [
        (tuning.Setting(log=(0.01, 1.0)), (0, 0.5, 1), (0.01, 0.1, 1.0)),
        (tuning.Setting(uniform=(1.0, 3.0)), (0, 0.5, 1), (1.0, 2.0, 3.0)),
        (tuning.Setting(of=("a", "b")), (0, 0.49, 0.5, 1), ("a", "a", "b", "b")),
        (tuning.Setting(value=7), (0, 1), (7, 7)),
    ],
)
def test_values_are_drawn_from_places(setting, places, wanted):
    assert tuple(setting.at(place) for place in places) == wanted


def test_the_most_accurate_trial_wins_and_ties_take_the_lower_loss_then_the_earlier():
    trials = [trial(lr=1, accuracy=0.8), trial(lr=2, accuracy=0.9, loss=0.5), trial(lr=3, accuracy=0.9, loss=0.4),
              trial(lr=4, accuracy=0.9, loss=0.4), trial(lr=5, accuracy=None, loss=None)]  # fmt: skip
    assert [one["settings"]["lr"] for one in tuning.ranked(trials)] == [3, 4, 2, 1]


def test_the_recipe_with_the_fewest_epochs_is_taken_within_one_standard_error():
    def finalist(accuracy, epochs):
        return {"validation_accuracy": accuracy, "seeds": [{"epochs": epochs, "rows": 900}]}

    best, near, far = finalist(0.90, 5), finalist(0.8901, 3), finalist(0.88, 1)  # the standard error is 0.01
    assert tuning.frugal([best, near, far])[0] == near
    assert tuning.frugal([best, far])[0] == best


def test_a_trial_that_fails_on_one_seed_cannot_win():
    done = {"validation_accuracy": 0.9, "validation_loss": 0.1}
    assert tuning.summarised({}, [done, {"validation_accuracy": None}])["validation_accuracy"] is None
    assert tuning.summarised({}, [done, {**done, "validation_accuracy": 0.7}])["validation_accuracy"] == pytest.approx(
        0.8
    )


def test_a_winner_at_the_edge_of_the_search_is_named():
    trials = [trial(lr=lr, schedule="linear", accuracy=accuracy) for lr, accuracy in ((1, 0.5), (2, 0.6), (4, 0.7))]
    assert list(tuning.at_edge(trials, trials[2])) == ["lr"]
    assert list(tuning.at_edge(trials, trials[1])) == []


def test_a_folder_of_ones_own_has_its_plans(tmp_path, capsys):
    asked = ["tune", "methods", "--scale", "smoke", "--conf", str(tmp_path)]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(r"no plan .*conf/tune/smoke\.yaml: copy one of the others there .* has one \(midi, mini", said)
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "smoke.yaml").write_text("{}")
    assert main(asked) == 2
    assert f"{tmp_path}/tune/smoke.yaml lacks seed" in capsys.readouterr().err


def test_settings_are_tuned_for_whole_cells_only():
    grids = (("dataset=mnist", "model=cnn", "reg=fgm", "reg.every=2,4"),)
    with pytest.raises(UserError, match=r"table t: reg\.every is not supported"):
        tuning.tuned_cells(TableConfig("t", "T", "comparison", grids, 5))


@pytest.fixture
def searching(tmp_path, monkeypatch):
    """Return a search of the digits in which a run's accuracy is its learning rate's closeness to 0.002."""
    plan = tuning.TuningPlan(
        seed=10, rungs=((4, 1), (2, 2)), recipe_rungs=((3, 1),),
        recipe={"digits": {"trainer.learning_rate": tuning.Setting(log=(1e-3, 4e-3))}},
        methods={m: {"trainer.learning_rate": tuning.Setting(log=(1e-3, 4e-3))} for m in ("none", "dropattack")},
        follows={"randomattack": "dropattack"},
    )  # fmt: skip
    ran = []

    def launch(runs, engine):
        for overrides in runs:
            run = experiment.Run.asked(overrides)
            rate = run.config["trainer"]["learning_rate"]
            ran.append((run.config["reg"]["name"], rate, run.config["seed"]))
            metrics = {"accuracy": 1 - abs(math.log(rate / 0.002)), "loss": 0.1, "macro_f1": 0.5, "epoch": 1}
            record.write(run.record_path, {
                **record.blank(run.config), "status": "finished", "validation": metrics, "test": metrics, "steps": 7,
                "passes_per_step": 3.0, "seconds": 1.0,
                "data": {"fingerprint": "f", "sizes": {"validation": 100}, "notes": {}},
            })  # fmt: skip

    monkeypatch.setattr(search, "launch", launch)
    return search.Search(plan, "smoke", tmp_path / "out", tmp_path / "results", tmp_path / "conf", jobs=1), ran


def test_a_data_set_can_have_a_smaller_search(searching):
    searched, _ = searching
    plan = replace(searched.plan, of_dataset={"digits": tuning.OwnSearch(rungs=((2, 1),))})
    config = compose(experiment.CONF, ["scale=smoke", "dataset=digits", "model=cnn"])
    assert len(plan.settings("none", config)) == 2
    assert len(plan.settings(tuning.RECIPE, config)) == 3, "its recipe has the plan's number"
    assert len(searched.plan.settings("none", config)) == 4


def test_a_data_sets_trials_can_have_fewer_rows(searching, tmp_path):
    searched, _ = searching
    fewer = replace(searched, plan=replace(searched.plan, of_dataset={"digits": tuning.OwnSearch(rows=500)}))
    assert fewer.methods(TABLE, {"reg": {"none"}})
    configs = [json.loads(path.read_text())["config"] for path in (tmp_path / "out").rglob("digits-*.json")]
    assert {config["dataset"]["train_rows"] for config in configs} == {500}
    assert fewer.plan.rows_of(tuning.RECIPE, "digits") == [], "a recipe is searched on all rows"


def test_a_control_gets_the_settings_when_its_method_alone_is_searched(searching, tmp_path):
    searched, _ = searching
    assert searched.methods(TABLE, {"reg": {"dropattack"}})
    tuned = tmp_path / "conf" / "settings" / "tuned"
    own, control = (tuned / f"smoke-digits-cnn-{method}.yaml" for method in ("dropattack", "randomattack"))
    assert control.read_text() == own.read_text() + "reg:\n  p: 0.5\n", "the control's own default is 1"
    assert not (tuned / "smoke-digits-cnn-none.yaml").exists()


DIGITS = ("dataset=digits", "model=cnn")
TABLE = TableConfig("t", "T", "comparison", ((*DIGITS, "reg=none,randomattack,dropattack"),), 5)


def test_a_search_halves_over_seeds_and_writes_what_it_chose(searching, tmp_path):
    searched, ran = searching
    assert searched.methods(TABLE, {})
    seeds = [seed for method, _, seed in ran if method == "none"]
    assert sorted(seeds) == [10] * 4 + [11] * 2, "finished trials are not repeated for the second rung"
    assert not any(method == "randomattack" for method, *_ in ran), "a control is not searched"
    found = json.loads((tmp_path / "results" / "smoke-digits-cnn-none.json").read_text())
    assert found["chosen"] == {"trainer.learning_rate": 0.002}
    assert len(found["trials"][0]["seeds"]) == 2
    assert found["passes"] == 6 * 21
    assert {"commit", "fingerprint", "run_id"} <= found["trials"][0]["seeds"][0].keys()
    tuned = tmp_path / "conf" / "settings" / "tuned"
    control, attack = (tuned / f"smoke-digits-cnn-{name}.yaml" for name in ("randomattack", "dropattack"))
    assert control.read_text().startswith(attack.read_text())
    before = len(ran)
    assert searched.methods(TABLE, {})
    assert len(ran) == before


def test_nothing_is_chosen_while_a_trial_has_no_result(searching, tmp_path, monkeypatch, capsys):
    searched, _ = searching
    launch = search.launch
    monkeypatch.setattr(search, "launch", lambda runs, engine: launch(runs[1:], engine))  # another process holds one
    assert not searched.methods(TABLE, {"reg": {"none"}})
    assert "so nothing is chosen" in capsys.readouterr().err
    assert not (tmp_path / "conf").exists()
    monkeypatch.setattr(search, "launch", launch)
    assert searched.methods(TABLE, {"reg": {"none"}})


def test_values_of_a_plan_are_written_as_hydra_reads_them():
    given = {"trainer.clip_norm": None, "reg.relative": True, "reg.targets": ["conv.Weight", "input"], "a": "DEFAULT"}
    assert tuning.overrides(given) == [
        "trainer.clip_norm=null", "reg.relative=true", "reg.targets=[conv.Weight,input]", "a=DEFAULT"
    ]  # fmt: skip
    table = TableConfig("t", "T", "comparison", ((*DIGITS, "reg=none", "trainer.batch_size=16,64"),), 1)
    with pytest.raises(UserError, match=r"with trainer\.batch_size=16 and with trainer\.batch_size=64"):
        tuning.tuned_cells(table)


def test_a_recipe_is_written_as_defaults_of_the_model(searching, tmp_path):
    searched, ran = searching
    assert searched.recipes(TABLE, set())
    written = (tmp_path / "conf" / "recipe" / "smoke-digits-cnn.yaml").read_text()
    assert "model:\n  recipe:\n    learning_rate: 0.002\n" in written
    assert {method for method, *_ in ran} == {"none"}


def test_a_method_without_a_space_is_refused(searching):
    with pytest.raises(UserError, match="has no settings for fgm"):
        searching[0].methods(TableConfig("t", "T", "comparison", ((*DIGITS, "reg=fgm"),), 5), {})
