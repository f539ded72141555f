"""Image classifiers of torchvision and timm by name, adapted to the data's channels and classes."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.data.hub import reachable
from dropattack.data.types import DataSpec
from dropattack.errors import UserError

WEIGHTED = (nn.Conv2d, nn.Linear)
TORCHVISION_WEIGHTS = "https://download.pytorch.org"


class VisionModel(nn.Module):
    """A network from a library (submodule `network`), with dropout before its last layer.

    Args:
        spec: the data's `image_shape` and number of `classes`.
        arch: the library's name of the network.
        weights: None is random.
        dropout: dropout before the last layer with weights.

    Attributes:
        aliases: {"hidden": name of the weight of the last layer before the head}, as in `CNN`; the order is that of the
            layers' calls.

    Raises:
        UserError: data without images, an unknown `arch`, or a network that cannot read images of this size.
    """

    group = ""  # as the config calls the model

    def __init__(self, *, spec: DataSpec, arch: str, weights: str | None, dropout: float):
        super().__init__()
        if spec.image_shape is None:
            raise UserError(f"model={self.group} reads images, and this data set holds {spec.kind}; take model=hf.")
        self.network = self._network(arch, spec.image_shape[0], spec.classes, weights)
        *_, hidden, head = self._layers(arch, spec.image_shape)
        self.aliases = {"hidden": f"network.{hidden}.weight"}
        holder, _, last = head.rpartition(".")
        parent = self.network.get_submodule(holder)
        setattr(parent, last, nn.Sequential(nn.Dropout(dropout), getattr(parent, last)))

    def _network(self, arch: str, channels: int, classes: int, weights: str | None) -> nn.Module:
        """Make the network, for images of so many channels and classes."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, C] of `pixels`, float [B, channels, height, width]."""
        output = self.network(pixels)
        return output if isinstance(output, Tensor) else output[0]  # Inception and GoogLeNet also return auxiliary ones

    def _layers(self, arch: str, shape: tuple[int, int, int]) -> list[str]:
        """Return the names of the layers with weights, in the order in which one image passes them."""
        called: list[str] = []
        handles = [
            module.register_forward_hook(lambda *_, name=name: called.append(name))
            for name, module in self.network.named_modules() if isinstance(module, WEIGHTED)
        ]  # fmt: skip
        self.network.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=()):
                logits = self(torch.zeros(1, *shape))
            if logits.dim() != 2:
                raise ValueError(f"it returns {list(logits.shape)}, not one vector of logits per image")
            if len(set(called)) < 2:
                raise ValueError("it has no layer before its head")
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
            raise UserError(
                f"model.arch={arch} cannot classify images of {shape[1]} × {shape[2]} pixels ({reason}); take another "
                "one, or another size of images (dataset.size of dataset=imagefolder)."
            ) from error
        finally:
            self.network.train()
            for handle in handles:
                handle.remove()
        return list(dict.fromkeys(called))


class Torchvision(VisionModel):
    """A classifier of `torchvision.models`: see `VisionModel`.

    Args:
        weights: None: random weights; `DEFAULT` or a name such as `IMAGENET1K_V1`: pretrained ones, which torchvision
            downloads, with a new last layer. For images that are not RGB the first convolution is new too.

    Raises:
        UserError: unknown or unavailable weights; see `VisionModel` for others.
    """

    group = "torchvision"

    def __init__(
        self, *, spec: DataSpec, arch: str = "resnet18", weights: str | None = None, dropout: float = 0.0
    ):  # fmt: skip
        super().__init__(spec=spec, arch=arch, weights=weights, dropout=dropout)

    def _network(self, arch: str, channels: int, classes: int, weights: str | None) -> nn.Module:
        from torchvision import models

        known = models.list_models(module=models)
        if arch not in known:
            raise _unknown("torchvision", arch, known)
        try:
            chosen = None if weights is None else models.get_model_weights(arch)[weights]
        except KeyError as error:
            there = ", ".join(one.name for one in models.get_model_weights(arch))
            raise UserError(f"model.weights={weights}: torchvision has {there} for {arch}, and DEFAULT.") from error
        if chosen is None:
            network = models.get_model(arch, weights=None, num_classes=classes)
        else:
            network = _pretrained(arch, chosen)
            name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, WEIGHTED)][-1]
            _replace(network, name, _like(last, outputs=classes))
        if channels != 3:
            name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
            _replace(network, name, _like(first, inputs=channels))
        return network


def _unknown(library: str, arch: str, known: list[str]) -> UserError:
    near = get_close_matches(arch, known, n=3) or known[:3]
    return UserError(
        f"model.arch={arch} is not a network of {library}; it has {len(known)}, such as {', '.join(near)}."
    )


def _pretrained(arch: str, weights: Any) -> nn.Module:
    from torchvision import models

    if not (reachable(TORCHVISION_WEIGHTS) or _downloaded(weights)):
        raise UserError(f"model.weights={weights.name}: {TORCHVISION_WEIGHTS} does not answer, and the weights are not "
                        "in torch's cache; take model.weights=null.")  # fmt: skip
    try:
        return models.get_model(arch, weights=weights)
    except Exception as error:
        raise UserError(f"model.weights={weights.name} could not be fetched ({error}); try again.") from error


def _downloaded(weights: Any) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).is_file()


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    holder, _, last = name.rpartition(".")
    setattr(network.get_submodule(holder), last, layer)


def _like(layer: nn.Module, *, inputs: int | None = None, outputs: int | None = None) -> nn.Module:
    """Return a new layer of the same kind with other inputs or outputs, initialised as torch does."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs or layer.in_features, outputs or layer.out_features, bias=bias)
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(
        inputs or layer.in_channels, outputs or layer.out_channels, layer.kernel_size, layer.stride,  # type: ignore[arg-type]
        layer.padding, layer.dilation, layer.groups, bias=bias,  # type: ignore[arg-type]
    )  # fmt: skip


class Timm(VisionModel):
    """A network of timm, which must be installed: see `VisionModel`.

    Args:
        weights: None, or `DEFAULT`: the weights that timm downloads.

    Raises:
        UserError: timm is not installed, or cannot make the network; see `VisionModel` for others.
    """

    group = "timm"

    def __init__(
        self, *, spec: DataSpec, arch: str = "resnet18", weights: str | None = None, dropout: float = 0.0
    ):  # fmt: skip
        super().__init__(spec=spec, arch=arch, weights=weights, dropout=dropout)

    def _network(self, arch: str, channels: int, classes: int, weights: str | None) -> nn.Module:
        if weights not in (None, "DEFAULT"):
            raise UserError(f"model.weights={weights}: for timm it is null or DEFAULT; arch names the weights too.")
        try:
            import timm
        except ImportError as error:
            raise UserError("model=timm needs timm: `pip install timm`, or take model=torchvision.") from error
        known = timm.list_models()
        if arch.partition(".")[0] not in known:  # after the dot: which weights
            raise _unknown("timm", arch, known)
        try:
            return timm.create_model(arch, in_chans=channels, num_classes=classes, pretrained=weights is not None)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
            raise UserError(f"model.arch={arch}: timm could not make it ({reason}).") from error
