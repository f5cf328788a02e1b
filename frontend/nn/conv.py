"""Layers on images."""

from __future__ import annotations

import math
from typing import Any

from .. import init, ops
from ..autograd import Tensor
from .module import Module, Parameter


def _last(x: Tensor, layout: str) -> Tensor:
    """An image with its channels last."""
    return x if layout == "NHWC" else ops.permute(x, (0, 2, 3, 1))


def _as(y: Tensor, layout: str) -> Tensor:
    """A channels-last image in a layout."""
    return y if layout == "NHWC" else ops.permute(y, (0, 3, 1, 2))


def _check_layout(layout: str) -> str:
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"unknown layout {layout!r}: NCHW or NHWC")
    return layout


class Conv(Module):
    """Convolution of images by square kernels.

    The weight has shape (kernel_size, kernel_size, in_channels / groups, out_channels).

    Args:
        padding: by default half a kernel, so that the size stays where the stride is 1.
        layout: NCHW or NHWC, of images and results.
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
        *,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        k = kernel_size[0] if isinstance(kernel_size, tuple) else kernel_size
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not make {groups} groups")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = k
        self.stride = stride[0] if isinstance(stride, tuple) else stride
        self.padding = dilation * (k - 1) // 2 if padding is None else padding
        self.dilation, self.groups, self.layout = dilation, groups, _check_layout(layout)
        fan_in, fan_out = in_channels // groups * k * k, out_channels // groups * k * k
        shape = (k, k, in_channels // groups, out_channels)
        self.weight = Parameter(init.kaiming_uniform(fan_in, fan_out, shape=shape, dtype=dtype))
        bound = 1.0 / math.sqrt(fan_in)
        self.bias = Parameter(init.rand(out_channels, low=-bound, high=bound, dtype=dtype)) if bias else None

    def describe(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv(_last(x, self.layout), self.weight, self.stride, self.padding, self.dilation, self.groups)
        return _as(y if self.bias is None else y + self.bias, self.layout)


class ConvTranspose(Module):
    """The transpose of a convolution of images: with a stride, the result is larger than the image.

    The weight has shape (kernel_size, kernel_size, out_channels / groups, in_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        *,
        padding: int = 0,
        output_padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not make {groups} groups")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.settings = (stride, padding, dilation, groups, output_padding)
        self.layout = _check_layout(layout)
        fan_in = in_channels // groups * kernel_size * kernel_size
        shape = (kernel_size, kernel_size, out_channels // groups, in_channels)
        self.weight = Parameter(init.kaiming_uniform(fan_in, fan_in, shape=shape, dtype=dtype))
        bound = 1.0 / math.sqrt(fan_in)
        self.bias = Parameter(init.rand(out_channels, low=-bound, high=bound, dtype=dtype)) if bias else None

    def describe(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.settings[0]}"

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv_transpose(_last(x, self.layout), self.weight, *self.settings)
        return _as(y if self.bias is None else y + self.bias, self.layout)


class MaxPool2d(Module):
    """The maximum of each window of NCHW images; windows lie side by side unless a stride is given."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def describe(self) -> str:
        return str(self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(MaxPool2d):
    """The mean of each window of NCHW images; windows lie side by side unless a stride is given."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class GlobalAvgPool2d(Module):
    """(n, c, h, w) -> (n, c): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.mean(x, (2, 3))
