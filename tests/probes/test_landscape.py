"""Landscapes against closed forms and naive evaluation, without changing the network; interrupted ones are resumed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dropattack.batch import Batch
from dropattack.errors import UserError
from dropattack.probes import store
from dropattack.probes.directions import between, filter_norms, normalised, random_direction
from dropattack.probes.landscape import line, measure, plane, rays, values
from dropattack.probes.scratch import Crew, FastPool, Scratch, with_fast_pools
from dropattack.training.evaluate import evaluate


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Linear(4, 3)

    def forward(self, pixels):
        return self.head(pixels)


def batches(*shape: int, classes: int = 10, count: int = 2, rows: int = 6):
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            {"pixels": torch.randn(rows, *shape, generator=generator)},
            torch.randint(classes, (rows,), generator=generator),
        )
        for _ in range(count)
    ]


def naive(model, given, offset, classes=10):
    """Return the loss and accuracy, by the project's `evaluate`, of a copy whose weights are set by name."""
    moved = copy.deepcopy(model)
    state = moved.state_dict()
    for coefficient, direction in offset:
        for name, value in direction.items():
            state[name] += coefficient * value
    found = evaluate(moved.eval(), given, classes=classes)
    return found["loss"], found["accuracy"]


def test_a_linear_model_by_its_closed_form(tmp_path):
    model, given = Linear(), batches(4, classes=3)
    grid = plane(model, grid=5, span=1.0, seed=3, normalise="tensor")
    found = values(measure(grid, lambda: Crew(model, given), tmp_path / "a.jsonl", "a", {}))
    first, second = (
        normalised(random_direction(dict(model.named_parameters()), seed=3, number=k), dict(model.named_parameters()),
                   "tensor")["head.weight"].double().numpy() for k in (0, 1)
    )  # fmt: skip
    x = torch.cat([b.inputs["pixels"] for b in given]).double().numpy()
    y = torch.cat([b.labels for b in given]).numpy()
    weight, bias = (p.detach().double().numpy() for p in model.parameters())
    for i, b in enumerate(grid.axes[0]):
        for j, a in enumerate(grid.axes[1]):
            z = x @ (weight + a * first + b * second).T + bias
            loss = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])
            assert found[i, j] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_values_equal_naive_evaluation(vgg, tmp_path, workers):
    given = batches(3, 32, 32)
    grid = plane(vgg, grid=3, span=0.5)
    content = measure(grid, lambda: Crew(vgg, given, workers), tmp_path / "a.jsonl", "a", {})
    losses, accuracies = values(content).ravel(), values(content, "accuracy").ravel()
    for loss, accuracy, offset in zip(losses, accuracies, grid.offsets, strict=True):
        expected = naive(vgg, given, offset)
        assert loss == pytest.approx(expected[0], rel=1e-6)
        assert accuracy == pytest.approx(expected[1], abs=1e-6)
    assert content["done"] is True


def test_weights_and_batchnorm_statistics_are_bit_identical_afterwards(vgg, tmp_path):
    before = {name: value.clone() for name, value in vgg.state_dict().items()}
    grid = rays(vgg, grid=3, span=0.5, count=2)
    measure(grid, lambda: Crew(vgg, batches(3, 32, 32), 2), tmp_path / "a.jsonl", "a", {})
    assert all(torch.equal(before[name], value) for name, value in vgg.state_dict().items())
    assert all(p.grad is None for p in vgg.parameters())
    assert any(isinstance(module, nn.MaxPool2d) for module in vgg.modules())


def test_scratch_copy_returns_home_exactly(vgg):
    scratch, given = Scratch(vgg), batches(3, 32, 32)
    before = scratch.measure(given)
    scratch.move([(0.3, random_direction(scratch.home, seed=0))])
    assert scratch.measure(given) != before
    scratch.move()
    assert scratch.measure(given) == before
    assert all(torch.equal(p, scratch.home[name]) for name, p in scratch.parameters.items())


def test_directions_depend_on_seed_and_shapes_alone(restored, vgg):
    trained = dict(restored.model.named_parameters())
    other = {name: torch.randn(p.shape) for name, p in trained.items()}
    first, second = random_direction(trained, seed=5), random_direction(other, seed=5)
    assert all(torch.equal(first[name], second[name]) for name in trained)
    assert not torch.equal(first["head.weight"], random_direction(trained, seed=5, number=1)["head.weight"])
    assert not torch.equal(first["head.weight"], random_direction(trained, seed=6)["head.weight"])


