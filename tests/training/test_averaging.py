"""EMA, SWA, mixup and label smoothing against what they are by hand."""

import pytest
import torch
import torch.nn.functional as F
from test_loop import METHODS, same_weights
from torch import nn
from toys import CLASSES, ToyNet, toy_loaders, toy_split, toy_train

from dropattack.batch import Batch
from dropattack.regularizers import Identity
from dropattack.training.averaging import Average
from dropattack.training.device import make_accelerator
from dropattack.training.evaluate import evaluate
from dropattack.training.mixing import Mixup
from dropattack.training.step import Stepper

SETTINGS = {
    "ema": {"average": "ema", "average_decay": 0.8},
    "swa": {"average": "swa", "average_start": 0.4},
    "mixup": {"mixup": 0.4},
    "all": {"average": "ema", "average_decay": 0.8, "mixup": 0.4, "label_smoothing": 0.1},
}


def walk(model: nn.Module, average: Average, steps: int) -> list[list[torch.Tensor]]:
    """Move the weights at random, and return them after each step."""
    seen = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update(step)
        seen.append([p.detach().clone() for p in model.parameters()])
    return seen


def averaged(model: nn.Module, average: Average) -> list[torch.Tensor]:
    with average.applied(model, []):
        return [p.detach().clone() for p in model.parameters()]


def test_ema_is_the_recursion_by_hand():
    model = nn.Linear(3, 2).double()
    average = Average(model, "ema", decay=0.7, start=0.75, steps=5)
    weights = walk(model, average, 5)
    expected = weights[0]
    for later in weights[1:]:
        expected = [0.7 * old + 0.3 * new for old, new in zip(expected, later, strict=True)]
    torch.testing.assert_close(averaged(model, average), expected, rtol=1e-14, atol=1e-14)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights[-1], strict=True))


@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (0.5, 4), (0.7, 5), (0.99, 7)])
def test_swa_is_the_mean_of_the_weights_after_its_start(start, first):
    model = nn.Linear(3, 2).double()
    average = Average(model, "swa", decay=0.999, start=start, steps=7)
    weights = walk(model, average, first - 1)
    assert not average.has_begun
    before = [p.detach().clone() for p in model.parameters()]
    assert all(map(torch.equal, averaged(model, average), before))
    for step in range(first, 8):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update(step)
        weights.append([p.detach().clone() for p in model.parameters()])
    expected = [torch.stack(each).mean(0) for each in zip(*weights[first - 1 :], strict=True)]
    torch.testing.assert_close(averaged(model, average), expected, rtol=1e-13, atol=1e-13)


