"""Batches of tensors as a pure function of (seed, epoch), so that a killed run can resume mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dropattack.batch import Batch
from dropattack.data.types import TensorSplit

Augment = Literal["none", "crop_flip", "shift"]
MEGABATCH = 50  # batches sorted by length together
RESIDENT_BYTES = 2 << 30  # a split up to this size lives on the device
READY_BYTES = 256 << 20  # unaugmented images up to this size are converted to float32 once


class Loader:
    """Batches of one split, on `device`.

    The inputs of text are `input_ids` int64 [B, T], T the batch's longest row, and `lengths` int64 [B]. The lengths
    stay on the host, which needs them to pack a batch without waiting for the device. The input of images is `pixels`
    float32 [B, C, H, W], (x/255 − mean)/std.

    Args:
        split: the data; the last, incomplete batch is kept.
        batch_size: rows per batch, over all processes.
        shuffle: use a new order every epoch. Otherwise (evaluation) text is sorted by length and images keep their
            order.
        seed: seed of the order and the augmentation.
        augment: images only. `crop_flip`: a random crop of the image padded with black by an eighth (4 pixels of 32),
            mirrored half of the time. `shift`: the crop only, for digits.
        bucket: text only. Rows of similar length share a batch, longest first; False: purely random batches.
        rank, world: this process's part of every batch (every world-th row), for data-parallel training. If the last
            batch has fewer than `world` rows, they join the previous batch, because every process needs a row.
        mean, std: per channel, of pixels in 0..1; None: pixels stay in 0..1. `train.pixel_statistics` has them.

    Raises:
        ValueError: an option that does not apply to this kind of data, or sizes that do not fit.
    """

    def __init__(
        self,
        split: TensorSplit,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        shuffle: bool = True,
        seed: int = 0,
        augment: Augment | None = None,
        bucket: bool = True,
        rank: int = 0,
        world: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.text = split.lengths is not None
        augment = None if augment == "none" else augment
        if augment not in (None, "crop_flip", "shift"):
            raise ValueError(f"augment={augment!r}: choose none, crop_flip or shift")
        if self.text and (augment or mean is not None or std is not None):
            raise ValueError("augment, mean and std are for images; this split holds text")
        if (mean is None) != (std is None):
            raise ValueError("mean and std go together")
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} of world={world} processes does not exist")
        if not world <= batch_size or not world <= len(split):
            raise ValueError(f"batch_size={batch_size} and {len(split)} rows: each of {world} processes needs a row")
        self.split, self.batch_size, self.shuffle, self.seed = split, batch_size, shuffle, seed
        self.augment, self.bucket, self.rank, self.world = augment, bucket and self.text, rank, world
        self.device, self.std = torch.device(device), std
        self._lengths = np.zeros(len(split), np.int64) if split.lengths is None else split.lengths.numpy()
        self._ends = self._batch_ends(len(split))
        size = split.inputs.numel() * split.inputs.element_size()
        self._home = self.device if size <= RESIDENT_BYTES else torch.device("cpu")
        self._inputs, self._labels = split.inputs.to(self._home), split.labels.to(self._home)
        if mean is not None and std is not None:
            scale = torch.tensor(std, dtype=torch.float32, device=self.device).view(-1, 1, 1) * 255
            self._scale, self._shift = 1 / scale, torch.tensor(mean, device=self.device).view(-1, 1, 1) * 255 / scale
        else:
            self._scale, self._shift = torch.tensor(1 / 255, device=self.device), torch.zeros((), device=self.device)
        self._ready = not (self.text or augment) and self._home == self.device and 4 * size <= READY_BYTES
        if self._ready:
            self._inputs = self._standardised(self._inputs)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self._ends)

    def _batch_ends(self, rows: int) -> np.ndarray:
        ends = list(range(self.batch_size, rows, self.batch_size))
        # A process with a single row joins the batch before, because BatchNorm has no variance of one value.
        if ends and rows - ends[-1] < min(2 * self.world, self.batch_size):
            ends.pop()
        return np.array([*ends, rows])

    def rows(self, epoch: int = 0) -> list[np.ndarray]:
        """Return the rows of `split` in each batch of the epoch, over all processes: int64 [B] each."""
        count = len(self.split)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(count) if self.shuffle else np.arange(count)
        if not self.bucket:
            return np.split(order, self._ends[:-1])
        # Whole pools of batches are sorted by length. At least four pools, or a small split would be sorted as one and
        # the same rows would meet in every epoch.
        pool = self.batch_size * max(1, min(MEGABATCH, len(self) // 4)) if self.shuffle else count
        number = np.arange(count) // pool
        order = order[np.lexsort((-self._lengths[order], number))]
        batches = np.split(order, self._ends[:-1])
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffle else batches

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Return this process's rows of the epoch's batches, from batch `start` on."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start={start}: the epoch has {len(self)} batches")
        batches = self.rows(epoch)
        return (self._batch(rows, epoch, number) for number, rows in enumerate(batches[start:], start))

    def _batch(self, rows: np.ndarray, epoch: int, number: int) -> Batch:
        mine = slice(self.rank, None, self.world)
        index = torch.from_numpy(rows[mine]).to(self._home, non_blocking=True)
        labels = self._send(self._labels.index_select(0, index))
        if self.text:
            lengths = torch.from_numpy(self._lengths[rows[mine]])
            longest = int(self._lengths[rows[mine]].max())
            inputs = self._send(self._inputs[:, :longest].index_select(0, index))
            return Batch({"input_ids": inputs.long(), "lengths": lengths}, labels)
        pixels = self._send(self._inputs.index_select(0, index))
        if self.augment:
            pixels = self._augmented(pixels, len(rows), mine, epoch, number)
        return Batch({"pixels": pixels if self._ready else self._standardised(pixels)}, labels)

    def _standardised(self, pixels: Tensor) -> Tensor:
        return pixels.float().mul_(self._scale).sub_(self._shift)

    def _send(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == self.device.type:
            return tensor
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    def _augmented(self, pixels: Tensor, total: int, mine: slice, epoch: int, number: int) -> Tensor:
        # Drawn on the CPU for the whole batch, so the images do not depend on the device or the number of processes.
        state = np.random.SeedSequence([self.seed, epoch, number]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) >> 1)
        padding = max(1, pixels.shape[-1] // 8)
        offsets = torch.randint(2 * padding + 1, (total, 2), generator=generator)[mine]
        flips = torch.rand(total, generator=generator)[mine] < (0.5 if self.augment == "crop_flip" else 0.0)
        return cropped(pixels, self._send(offsets), self._send(flips), padding)


def cropped(pixels: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Pad each image with zeros, crop it at its own offset, and mirror it where `flips` is true.

    Args:
        pixels: [B, C, H, W].
        offsets: int64 [B, 2], first row and column of the crop, in 0..2·padding.
        flips: bool [B].
        padding: pixels on each side.

    Returns:
        [B, C, H, W].
    """
    B, C, H, W = pixels.shape
    y = torch.arange(H, device=pixels.device) + offsets[:, :1]  # [B, H]
    x = torch.arange(W, device=pixels.device)
    x = torch.where(flips[:, None], x.flip(0), x) + offsets[:, 1:]  # [B, W]
    # One flat index for all channels: indexing by image, row and column is four times slower on a CPU.
    source = y[:, :, None] * (W + 2 * padding) + x[:, None, :]  # [B, H, W]
    padded = F.pad(pixels, (padding,) * 4).flatten(2)
    return padded.gather(2, source.view(B, 1, H * W).expand(B, C, H * W)).view(B, C, H, W)
