"""Convolutional networks for 28 × 28 (LeNet-5), 32 × 32 (VGG) and 8 × 8 (a small one) images."""

from typing import Literal, NamedTuple

from torch import Tensor, nn

from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.conv import ImageConv2d

SIZES = {"lenet5": 28, "vgg": 32, "small": 8}  # pixels per side
# Simonyan and Zisserman (2015), configurations A and D: channels of the 3 × 3 convolutions, 0 for a 2 × 2 max pool.
VGG_PLANS = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
}


class CNN(nn.Module):
    """`features` → `hidden` → `after` → `dropout` → `head`, for every architecture.

    `hidden` is the last layer with weights before the head: a linear layer in LeNet-5 and the small network, the last
    convolution in VGG. So `hidden.weight` names an attack point in all of them. This is our choice: it is unknown which
    networks and layers the paper attacks on MNIST and CIFAR-10. The first convolution would be closer to the notebooks'
    `weight_ih_l0`, but LeNet-5's has 150 weights: an absolute ε meant for matrices of 10⁵ elements would destroy it.

    Args:
        spec: the data's `image_shape` and number of `classes`; any number of channels.
        arch: `lenet5` (28 × 28), `vgg` (32 × 32), `small` (8 × 8), or `auto`: the one that fits the images.
        depth: VGG only: 11 or 16 layers in the original's count (8 or 13 convolutions and one linear layer).
        width: VGG only: factor on the channels.
        dropout: dropout before the head.

    Initialisation is torch's own, drawn from its global generator, so a seed gives the same weights with every
    regularizer.

    Raises:
        UserError: data without images, an unknown architecture or depth, or images of a size it cannot read.
    """

    def __init__(
        self,
        *,
        spec: DataSpec,
        arch: Literal["auto", "lenet5", "vgg", "small"] = "auto",
        depth: int = 16,
        width: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.arch, channels = _choose(arch, spec)
        if self.arch == "vgg":
            parts = _vgg(channels, depth, width)
        else:
            parts = _lenet5(channels) if self.arch == "lenet5" else _small(channels)
        self.features, self.hidden, self.after, outputs = parts
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(outputs, spec.classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, C] of `pixels`, float [B, channels, height, width]."""
        return self.head(self.dropout(self.after(self.hidden(self.features(pixels)))))


class _Parts(NamedTuple):
    features: nn.Module
    hidden: nn.Module  # a linear layer or a convolution
    after: nn.Module  # the layers after `hidden`, down to [B, outputs]
    outputs: int


def _choose(arch: str, spec: DataSpec) -> tuple[str, int]:
    """Return the architecture's name and the number of channels."""
    if spec.image_shape is None:
        raise UserError(f"A CNN reads images, and this data set holds {spec.kind}; take model=lstm or model=bigru.")
    if arch != "auto" and arch not in SIZES:
        raise UserError(f"model.arch={arch!r} is not known; choose one of auto, {', '.join(SIZES)}.")
    channels, *size = spec.image_shape
    fitting = next((name for name, side in SIZES.items() if size == [side, side]), None)
    if fitting is None or arch not in ("auto", fitting):
        reads = ", ".join(f"{name} {side} × {side}" for name, side in SIZES.items())
        remedy = f"set model.arch={fitting} (or model=cnn)" if fitting else "resize the images"
        raise UserError(f"model.arch={arch} cannot read images of {size[0]} × {size[1]} pixels ({reads}): {remedy}.")
    return fitting, channels


def _lenet5(channels: int) -> _Parts:
    """LeNet-5 (LeCun et al. 1998) as trained today: ReLU, not tanh; max pooling, not average; a linear head."""
    features = nn.Sequential(
        *(ImageConv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),  # the paper pads 28 × 28 to 32 × 32
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU()),
    )
    return _Parts(features, nn.Linear(120, 84), nn.ReLU(), 84)


def _small(channels: int) -> _Parts:
    """Two convolutions and a hidden layer, about 40,000 weights, for scikit-learn's digits."""
    features = nn.Sequential(
        *(ImageConv2d(channels, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
    )
    return _Parts(features, nn.Linear(32 * 4 * 4, 64), nn.ReLU(), 64)


def _vgg(channels: int, depth: int, width: float) -> _Parts:
    """VGG for CIFAR, as in kuangliu/pytorch-cifar: batch normalisation, and one linear layer instead of three."""
    if depth not in VGG_PLANS:
        raise UserError(f"model.depth={depth} is not known; choose one of {', '.join(map(str, VGG_PLANS))}.")
    if width <= 0:
        raise UserError(f"model.width={width} must be above 0; 1 is the original VGG.")
    layers: list[nn.Module] = []
    for planned in VGG_PLANS[depth]:
        if planned == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        outputs = max(1, round(planned * width))
        convolution = nn.Conv2d if layers else ImageConv2d
        # No bias: batch normalisation would remove it.
        layers += [convolution(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        channels = outputs
    *features, hidden, norm, relu, pool = layers
    return _Parts(nn.Sequential(*features), hidden, nn.Sequential(norm, relu, pool, nn.Flatten()), channels)
