"""The workloads: a model built from its config at scale=full, an optimizer, and realistic synthetic batches.

Inputs are random, not real text or images. Lengths follow the quantiles of the data sets under the models' tokenizers
(at most 256 tokens), token ids a power law of their rank; pixels and labels are uniform; all come from one seed. So the
same batches are timed everywhere, at any vocabulary, without a download. What determines the cost is realistic: tokens
and distinct words per batch (at 80,000 words within 25 % of the real numbers, to which the power law was fitted).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from dropattack.batch import Batch
from dropattack.data.loader import Loader
from dropattack.data.types import DataSpec, Encoded, TensorSplit
from dropattack.runs import experiment
from dropattack.runs.build import build_model
from dropattack.runs.config import compose
from dropattack.training.optim import make_optimizer

LEARNING_RATE = 1e-4  # does not affect the time; small, so that attacks and random labels do not make weights diverge
VOCABULARIES = (10_000, 80_000, 250_000)
MINILM_WORDS = 30_522
POOL = 200  # batches, `KEPT` of them are timed in turn
KEPT = 4
SEED = 0
POWER = 1.15  # p(rank) ~ rank^-POWER


@dataclass(frozen=True)
class Workload:
    """A model and a data set.

    Attributes:
        overrides: that select them in conf/.
        lengths: tokens per text at each of `QUANTILES` in the real training data; None for images.
        steps: DropAttack's, from the authors' notebook for this data set (images and BERT have none).
        p: DropAttack's, like `steps`.
    """

    name: str
    overrides: tuple[str, ...]
    classes: int
    vocabularies: tuple[int | None, ...]
    lengths: tuple[int, ...] | None = None
    image_shape: tuple[int, int, int] | None = None
    steps: int = 1
    p: float = 0.5


QUANTILES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1)
_IMDB = (20, 107, 136, 152, 171, 195, 231, 256, 256, 256, 256, 256)
_IMDB_PIECES = (15, 113, 150, 171, 193, 221, 256, 256, 256, 256, 256, 256)
_PHEME = (3, 15, 22, 52, 92, 137, 192, 249, 256, 256, 256, 256)
_AGNEWS = (5, 27, 32, 35, 38, 42, 44, 47, 51, 58, 98, 256)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("imdb-lstm", ("dataset=imdb", "model=lstm"), 2, VOCABULARIES, _IMDB, steps=3),
        Workload("pheme-bigru", ("dataset=pheme", "model=bigru"), 2, VOCABULARIES, _PHEME),
        Workload("agnews-bigru", ("dataset=agnews", "model=bigru2"), 4, VOCABULARIES, _AGNEWS, p=0.7),
        Workload("mnist-lenet", ("dataset=mnist", "model=cnn"), 10, (None,), image_shape=(1, 28, 28)),
        Workload("cifar10-vgg", ("dataset=cifar10", "model=vgg"), 10, (None,), image_shape=(3, 32, 32)),
        Workload(
            "imdb-minilm",
            ("dataset=imdb", "model=bert", "model.pretrained=minilm"),
            *(2, (MINILM_WORDS,), _IMDB_PIECES),
        ),
    )
}


@lru_cache
def _config(overrides: tuple[str, ...]) -> dict[str, Any]:
    return experiment.resolve(compose(experiment.CONF, [*overrides, "scale=full", f"seed={SEED}"]))


@dataclass(frozen=True)
class Setup:
    """A workload with one vocabulary and batch size (None: that of its recipe), on one device.

    `precision` ("fp32" or "bf16", by autocast) and `compile` (a mode of `torch.compile`) apply to our steps only.
    """

    workload: Workload
    vocabulary: int | None
    batch: int | None
    device: torch.device
    precision: str = "fp32"
    compile: str | None = None
    config: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _config(self.workload.overrides))

    @property
    def batch_size(self) -> int:
        return self.batch or self.config["model"]["recipe"]["batch_size"]

    @property
    def targets(self) -> list[str]:
        """The attack targets: the input and a hidden weight."""
        return [self.config["model"]["attack_points"][point] for point in ("input", "hidden")]

    def model(self) -> nn.Module:
        w = self.workload
        words = None if self.vocabulary is None else ("",) * self.vocabulary  # only their number matters
        padding = None if words is None else 0
        spec = DataSpec("text" if words else "image", w.classes, words, padding, w.image_shape)
        nothing = TensorSplit(torch.empty(0), torch.empty(0))
        encoded = Encoded(spec, nothing, nothing, nothing)
        return build_model(self.config, encoded).to(self.device).train()

    def optimizer(self, parameters: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
        """Make the recipe's optimizer: fused as in the training loop, or with `torch.optim`'s defaults."""
        name, decay = (self.config["model"]["recipe"][key] for key in ("optimizer", "weight_decay"))
        if fused:
            return make_optimizer(parameters, name, learning_rate=LEARNING_RATE, weight_decay=decay)
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        options = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
        return kinds[name](parameters.parameters(), lr=LEARNING_RATE, weight_decay=decay, **options)

    @cached_property
    def split(self) -> TensorSplit:
        """`POOL` batches of random examples."""
        rng, rows, w = np.random.default_rng(SEED), POOL * self.batch_size, self.workload
        labels = torch.from_numpy(rng.integers(w.classes, size=rows))
        if w.lengths is None:
            rows = KEPT * self.batch_size
            pixels = rng.integers(256, size=(rows, *(w.image_shape or ())), dtype=np.uint8)
            return TensorSplit(torch.from_numpy(pixels), labels[:rows])
        lengths = np.interp(rng.permutation((np.arange(rows) + 0.5) / rows), QUANTILES, w.lengths)
        lengths = lengths.astype(np.int64)
        chances = np.arange(1, (self.vocabulary or 0) - 1, dtype=np.float64) ** -POWER  # 0 is padding
        chances = np.cumsum(chances / chances.sum())
        ids = 1 + np.searchsorted(chances, rng.random((rows, w.lengths[-1]), dtype=np.float32)).astype(np.int32)
        ids[np.arange(w.lengths[-1]) >= lengths[:, None]] = 0
        return TensorSplit(torch.from_numpy(ids), labels, torch.from_numpy(lengths))

    def batches(self, *, bucket: bool) -> list[Batch]:
        """Return the `KEPT` batches closest to the mean size; time is linear in size, so they take the mean time.

        Args:
            bucket: group rows of similar length, as in our training; otherwise mix them, as in the notebooks.
        """
        text = self.split.lengths is not None
        loader = Loader(self.split, batch_size=self.batch_size, device=self.device, bucket=text and bucket, seed=SEED)
        return _nearest_to_mean(loader.batches(0)) if text else list(loader.batches(0))


def _nearest_to_mean(batches: Iterable[Batch]) -> list[Batch]:
    """Return the batches nearest to the mean in tokens, which determine the time of a packed or bucketed batch."""
    batches = list(batches)
    tokens = np.array([int(batch.inputs["lengths"].sum()) for batch in batches])
    return [batches[i] for i in np.argsort(abs(tokens - tokens.mean()), kind="stable")[:KEPT]]