def test_normalised_directions_have_the_norms_they_should_have(vgg):
    parameters = dict(vgg.named_parameters())
    drawn = random_direction(parameters, seed=0)
    by_filter, by_tensor = normalised(drawn, parameters, "filter"), normalised(drawn, parameters, "tensor")
    assert (
        set(by_filter) == set(by_tensor) == {n for n, p in parameters.items() if p.dim() > 1}
    )  # no bias, no BatchNorm
    for name, direction in by_filter.items():
        torch.testing.assert_close(filter_norms(direction), filter_norms(parameters[name].detach()))
        torch.testing.assert_close(by_tensor[name].norm(), parameters[name].detach().norm())
    with pytest.raises(ValueError, match="choose one of filter, tensor, authors"):
        normalised(drawn, parameters, "layer")


def test_authors_directions_equal_the_loop_in_their_notebook():
    parameters = {name: p.detach() for name, p in Linear().named_parameters()}
    drawn = random_direction(parameters, seed=0)
    expected = {name: value.clone() for name, value in drawn.items()}
    for name, weights in parameters.items():
        for d, w in zip(expected[name], weights, strict=True):
            d.mul_(w.norm() / (d.norm() + 1e-10))
    for name, direction in normalised(drawn, parameters, "authors").items():
        torch.testing.assert_close(direction, expected[name])


def test_the_ends_of_a_line_are_the_two_networks(vgg, tmp_path):
    torch.manual_seed(1)
    other, given = copy.deepcopy(vgg), batches(3, 32, 32)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            if value.is_floating_point():
                value.add_(0.01 * torch.rand_like(value))
    grid = line(vgg, other, grid=5, low=-0.5, high=1.5)
    found = values(measure(grid, lambda: Crew(vgg, given), tmp_path / "a.jsonl", "a", {}))
    assert grid.axes == ((-0.5, 0.0, 0.5, 1.0, 1.5),)
    assert found[1] == pytest.approx(naive(vgg, given, ())[0], rel=1e-6)
    assert found[3] == pytest.approx(naive(other, given, ())[0], rel=1e-5)
    assert "features.1.running_mean" in between(vgg, other)
    with pytest.raises(UserError, match="different parameters"):
        line(vgg, Linear())


def test_resumed_landscape_equals_an_uninterrupted_one(tmp_path):
    model, given, about = Linear(), batches(4, classes=3), {"run_id": "a"}
    grid = plane(model, grid=5)
    whole = measure(grid, lambda: Crew(model, given), tmp_path / "whole.jsonl", "a", about)

    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    path = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure(grid, lambda: Crew(model, given), path, "a", about, step=stop)
    (half,) = store.landscapes(path)
    assert not half["done"]
    assert np.isfinite(values(half)).sum() == 7
    steps = []
    resumed = measure(grid, lambda: Crew(model, given), path, "a", about, step=lambda done, total: steps.append(done))
    assert steps == list(range(8, 26))
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert store.landscapes(path)[0]["loss"] == whole["loss"]
    assert measure(grid, lambda: pytest.fail("it is done"), path, "a", about) == resumed


def test_file_of_another_landscape_is_not_resumed(tmp_path):
    model, given = Linear(), batches(4, classes=3)
    path = tmp_path / "a.jsonl"
    measure(plane(model, grid=1), lambda: Crew(model, given), path, "a", {"run_id": "a"})
    with pytest.raises(UserError, match="has another plane of a \\(its description differs\\)"):
        measure(plane(model, grid=1), lambda: Crew(model, given), path, "a", {"run_id": "b"})
    with pytest.raises(UserError, match="its axes differs"):
        measure(plane(model, grid=3), lambda: Crew(model, given), path, "a", {"run_id": "a"})
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 is damaged"):
        store.landscapes(path)
    with pytest.raises(UserError, match="grid of 0 points"):
        rays(model, grid=0)


@pytest.mark.parametrize("grid", [0, 2, 50])
def test_a_plane_holds_the_network_itself(grid):
    with pytest.raises(UserError, match="odd number of points"):
        plane(Linear(), grid=grid)


def test_infinite_loss_is_written_and_read(tmp_path):
    model = Linear()
    with torch.no_grad():
        model.head.weight.fill_(1e30)
    given = batches(4, classes=3)
    measure(plane(model, grid=3, span=1e30), lambda: Crew(model, given), tmp_path / "a.jsonl", "a", {})
    (found,) = store.landscapes(tmp_path / "a.jsonl")
    assert not np.isfinite(values(found)[0, 0])
    assert found["done"]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 7, 5)])
def test_fast_pools_give_the_same_values(shape):
    x = torch.randn(shape)
    x[0, 0, 0, 0] = float("nan")
    assert torch.equal(FastPool()(x).nan_to_num(9), nn.MaxPool2d(2)(x).nan_to_num(9))
    kept = nn.Sequential(nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2))
    assert [isinstance(module, FastPool) for module in with_fast_pools(kept)] == [False, False, False, True]
