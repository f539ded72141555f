"""CifarNet: shapes, attack points, and what it refuses."""

import pytest
import torch

from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.cifarnet import CifarNet


def spec(*shape):
    return DataSpec("image", 10, image_shape=shape)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 16, 20)])
def test_logits_of_images_of_several_sizes(shape):
    model = CifarNet(spec=spec(*shape), stem=4, widths=(4, 8, 8))
    assert model(torch.randn(2, *shape)).shape == (2, 10)


def test_hidden_is_the_last_convolution():
    model = CifarNet(spec=spec(3, 32, 32), stem=4, widths=(4, 8, 16))
    assert isinstance(model.hidden, torch.nn.Conv2d)
    assert model.hidden.out_channels == 16
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 7
    model(torch.randn(2, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_whitening_is_fixed_and_gives_uncorrelated_coefficients_of_unit_variance():
    model = CifarNet(spec=spec(3, 32, 32), widths=(4, 8, 8), whitening=True)
    whitening = model.features[0]
    assert not list(whitening.parameters())
    basis = whitening.filters[:12].flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(12))
    coefficients = whitening(torch.randn(64, 3, 32, 32) * 5 + 1).movedim(1, 0).flatten(1)
    torch.testing.assert_close(coefficients[:12], -coefficients[12:])
    torch.testing.assert_close(torch.cov(coefficients[:12]), torch.eye(12), atol=0.03, rtol=0)


def test_an_attack_on_the_pixels_passes_through_the_whitening():
    model = CifarNet(spec=spec(3, 32, 32), widths=(4, 8, 8), whitening=True)
    pixels = torch.randn(2, 3, 32, 32, requires_grad=True)
    model(pixels).logsumexp(1).sum().backward()
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0


def test_one_seed_gives_one_start():
    def start():
        torch.manual_seed(1)
        return CifarNet(spec=spec(3, 32, 32), stem=4, widths=(4, 8, 8)).state_dict()

    assert all(map(torch.equal, start().values(), start().values()))


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        (None, {}, "take model=lstm"),
        ((1, 8, 8), {}, "take model=cnn"),
        ((3, 32, 32), {"widths": (4, 8)}, "three widths"),
        ((3, 32, 32), {"stem": 0}, "a stem above 0"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, words):
    with pytest.raises(UserError, match=words):
        CifarNet(spec=spec(*shape) if shape else DataSpec("text", 2, ("a",), 0), **options)
