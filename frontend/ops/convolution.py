"""Convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from .mathematic import broadcast_to, divide_scalar, reshape, summation, transpose
from .movement import dilate, flip, pad, slice_axes


class Conv(TensorOp):
    """Convolution of an NHWC image by an HWIO kernel.

    Args:
        stride: of both image axes; padding: zeros around the image.
    """

    def __init__(self, stride: int = 1, padding: int = 0) -> None:
        self.stride, self.padding = stride or 1, padding or 0

    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        p = self.padding
        a = np.pad(a, ((0, 0), (p, p), (p, p), (0, 0)))
        kh, kw, c, o = b.shape
        windows = np.lib.stride_tricks.sliding_window_view(a, (kh, kw), (1, 2))[:, :: self.stride, :: self.stride]
        n, h, w = windows.shape[:3]
        # (n, h, w, c, kh, kw) -> rows of kh * kw * c
        rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(n * h * w, kh * kw * c)
        return (rows @ b.reshape(kh * kw * c, o)).reshape(n, h, w, o)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        _, height, width, _ = a.shape
        kh, kw, _, _ = b.shape
        spread = dilate(out_grad, (1, 2), self.stride - 1) if self.stride > 1 else out_grad
        # the zeros that dilation puts behind the last element would count as further outputs
        rows, columns = height + 2 * self.padding - kh + 1, width + 2 * self.padding - kw + 1
        spread = _resize(spread, rows, columns)
        turned = transpose(flip(b, (0, 1)), (0, 1, 3, 2))
        border = ((0, 0), (kh - 1 - self.padding,) * 2, (kw - 1 - self.padding,) * 2, (0, 0))
        if min(kh, kw) - 1 >= self.padding:
            grad_a = conv(pad(spread, border), turned)
        else:
            full = conv(pad(spread, ((0, 0), (kh - 1,) * 2, (kw - 1,) * 2, (0, 0))), turned)
            p = self.padding
            n, _, _, c = full.shape
            grad_a = slice_axes(full, (0, p, p, 0), (n, p + height, p + width, c))
        images = transpose(a, (3, 1, 2, 0))
        kernels = transpose(spread, (1, 2, 0, 3))
        grad_b = transpose(conv(images, kernels, padding=self.padding), (1, 2, 0, 3))
        return grad_a, grad_b

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.conv2d(a, b, stride=self.stride, padding=self.padding, layout="NHWC", kernel_layout="HWIO")


def _resize(a: Tensor, rows: int, columns: int) -> Tensor:
    """An NHWC tensor cut or filled with zeros to a height and width."""
    n, h, w, c = a.shape
    if h > rows or w > columns:
        a = slice_axes(a, (0, 0, 0, 0), (n, min(h, rows), min(w, columns), c))
    if h < rows or w < columns:
        a = pad(a, ((0, 0), (0, max(rows - h, 0)), (0, max(columns - w, 0)), (0, 0)))
    return a


def conv(a: Tensor, b: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return Conv(stride, padding)(a, b)


class MaxPool2d(TensorOp):
    """The maximum of each square window of an NCHW image; windows do not overlap."""

    def __init__(self, kernel_size: int) -> None:
        self.kernel_size = kernel_size

    def compute(self, a: np.ndarray) -> np.ndarray:
        return _windows(a, self.kernel_size).max(axis=(3, 5))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        k, windows = self.kernel_size, _windows(a.numpy(), self.kernel_size)
        hits = (windows == windows.max(axis=(3, 5), keepdims=True)).astype(a.dtype)
        share = hits / hits.sum(axis=(3, 5), keepdims=True)  # equal maxima share the gradient
        n, c, h, w = out_grad.shape
        spread = broadcast_to(reshape(out_grad, (n, c, h, 1, w, 1)), (n, c, h, k, w, k))
        return reshape(spread * Tensor.make_const(share.astype(a.dtype)), a.shape)

    def lower(self, g: Any, a: Any) -> Any:
        return g.max_pool2d(a, kernel=self.kernel_size)


def _windows(a: np.ndarray, k: int) -> np.ndarray:
    n, c, h, w = a.shape
    if h % k or w % k:
        raise ValueError(f"pooling windows of {k} do not tile an image of {h} x {w}")
    return a.reshape(n, c, h // k, k, w // k, k)


def max_pool2d(a: Tensor, kernel_size: int) -> Tensor:
    return MaxPool2d(kernel_size)(a)


def avg_pool2d(a: Tensor, kernel_size: int) -> Tensor:
    """The mean of each square window of an NCHW image; windows do not overlap."""
    n, c, h, w = a.shape
    k = kernel_size
    _windows(a.numpy(), k)
    return divide_scalar(summation(reshape(a, (n, c, h // k, k, w // k, k)), (3, 5)), k * k)
