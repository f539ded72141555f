"""The choice of network by image size, and the attributes that all networks share."""

import pytest
import torch
from torch import nn

from dropattack.errors import UserError
from dropattack.models.cnn import CNN


@pytest.mark.parametrize(
    ("side", "channels", "arch", "hidden"),
    [(8, 1, "small", nn.Linear), (28, 1, "lenet5", nn.Linear), (28, 3, "lenet5", nn.Linear), (32, 3, "vgg", nn.Conv2d)],
)
def test_auto_picks_by_size(image_spec, side, channels, arch, hidden):
    model = CNN(spec=image_spec(side, channels), width=0.1)
    assert (model.arch, type(model.hidden)) == (arch, hidden)
    logits = model(torch.randn(3, channels, side, side))
    assert logits.shape == (3, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters()), "no unused parameter"


@pytest.mark.parametrize(("side", "count"), [(8, 38_282), (28, 61_706)])
def test_number_of_parameters(image_spec, side, count):
    """LeNet-5 has 61,706 parameters in the usual count."""
    assert sum(p.numel() for p in CNN(spec=image_spec(side)).parameters()) == count


@pytest.mark.parametrize(("depth", "convolutions"), [(11, 8), (16, 13)])
def test_vgg(image_spec, depth, convolutions):
    model = CNN(spec=image_spec(32, 3), arch="vgg", depth=depth, width=0.25)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) == convolutions
    assert layers[-1] is model.hidden
    assert model.hidden.weight.shape[:2] == (128, 128)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == convolutions


def test_vgg16_has_the_published_size(image_spec):
    """kuangliu/pytorch-cifar has 14,728,266 parameters, of which 4,224 are biases that batch normalisation cancels."""
    model = CNN(spec=image_spec(32, 3), depth=16)
    assert sum(p.numel() for p in model.parameters()) == 14_728_266 - 4_224


def test_dropout_is_before_the_head(image_spec):
    model = CNN(spec=image_spec(28), dropout=0.5)
    x = torch.randn(4, 1, 28, 28)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("side", "options", "said"),
    [
        (64, {}, "resize the images"),
        (28, {"arch": "vgg"}, "model.arch=lenet5"),
        (32, {"arch": "small"}, "model.arch=vgg"),
        (32, {"arch": "resnet"}, "auto, lenet5, vgg, small"),
        (32, {"depth": 13}, "11, 16"),
        (32, {"width": 0.0}, "above 0"),
    ],
)
def test_errors(image_spec, side, options, said):
    with pytest.raises(UserError, match=said):
        CNN(spec=image_spec(side), **options)


def test_text_is_refused(text_spec):
    with pytest.raises(UserError, match="model=lstm"):
        CNN(spec=text_spec)


def test_oblong_images_are_refused(image_spec):
    spec = image_spec(28)
    with pytest.raises(UserError, match="28 × 32"):
        CNN(spec=type(spec)(kind="image", classes=10, image_shape=(1, 28, 32)))
