"""Pooling of NCHW images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .convolution import each
from .promotion import in_float32


class _Pool(TensorOp):
    """Settings of windows over NCHW images.

    Args:
        kernel: height and width of a window; stride: steps between windows; padding: at most half a window.
    """

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def places(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((e + 2 * p - k) // s + 1 for e, k, s, p in zip(size, self.kernel, self.stride, self.padding))

    def border(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0), (0, 0), *((p, p) for p in self.padding))

    def cuts(self, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
        """For each element of a window: begin, end and strides of the pixels of the padded image that it meets."""
        n, c, *size = shape
        places = self.places(tuple(size))
        for tap in product(*map(range, self.kernel)):
            ends = (t + (e - 1) * s + 1 for t, e, s in zip(tap, places, self.stride))
            yield (0, 0, *tap), (n, c, *ends), (1, 1, *self.stride)

    def arrays(self, a: np.ndarray, border: float) -> Iterator[np.ndarray]:
        image = np.pad(a, self.border(), constant_values=border) if any(self.padding) else a
        return (image[tuple(map(slice, *cut))] for cut in self.cuts(a.shape))

    def tensors(self, a: Tensor, border: float) -> list[Tensor]:
        image = ops.pad(a, self.border(), border)
        return [ops.slice_axes(image, *cut) for cut in self.cuts(a.shape)]

    def lower_as(self, name: str, g: Any, a: Any) -> Any:
        return g.op(name, a, kernel=self.kernel, stride=self.stride, padding=self.padding)


class MaxPool2d(_Pool):
    """The maximum of each window. Elements that are equally great share the gradient."""

    def compute(self, a: np.ndarray) -> np.ndarray:
        best: Any = None
        for part in self.arrays(a, -np.inf):
            best = part.copy() if best is None else np.maximum(best, part, out=best)
        return best

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        hits = [ops.cast(ops.equal(part, node), a.dtype) for part in self.tensors(a.detach(), -np.inf)]
        count = hits[0]
        for hit in hits[1:]:
            count = count + hit
        return SpreadWindows(self, a.shape)(*(out_grad * (hit / count) for hit in hits))

    def lower(self, g: Any, a: Any) -> Any:
        return self.lower_as("max_pool2d", g, a)


class AvgPool2d(_Pool):
    """The mean of each window, of the padding's zeros too."""

    def compute(self, a: np.ndarray) -> np.ndarray:
        total: Any = 0
        for part in self.arrays(a, 0.0):
            total = total + part
        return total / a.dtype.type(self.kernel[0] * self.kernel[1])

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        count = self.kernel[0] * self.kernel[1]
        return SpreadWindows(self, node.inputs[0].shape)(*[out_grad / count] * count)

    def lower(self, g: Any, a: Any) -> Any:
        return self.lower_as("avg_pool2d", g, a)


class SpreadWindows(TensorOp):
    """The image to which each element of each window adds its value: the transpose of cutting an image into windows."""

    def __init__(self, pool: _Pool, shape: tuple[int, ...]) -> None:
        self.pool, self.shape = pool, shape

    def compute(self, *parts: np.ndarray) -> np.ndarray:
        n, c, *size = self.shape
        padding = self.pool.padding
        image = np.zeros((n, c, *(e + 2 * p for e, p in zip(size, padding))), parts[0].dtype)
        for cut, part in zip(self.pool.cuts(self.shape), parts):
            image[tuple(map(slice, *cut))] += part
        inside = (slice(p, p + e) for p, e in zip(padding, size))
        return np.ascontiguousarray(image[(slice(None), slice(None), *inside)])

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pool.tensors(out_grad, 0.0))

    def lower(self, g: Any, *parts: Any) -> Any:
        kernel, stride = self.pool.kernel, self.pool.stride
        n, c, *size = self.shape
        places = parts[0].type.shape[2:]
        if kernel == stride and not any(self.pool.padding) and all(e == p * k for e, p, k in zip(size, places, kernel)):
            wide = [g.reshape(p, shape=(n, c, places[0], 1, places[1], 1)) for p in parts]
            rows = [g.concat(*wide[i : i + kernel[1]], axis=5) for i in range(0, len(wide), kernel[1])]
            return g.reshape(g.concat(*rows, axis=3), shape=self.shape)
        padded = tuple(e + 2 * p for e, p in zip(size, self.pool.padding))
        total = None
        for (_, _, *tap), part in zip((cut[0] for cut in self.pool.cuts(self.shape)), parts):
            for axis, step in zip((2, 3), stride):
                part = g.dilate(part, axes=(axis,), dilation=step - 1) if step > 1 else part
            room = tuple(e - t for e, t in zip(padded, tap))
            kept = tuple(map(min, part.type.shape[2:], room))
            part = g.slice(part, begin=(0, 0, 0, 0), end=(n, c, *kept))
            sides = ((t, e - t - k) for t, e, k in zip(tap, padded, kept))
            part = g.pad(part, pad_width=((0, 0), (0, 0), *sides))
            total = part if total is None else g.add(total, part)
        begin = (0, 0, *self.pool.padding)
        return g.slice(total, begin=begin, end=(n, c, *(b + e for b, e in zip(begin[2:], size))))


def _windows(a: Tensor, kernel_size: Any, stride: Any, padding: Any) -> tuple[tuple[int, int], ...]:
    if a.ndim != 4:
        raise ValueError(f"pooling takes images (n, c, h, w), got {a.shape}")
    kernel = each(kernel_size, 2, "kernel_size", 1)
    steps = kernel if stride is None else each(stride, 2, "stride", 1)
    border = each(padding, 2, "padding", 0)
    if any(2 * p > k for p, k in zip(border, kernel)):
        raise ValueError(f"padding {padding} is more than half of a window of {kernel_size}")
    if any(e + 2 * p < k for e, p, k in zip(a.shape[2:], border, kernel)):
        raise ValueError(f"a window of {kernel_size} does not fit an image {a.shape[2:]}")
    return kernel, steps, border  # type: ignore[return-value]


def max_pool2d(a: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The maximum of each window of an NCHW image; windows lie side by side unless a stride is given."""
    return MaxPool2d(*_windows(a, kernel_size, stride, padding))(a)


@in_float32
def avg_pool2d(a: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The mean of each window of an NCHW image, the padding's zeros counted; windows lie side by side unless a stride is given."""
    return AvgPool2d(*_windows(a, kernel_size, stride, padding))(a)
