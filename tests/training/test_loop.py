"""The loop learns, accumulates, keeps the best weights, stops early, and reports divergence."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CLASSES, ToyLoader, ToyNet, toy_loaders, toy_split, toy_train

from dropattack.regularizers import FGM, DropAttack, RDrop
from dropattack.training.evaluate import evaluate
from dropattack.training.loop import TrainResult

METHODS = {
    "none": None,
    "fgm": lambda model: FGM(model, ["hidden.weight"], epsilon=0.1, seed=0),
    "dropattack": lambda model: DropAttack(model, ["hidden.weight", "head.weight"], epsilon=0.1, p=0.5, seed=0),
    "rdrop": lambda model: RDrop(model, alpha=0.5, seed=0),
}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


@pytest.mark.parametrize(("method", "optimizer"), [
    ("none", "adam"), ("fgm", "adamw"), ("dropattack", "sgd"), ("rdrop", "adam"),
    *(pytest.param(m, o, marks=pytest.mark.slow) for m, o in (
        ("none", "adamw"), ("none", "sgd"), ("fgm", "adam"), ("fgm", "sgd"), ("dropattack", "adam"),
        ("dropattack", "adamw"), ("rdrop", "adamw"), ("rdrop", "sgd"),
    )),
])  # fmt: skip
def test_learns(method, optimizer):
    _, result = toy_train(reg=METHODS[method], optimizer=optimizer, epochs=4)
    assert result.status == "finished"
    assert result.best["accuracy"] > 0.9
    assert len(result.history) == 4
    assert result.steps == 40


def test_two_runs_with_one_seed_are_equal():
    (first, a), (second, b) = toy_train(), toy_train()
    assert same_weights(first, second)
    assert [entry["train"] for entry in a.history] == [entry["train"] for entry in b.history]


def test_training_loss_is_the_clean_loss_of_the_rows():
    """The running sums are those of the clean pass and count each row once."""
    model = ToyNet(dropout=0.0)
    rows = []

    def keep(module, inputs, output):
        rows.append(output.detach())

    handle = model.register_forward_hook(keep)
    loaders = toy_loaders()
    _, result = toy_train(model, loaders=loaders, epochs=1, learning_rate=1e-9)
    handle.remove()
    train_rows = rows[: len(loaders[0])]
    labels = torch.cat([batch.labels for batch in loaders[0].batches(0)])
    logits = torch.cat(train_rows)
    assert result.history[0]["train"]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.history[0]["train"]["accuracy"] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())


@pytest.mark.parametrize(("batch_size", "accumulation"), [(25, 2), (10, 5), (7, 8)])
def test_accumulation_equals_one_large_batch(batch_size, accumulation):
    """Rows have the same weight in any split, even if the last micro-batch of a step is smaller."""
    large = 50 if accumulation != 8 else 56

    def net():
        torch.manual_seed(3)
        return nn.ModuleDict({"head": nn.Linear(8, CLASSES)})

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = net()["head"]

        def forward(self, pixels):
            return self.head(pixels)

    options = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05}
    whole, _ = toy_train(Linear(), loaders=toy_loaders(batch_size=large), **options)
    parts, _ = toy_train(Linear(), loaders=toy_loaders(batch_size=batch_size), accumulation=accumulation, **options)
    for x, y in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_best_weights_are_the_earliest_best(monkeypatch):
    accuracies = iter([0.5, 0.8, 0.8, 0.7])
    kept = []

    def fake(model, batches, *, classes, check=None, metrics=()):
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"accuracy": next(accuracies), "macro_f1": 0.0, "loss": 1.0}

    monkeypatch.setattr("dropattack.training.loop.evaluate", fake)
    _, result = toy_train(epochs=4)
    assert result.best["epoch"] == 2
    assert all(torch.equal(result.best_weights[name], value) for name, value in kept[1].items())
    assert not all(torch.equal(result.best_weights[name], value) for name, value in kept[2].items())


def test_early_stopping(monkeypatch):
    accuracies = iter([0.5, 0.8, 0.8, 0.7, 0.9])
    monkeypatch.setattr(
        "dropattack.training.loop.evaluate",
        lambda *_, **__: {"accuracy": next(accuracies), "macro_f1": 0.0, "loss": 1.0},
    )
    _, result = toy_train(epochs=9, patience=2)
    assert len(result.history) == 4
    assert result.best["epoch"] == 2


def test_max_steps():
    _, result = toy_train(epochs=3, max_steps=13)
    assert result.steps == 13
    assert [entry["step"] for entry in result.history] == [10, 13]


def test_bf16_runs_on_a_cpu():
    model, result = toy_train(precision="bf16", epochs=4)
    assert result.best["accuracy"] > 0.9
    assert model.hidden.weight.dtype == torch.float32


class Broken(ToyNet):
    """Return NaN in training from the `after`-th forward on, for `times` forwards."""

    def __init__(self, after: int, times: int):
        super().__init__(dropout=0.0)
        self.after, self.times, self.calls = after, times, 0

    def forward(self, pixels):
        logits = super().forward(pixels)
        if self.training:
            self.calls += 1
            if self.after < self.calls <= self.after + self.times:
                return logits * float("nan")
        return logits


@pytest.mark.parametrize(("optimizer", "clip_norm", "after"), [
    ("adam", None, 0), ("adam", 1.0, 5), ("adamw", None, 5), ("adamw", 1.0, 0), ("sgd", None, 5), ("sgd", 1.0, 0),
    *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (
        ("adam", None, 5), ("adam", 1.0, 0), ("adamw", None, 0), ("adamw", 1.0, 5), ("sgd", None, 0), ("sgd", 1.0, 5),
    )),
])  # fmt: skip
def test_a_step_without_a_finite_gradient_is_skipped(optimizer, clip_norm, after):
    model, result = toy_train(Broken(after, 2), optimizer=optimizer, clip_norm=clip_norm, epochs=4)
    assert result.status == "finished"
    assert result.history[-1]["skipped_steps"] == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert result.best["accuracy"] > 0.9


def test_diverged():
    _, result = toy_train(Broken(12, 10**9), epochs=4, max_skipped=5)
    assert result.status == "diverged"
    assert "5 steps in a row" in result.error
    assert "epoch 2" in result.error
    assert result.best["epoch"] == 1


def test_skipped_steps_are_counted_in_a_row():
    """Three, a good one, and three again are not five in a row."""

    class Often(ToyNet):
        calls = 0

        def forward(self, pixels):
            logits = super().forward(pixels)
            self.calls += self.training
            return logits * float("nan") if self.training and self.calls % 4 else logits

    _, result = toy_train(Often(), epochs=4, max_skipped=5)
    assert result.status == "finished"
    assert result.history[-1]["skipped_steps"] == 30
    _, result = toy_train(Often(), epochs=4, max_skipped=3)
    assert result.status == "diverged"


def test_clipping_bounds_the_step():
    torch.manual_seed(0)
    model = ToyNet()
    before = [p.detach().clone() for p in model.parameters()]
    toy_train(model, epochs=1, max_steps=1, optimizer="sgd", learning_rate=1.0, clip_norm=1e-3)
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()
    assert 0 < moved <= 1.9e-3 + 1e-6  # Nesterov's first step is 1 + momentum times the gradient


def test_evaluate_against_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    torch.manual_seed(0)
    model = ToyNet()
    pixels, labels = toy_split(77, 5)
    labels[labels == 1] = 0  # a class that is predicted and never true
    metrics = evaluate(model, ToyLoader(pixels, labels, shuffle=False).batches(), classes=CLASSES + 1)
    model.eval()
    predicted = model(pixels).argmax(-1)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics["loss"] == pytest.approx(F.cross_entropy(model(pixels), labels).item(), rel=1e-5)


def test_evaluate_puts_the_mode_back():
    model = ToyNet().train()
    evaluate(model, toy_loaders()[1].batches(), classes=CLASSES)
    assert model.training
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(model, [], classes=CLASSES)


def test_result_has_times_and_memory():
    _, result = toy_train()
    assert isinstance(result, TrainResult)
    assert 0 < result.seconds_per_step * result.steps <= result.seconds
    assert result.peak_memory_mb < 50  # of a toy, and not of the process


def test_time_in_on_epoch_does_not_count():
    def busy(entry):
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass

    _, result = toy_train(epochs=3, on_epoch=busy)
    assert result.cpu_seconds_per_step * result.steps < 0.3
    assert result.seconds < 0.9


@pytest.mark.parametrize("style", ["plain", "bar", "none"])
def test_progress(style, capsys):
    toy_train(progress=style, epochs=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("epoch 2/2" in captured.err) == (style != "none")
