"""Layers on NCHW images."""

from __future__ import annotations

import math
from typing import Any

from .. import init, ops
from ..autograd import Tensor
from .basic import BatchNorm1d, Module, Parameter


class Conv(Module):
    """Convolution of NCHW images by square kernels, with padding that keeps the size where the stride is 1.

    The weight has shape (kernel_size, kernel_size, in_channels, out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        k = kernel_size[0] if isinstance(kernel_size, tuple) else kernel_size
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = k
        self.stride = stride[0] if isinstance(stride, tuple) else stride
        area = k * k
        shape = (k, k, in_channels, out_channels)
        self.weight = Parameter(init.kaiming_uniform(in_channels * area, out_channels * area, shape=shape, dtype=dtype))
        bound = 1.0 / math.sqrt(in_channels * area)
        self.bias = Parameter(init.rand(out_channels, low=-bound, high=bound, dtype=dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv(ops.transpose(x, (0, 2, 3, 1)), self.weight, self.stride, self.kernel_size // 2)
        if self.bias is not None:
            y = y + self.bias.broadcast_to(y.shape)
        return ops.transpose(y, (0, 3, 1, 2))


class BatchNorm2d(BatchNorm1d):
    """Batch normalisation of each channel of NCHW images."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        n, c, h, w = x.shape
        rows = ops.transpose(x, (0, 2, 3, 1)).reshape((n * h * w, c))
        return ops.transpose(super().forward(rows).reshape((n, h, w, c)), (0, 3, 1, 2))


class MaxPool2d(Module):
    """The maximum of each window; windows do not overlap."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size)


class AvgPool2d(Module):
    """The mean of each window; windows do not overlap."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size)


class GlobalAvgPool2d(Module):
    """(n, c, h, w) -> (n, c): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])
