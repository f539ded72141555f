"""Conv2d with a fast CPU input gradient for few channels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROWS, COLUMNS = 4, 2  # fastest on MNIST with AVX2; with AVX-512, 4 × 4 is about as fast


class ImageConv2d(nn.Conv2d):
    """`nn.Conv2d` for the first layer of a CNN: the same weights, names, initialisation and output.

    An attack on the image needs the input gradient, which plain training never computes. On a CPU, oneDNN optimises it
    for many channels: with one it takes about twice as long as the sum of shifted products used here. The benchmark
    shows the remaining cost: each method's time over its floor on mnist-lenet.
    On other devices, in mixed precision, when compiled, or without an input gradient, this is plain `nn.Conv2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        usual = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        if (
            not usual
            or isinstance(self.padding, str)
            or not (input.requires_grad and torch.is_grad_enabled() and input.device.type == "cpu")
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        ):
            return super().forward(input)
        return _Convolution.apply(input, self.weight, self.bias, self.padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        ones, nothing = [1, 1], [0, 0]
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, x, weight, [weight.shape[0]], ones, list(ctx.padding), ones, False, nothing, 1,
            [False, *ctx.needs_input_grad[1:3]],
        )  # fmt: skip
        of_x = _of_input(gradient, weight, x.shape, ctx.padding) if ctx.needs_input_grad[0] else None
        return of_x, of_weight, of_bias, None


def _of_input(gradient: Tensor, weight: Tensor, shape: torch.Size, padding: tuple[int, int]) -> Tensor:
    """[B, O, h, w] and [O, C, m, n] → [B, C, H, W]."""
    _, C, H, W = shape
    m, n = weight.shape[2:]
    large_kernel = C == 1 and m * n >= 16 and padding[0] < m and padding[1] < n
    if large_kernel and H % ROWS == 0 and W % COLUMNS == 0:
        return _by_blocks(gradient, weight, padding)
    return _by_shifts(gradient, weight, shape, padding)


def _by_blocks(gradient: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the input gradient [B, 1, H, W]; a block of 4 × 2 pixels is eight output channels of one convolution.

    It is a convolution with the flipped kernel. With one channel it would fill one of the eight or sixteen numbers that
    a CPU instruction holds.
    """
    m, n = weight.shape[2:]
    flipped = F.pad(weight.flip(2, 3).transpose(0, 1), (COLUMNS - 1, COLUMNS - 1, ROWS - 1, ROWS - 1))
    windows = flipped.unfold(2, m + ROWS - 1, 1).unfold(3, n + COLUMNS - 1, 1).flip(2, 3)  # [1, O, 4, 2, m + 3, n + 1]
    kernels = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    blocks = F.conv2d(gradient, kernels, stride=(ROWS, COLUMNS), padding=(m - 1 - padding[0], n - 1 - padding[1]))
    B, _, h, w = blocks.shape
    return blocks.view(B, 1, ROWS, COLUMNS, h, w).permute(0, 1, 4, 2, 5, 3).reshape(B, 1, h * ROWS, w * COLUMNS)


def _by_shifts(gradient: Tensor, weight: Tensor, shape: torch.Size, padding: tuple[int, int]) -> Tensor:
    """Add each weight's share of the gradient where it read."""
    B, C, H, W = shape
    (m, n), (h, w), (top, left) = weight.shape[2:], gradient.shape[2:], padding
    # Not `@`: if the weight requires a gradient, it would copy the other factor into one large matrix.
    shares = torch.bmm(weight.flatten(1).T.expand(B, -1, -1), gradient.flatten(2)).view(B, C, m, n, h, w)
    padded = gradient.new_zeros(B, C, H + 2 * top, W + 2 * left)
    places = padded.unfold(2, h, 1).unfold(3, w, 1)  # [B, C, m, n, h, w]: the pixels that each weight read
    for of_row, from_row in zip(places.unbind(2), shares.unbind(2), strict=True):
        for place, share in zip(of_row.unbind(2), from_row.unbind(2), strict=True):
            place.add_(share)  # `+=` on a slice would slice it a second time to assign it
    return padded[:, :, top : top + H, left : left + W]
