"""A small convolutional network that learns CIFAR-10 in seconds on a GPU."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropattack.data.types import DataSpec
from dropattack.errors import UserError

POOLINGS = 3  # 2 × 2 max poolings before the last one


class CifarNet(nn.Module):
    """Stem → three groups of two convolutions each → max pooling → linear head.

    A group is: convolution, 2 × 2 max pooling, batch normalisation, GELU, convolution, batch normalisation, GELU. The
    layout and the widths follow the networks of the CIFAR-10 speed records (Page 2018; Jordan 2024, arXiv 2404.00498),
    and `whitening` follows their first layer; their test-time augmentation is left out. As in `CNN`, `hidden` is the
    last layer with weights before the head, so `hidden.weight` names an attack point.

    Args:
        spec: the data's `image_shape` (at least 16 × 16) and number of `classes`.
        stem: channels of the first convolution; not used with `whitening`.
        widths: channels of the three groups.
        scale: factor on the logits (Jordan 2024: 1/9).
        dropout: dropout before the head.
        whitening: replace the first convolution with fixed filters: see `_Whitening`.

    Raises:
        UserError: data without images, images below 16 × 16, or widths that are not three positive numbers.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        stem: int = 32,
        widths: Sequence[int] = (64, 256, 256),
        scale: float = 1 / 9,
        dropout: float = 0.0,
        whitening: bool = False,
    ):
        super().__init__()
        if spec.image_shape is None:
            raise UserError(f"CifarNet reads images, and this data set holds {spec.kind}; take model=lstm.")
        channels, *size = spec.image_shape
        if min(size) < 2 ** (POOLINGS + 1):
            raise UserError(f"model=cifarnet cannot read images of {size[0]} × {size[1]} pixels: take model=cnn.")
        if len(widths) != POOLINGS or min(*widths, stem) < 1:
            raise UserError(f"model.widths={list(widths)} and model.stem={stem}: give three widths and a stem above 0.")
        self.scale = scale
        layers: list[nn.Module] = [_Whitening(channels), nn.GELU()] if whitening else _convolution(channels, stem)
        for before, width in zip((8 * channels if whitening else stem, *widths), widths, strict=False):
            layers += [*_convolution(before, width, pool=True), *_convolution(width, width)]
        *features, self.hidden, norm, activation = layers
        self.features = nn.Sequential(*features)
        self.after = nn.Sequential(norm, activation, _GlobalMax())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], spec.classes, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, C] of `pixels`, float [B, channels, height, width]."""
        return self.head(self.dropout(self.after(self.hidden(self.features(pixels))))) * self.scale


class _Whitening(nn.Module):
    """Write each 2 × 2 patch in a fixed basis, and normalise: [B, C, H, W] → [B, 8·C, H − 1, W − 1].

    The basis is the cosine transform over channels, rows and columns, which is close to the principal components of
    patches of natural images; the batch norm gives each of its coefficients unit variance. Each coefficient stands
    twice, once with the opposite sign. The speed records compute the components from the training images instead.
    """

    filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        patches = torch.einsum("kc,ih,jw->kijchw", _cosines(channels), _cosines(2), _cosines(2))
        filters = patches.reshape(4 * channels, channels, 2, 2)
        self.register_buffer("filters", torch.cat([filters, -filters]), persistent=False)
        self.norm = nn.BatchNorm2d(8 * channels, affine=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.norm(F.conv2d(pixels, self.filters))


def _cosines(size: int) -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform (type II), one vector per row: [size, size]."""
    k, i = torch.arange(size).view(-1, 1), torch.arange(size)
    rows = torch.cos(math.pi * (i + 0.5) * k / size)
    return rows / rows.norm(dim=1, keepdim=True)


class _GlobalMax(nn.Module):
    """Global max pooling [B, C, H, W] → [B, C]; unlike torch's, its backward is deterministic on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((-2, -1))


def _convolution(inputs: int, outputs: int, *, pool: bool = False) -> list[nn.Module]:
    """Return a 3 × 3 convolution (no bias: the norm removes it), an optional pooling, batch norm and GELU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, *[nn.MaxPool2d(2)] * pool, nn.BatchNorm2d(outputs), nn.GELU()]
