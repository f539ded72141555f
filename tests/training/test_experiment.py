"""Experiments in one process: the test set is used once, weights are paired, failures leave a record."""

import pytest
import torch
from omegaconf import OmegaConf

from dropattack.errors import AlreadyRunningError, DivergedError, Interrupted, UserError
from dropattack.runs import build, experiment, record
from dropattack.runs.config import choices, compose
from dropattack.runs.restore import read_kept
from dropattack.training import evaluate as evaluation
from dropattack.training import loop
from dropattack.training.lock import locked


@pytest.fixture
def config(tmp_path):
    """Return the config of a smoke run of the digits in its own folder, with the given overrides."""

    def make(*overrides: str):
        base = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none", "trainer.device=cpu"]
        return compose(experiment.CONF, [*base, f"paths.output={tmp_path / 'out'}", *overrides])

    return make


def test_the_test_set_is_touched_once_by_the_best_weights(config, monkeypatch):
    seen, scores = [], iter([0.5, 0.9, 0.9, 0.7])  # of validation: the best epoch is neither the first nor the last

    def watch(model, batches, **options):
        rows = list(batches)
        metrics = evaluate(model, rows, **options)
        metrics["accuracy"] = next(scores, metrics["accuracy"])
        seen.append((rows[0].labels.tolist(), {k: v.clone() for k, v in model.state_dict().items()}, metrics))
        return metrics

    def watch_test(model, loader, **options):
        tested = test(model, loader, **options)
        watch(model, loader.batches(), **options)
        return tested

    evaluate, test = evaluation.evaluate, evaluation.test
    monkeypatch.setattr(loop, "evaluate", watch)  # validation, each epoch
    monkeypatch.setattr(evaluation, "test", watch_test)  # imported when it is due
    path = experiment.run(config("trainer.epochs=4", "dataset.train_rows=200"))
    written = record.read(path)
    *validations, tested = seen
    assert len(validations) == 4
    assert all(labels == validations[0][0] != tested[0] for labels, _, _ in validations)
    assert all(torch.equal(validations[1][1][name], value) for name, value in tested[1].items())
    assert not all(torch.equal(validations[3][1][name], value) for name, value in tested[1].items())
    correct = record.unpack_correct(written["test"].pop("correct"), written["data"]["sizes"]["test"])
    assert written["test"] == pytest.approx(tested[2])
    assert sum(correct) / len(correct) == written["test"]["accuracy"]
    assert written["validation"]["epoch"] == 2


def test_first_weights_and_batches_are_paired_across_methods(config, monkeypatch):
    starts = []

    def keep(model, reg, train_loader, *_, **options):
        starts.append((model.state_dict(), [batch.labels.tolist() for batch in train_loader.batches(0)]))
        starts.append(torch.rand(1).item())  # dropout's first number
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", keep)
    for method in ("none", "fgm", "dropattack", "sam"):
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config(f"reg={method}"))
    (weights, order), first = starts[0], starts[1]
    for (other_weights, other_order), number in zip(starts[2::2], starts[3::2], strict=True):
        assert all(torch.equal(weights[name], value) for name, value in other_weights.items())
        assert order == other_order
        assert number == first


@pytest.mark.parametrize("method", choices(experiment.CONF, "reg"))
def test_every_method_runs(config, method):
    short = [] if method == "longer" else ["trainer.max_steps=2"]  # which would end it early
    written = record.read(experiment.run(config(f"reg={method}", *short)))
    assert written["status"] == "finished"
    assert written["passes_per_step"] >= 1
    assert written["steps"] == (2 if short else written["history"][-1]["step"])
    assert written["config"]["reg"]["name"] == {"compose": "dropattack+rdrop"}.get(method, method)


def test_an_unexpected_error_leaves_a_failed_record_and_can_be_tried_again(config, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the GPU fell off")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", broken)
        with pytest.raises(RuntimeError, match="fell off"):
            experiment.run(config())
    path = record.record_path(experiment.resolve(config()))
    failed = record.read(path)
    assert failed["status"] == "failed"
    assert failed["error"] == "RuntimeError: the GPU fell off"
    assert failed["data"]["sizes"]["train"] == 64
    assert experiment.run(config()) == path
    assert record.read(path)["status"] == "finished"