def test_batchnorm_gets_the_statistics_of_the_averaged_weights():
    """They are means over the training batches; then weights, statistics, momentum and random numbers are as before."""
    torch.manual_seed(0)
    model = ToyNet()
    average = Average(model, "swa", decay=0.999, start=0.0, steps=3)
    walk(model, average, 3)
    batches = list(toy_loaders()[0].batches())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with average.applied(model, batches):
        hidden = [model.hidden(batch.inputs["pixels"]) for batch in batches]
        torch.testing.assert_close(model.norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
        torch.testing.assert_close(model.norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.norm.momentum == 0.1
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averaged_weights_are_validated_and_kept_and_training_is_unchanged(average):
    plain, before = toy_train(epochs=4)
    model, result = toy_train(epochs=4, average=average, average_start=0.5)
    assert same_weights(plain, model)
    assert [entry["train"] for entry in before.history] == [entry["train"] for entry in result.history]
    begun = [a["validation"] != b["validation"] for a, b in zip(before.history, result.history, strict=True)]
    assert begun == ([True] * 4 if average == "ema" else [False, False, True, True])
    model.load_state_dict(result.best_weights)
    again = evaluate(model, toy_loaders()[1].batches(), classes=CLASSES)
    assert {**again, "epoch": result.best["epoch"]} == result.best


@pytest.mark.parametrize(("options", "sentence"), [
    ({"average": "mean"}, "average must be none, ema or swa"),
    ({"average": "ema", "average_decay": 1.0}, "average_decay must be at least 0 and less than 1"),
    ({"average": "swa", "average_start": 1.0}, "average_start must be at least 0 and less than 1"),
    ({"mixup": -1.0}, "mixup must be at least 0"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        toy_train(**options)


def one_step(**options) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a network in float64 with the gradient of one step, and the step's batch."""
    torch.manual_seed(0)
    model = ToyNet(dropout=0.0).double()
    steps = Stepper(
        model, Identity(model), make_accelerator(device="cpu"), optimizer="sgd", learning_rate=0.1, **options
    )
    pixels, labels = toy_split(12, 3)
    batch = Batch({"pixels": pixels.double()}, labels)
    steps._add_gradient(batch, share=1.0)
    return model, batch


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def test_label_smoothing_is_the_loss_by_hand():
    """The target has 1 − s + s/C for the label and s/C for each other class."""
    model, batch = one_step(label_smoothing=0.3)
    found = gradients(model)
    model.zero_grad()
    target = torch.full((12, CLASSES), 0.3 / CLASSES, dtype=torch.float64)
    target[torch.arange(12), batch.labels] += 0.7
    (-(target * model(batch.inputs["pixels"]).log_softmax(-1)).sum(-1).mean()).backward()
    torch.testing.assert_close(found, gradients(model), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixup_is_the_loss_by_hand(monkeypatch, smoothing):
    drawn = []
    draw = Mixup.draw
    monkeypatch.setattr(Mixup, "draw", lambda self, batch: drawn.append(draw(self, batch)) or drawn[-1])
    model, batch = one_step(mixup=1.0, label_smoothing=smoothing)
    found = gradients(model)
    model.zero_grad()
    (pairs,) = drawn
    share, partners = pairs.share, pairs.partners
    assert 0 < share < 1
    assert sorted(partners.tolist()) == list(range(12)) != partners.tolist()
    pixels = batch.inputs["pixels"]
    mixed = torch.stack([share * pixels[i] + (1 - share) * pixels[partners[i]] for i in range(12)])
    logits, labels = model(mixed), batch.labels
    own = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    (share * own + (1 - share) * F.cross_entropy(logits, labels[partners], label_smoothing=smoothing)).backward()
    torch.testing.assert_close(found, gradients(model), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_all_passes_of_a_step_see_one_mixture(method):
    class Watching(ToyNet):
        def forward(self, pixels):
            if self.training:
                seen.append(pixels)
            return super().forward(pixels)

    seen = []
    loaders = toy_loaders()
    toy_train(Watching(), METHODS[method], loaders=loaders, epochs=1, mixup=1.0)
    passes = len(seen) // len(loaders[0])
    assert passes == {"none": 1, "fgm": 2, "dropattack": 3, "rdrop": 2}[method]
    for number, batch in enumerate(loaders[0].batches()):
        own = seen[number * passes : (number + 1) * passes]
        assert all(torch.equal(own[0], other) for other in own)
        assert not torch.equal(own[0], batch.inputs["pixels"])


def test_shares_have_the_distribution_of_beta():
    mixup, batch = Mixup(0.2, seed=0), Batch({"pixels": torch.zeros(2, 1)}, torch.zeros(2))
    shares = torch.tensor([mixup.draw(batch).share for _ in range(4000)], dtype=torch.float64)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)


def test_mixup_needs_pixels():
    with pytest.raises(ValueError, match="mixup mixes pixels, and this batch has none"):
        Mixup(0.2, seed=0).draw(Batch({"input_ids": torch.zeros(2, 3)}, torch.zeros(2)))


def test_options_of_no_strength_are_plain_training_bit_for_bit():
    plain, before = toy_train()
    model, result = toy_train(label_smoothing=0.0, mixup=0.0, average="none", average_decay=0.5, average_start=0.1)
    assert same_weights(plain, model)
    assert [entry["train"] for entry in before.history] == [entry["train"] for entry in result.history]
    assert all(torch.equal(before.best_weights[name], value) for name, value in result.best_weights.items())
    model, _ = toy_train(average="ema", average_decay=0.0)  # the average of the last weights alone
    assert same_weights(plain, model)
