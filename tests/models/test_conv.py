"""The first convolution equals torch's, except for how it computes the input gradient."""

import copy

import pytest
import torch
from torch import nn

from dropattack.models.conv import ImageConv2d

SHAPES = [(1, 6, 5, 2), (1, 6, 5, 0), (1, 2, (4, 6), (3, 1)), (3, 4, 3, 1), (3, 4, 3, 0), (2, 5, (3, 2), (0, 1))]


def pair(shape, size=(9, 8), **options):
    torch.manual_seed(0)
    channels, outputs, kernel, padding = shape
    ours = ImageConv2d(channels, outputs, kernel, padding=padding, **options).double()
    theirs = nn.Conv2d(channels, outputs, kernel, padding=padding, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(3, channels, *size, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (12, 10)])  # blocks of 4 × 2 pixels divide the last alone
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_torchs(shape, size, bias):
    ours, theirs, x = pair(shape, size, bias=bias)
    found = []
    for module in (ours, theirs):
        image = x.clone().requires_grad_()
        out = module(image)
        out.square().sum().backward()
        found.append([out.detach(), image.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    assert torch.equal(found[0][0], found[1][0])


def test_frozen_weights_and_a_weight_moved_in_place():
    ours, theirs, x = pair(SHAPES[3])
    for module in (ours, theirs):
        module.weight.requires_grad_(False)
        module.weight.add_(0.5)
    images = [x.clone().requires_grad_() for _ in range(2)]
    for module, image in zip((ours, theirs), images, strict=True):
        module(image).square().sum().backward()
        assert module.weight.grad is None
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"padding_mode": "reflect"}])
def test_unsupported_options_fall_back_to_torch(options):
    ours, theirs, x = pair(SHAPES[3], **options)
    image = x.clone().requires_grad_()
    out = ours(image)
    assert "Convolution" in type(out.grad_fn).__name__
    assert type(out.grad_fn).__name__ != "_ConvolutionBackward"
    assert torch.equal(out, theirs(x))


def test_without_an_input_gradient_it_falls_back_to_torch():
    ours, theirs, x = pair(SHAPES[0])
    assert type(ours(x).grad_fn) is type(theirs(x).grad_fn)
    with torch.autocast("cpu", torch.bfloat16):
        image = x.float().requires_grad_()
        assert type(copy.deepcopy(ours).float()(image).grad_fn).__name__ != "_ConvolutionBackward"