def test_a_failing_rerun_keeps_the_result(config, monkeypatch):
    path = experiment.run(config())
    before = path.read_text()
    monkeypatch.setattr(loop, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.run(config("rerun=true"))
    assert path.read_text() == before


def test_a_run_that_another_process_does_is_left_alone(config):
    path = experiment.run(config())
    before, folder = path.read_text(), path.parents[1] / "checkpoints" / record.read(path)["run_id"]
    path.unlink()
    with locked(folder / "lock"), pytest.raises(AlreadyRunningError):
        experiment.run(config())
    assert not path.exists(), "the other process writes it"
    path.write_text(before)
    with locked(folder / "lock"), pytest.raises(AlreadyRunningError):
        experiment.run(config("rerun=true"))
    assert path.read_text() == before


@pytest.mark.parametrize("rerun", [False, True])
def test_an_interrupted_run_names_all_code_that_trained_it(config, monkeypatch, rerun, capsys):
    if rerun:
        experiment.run(config())
    overrides = ["trainer.epochs=3", "trainer.checkpoint.every_epochs=1", f"rerun={rerun}".lower()]
    epochs = []

    def stop_after(number: int):
        def end(self):
            original(self)
            epochs.append(self.state.epoch)
            if len(epochs) == number:
                raise Interrupted(15)

        return end

    original = loop.Trainer._end_epoch
    monkeypatch.setattr(loop.Trainer, "_end_epoch", stop_after(1))
    with pytest.raises(Interrupted):
        experiment.run(config(*overrides))
    first = record.code(experiment.resolve(config()))
    if not rerun:  # a rerun with other code starts again
        monkeypatch.setattr(record, "code", lambda _: {"code": "new", "method": first["method"]})
    found = record.read(experiment.run(config(*overrides)))
    assert epochs == [1, 2, 3]
    assert found["commit"]["code"] == (first["code"] if rerun else f"{first['code']}+new")
    assert found["commit"]["method"] == first["method"]
    assert ("the code has changed" in capsys.readouterr().err) == (not rerun)


def test_weights_of_another_training_are_named(config):
    path = experiment.run(config())
    found = record.read(path)
    record.write(path, {**found, "test": {**found["test"], "accuracy": 0.0}})
    with pytest.warns(UserWarning, match="they are of another training of this run"):
        read_kept(path)


def test_rerun_gives_the_same_result(config):
    first = record.read(experiment.run(config()))
    second = record.read(experiment.run(config("rerun=true")))
    assert first["test"] == second["test"]
    assert first["seconds"] != second["seconds"]


@pytest.mark.parametrize(("more", "message"), [
    (["trainer.max_skipped=3", "trainer.batch_size=8"], "3 steps in a row"),
    ([], "the validation loss is not finite after epoch 1"),
])  # fmt: skip
def test_divergence_is_on_record_and_is_not_tried_again(config, monkeypatch, more, message):
    options = ["trainer.optimizer=sgd", "trainer.learning_rate=1e30", "trainer.epochs=30", *more]
    with pytest.raises(DivergedError, match=message):
        experiment.run(config(*options))
    path = record.record_path(experiment.resolve(config(*options)))
    assert record.read(path)["status"] == "diverged"
    assert record.read(path)["test"] is None
    assert [left.name for left in (path.parents[1] / "checkpoints").glob("*/*")] == ["lock"]
    monkeypatch.setattr(experiment, "run_anyway", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(DivergedError, match="on record"):
        experiment.run(config(*options))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reg.targets=[nothing]", "nothing"),
        ("+reg.gamma=1", "reg=dropattack has no option gamma"),
        ("+model.gamma=1", "model=cnn has no option gamma"),
        ("+dataset.gamma=1", "gamma"),
        ("+trainer.gamma=1", "gamma"),
        ("reg._target_=dropattack.nowhere.Thing", "no such object"),
        ("model.arch=lenet6", "lenet6"),
        ("trainer.device=cuda", "no CUDA device"),
    ],
)
def test_bad_input_leaves_nothing(config, tmp_path, override, message):
    if "cuda" in override and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=message):
        experiment.run(config("reg=dropattack", override))
    assert list(tmp_path.iterdir()) == []


def test_a_target_by_name_goes_to_the_library_as_it_is(config):
    values = experiment.resolve(config("reg=fgm", "reg.targets=[hidden,head.weight]"))
    _, encoded = build.load_data(values)
    reg = build.build_reg(values, build.build_model(values, encoded))
    assert [target.name for target in reg.targets] == ["hidden.weight", "head.weight"]


def test_wandb_follows_offline(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = experiment.run(config("tracker=wandb", "trainer.max_steps=1"))
    assert "tracker" not in record.read(path)["config"]
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_config_of_plain_values_is_enough(config):
    """`run` accepts any DictConfig with the values, composed by Hydra or not."""
    plain = OmegaConf.create(OmegaConf.to_container(config("trainer.max_steps=1"), resolve=True))
    assert experiment.run(plain).exists()
