"""Convolution of channels-last images of any number of dimensions, and its two transposes.

The three are one trilinear form of image, kernel and result, read in three ways; so each one's gradients are the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..autograd import Tensor
from .common import ProductOp


class _Convolution(ProductOp):
    """Settings of a convolution of images (n, *size, c) by kernels (*window, c / groups, o) to results (n, *places, o).

    Args:
        stride, padding, dilation: one number for each dimension of the image; padding is of zeros, on both sides.
        groups: parts of the channels that are convolved apart.
        size: extents of the image, where the image is the result; window: of the kernel, where that is.
    """

    def __init__(
        self,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        size: Sequence[int] = (),
        window: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = tuple(stride), tuple(padding), tuple(dilation), groups
        self.size, self.window = tuple(size), tuple(window)

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.groups

    def places(self, size: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
        """Extents of the result."""
        return tuple(
            (e + 2 * p - d * (k - 1) - 1) // s + 1
            for e, k, s, p, d in zip(size, window, self.stride, self.padding, self.dilation)
        )

    def bordered(self, a: np.ndarray) -> np.ndarray:
        return np.pad(a, ((0, 0), *((p, p) for p in self.padding), (0, 0))) if any(self.padding) else a

    def taps(self, window: Sequence[int], places: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """For each element of the window: its place there, and the pixels of the padded image that it meets."""
        for tap in product(*map(range, window)):
            cut = (
                slice(t * d, t * d + (e - 1) * s + 1, s) for t, d, e, s in zip(tap, self.dilation, places, self.stride)
            )
            yield tap, (slice(None), *cut)

    def rows(self, a: np.ndarray) -> np.ndarray:
        """(..., channels) -> (groups, pixels, channels of a group)."""
        return a.reshape(prod(a.shape[:-1]), self.groups, a.shape[-1] // self.groups).swapaxes(0, 1)

    def parts(self, tap: np.ndarray) -> np.ndarray:
        """(c / groups, o) -> (groups, c / groups, o / groups)."""
        return tap.reshape(tap.shape[0], self.groups, -1).swapaxes(0, 1)

    def merged(self, rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """(groups, pixels, channels of a group) -> a shape (..., channels)."""
        return rows.swapaxes(0, 1).reshape(shape)

    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.rounded(self.combine(*self.rounded(a, b)))[0]

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        x, y = self.lowered(g, a, b)
        result = self.emit(g, x, y)
        return result if x is a else g.cast(result, dtype="float32")

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The result, in NumPy."""
        raise NotImplementedError

    def emit(self, g: Any, a: Any, b: Any) -> Any:
        """The result, in a graph."""
        raise NotImplementedError


class Conv(_Convolution):
    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        window, image = b.shape[:-2], self.bordered(a)
        places = self.places(a.shape[1:-1], window)
        total: Any = 0
        for tap, cut in self.taps(window, places):
            total = total + self.rows(image[cut]) @ self.parts(b[tap])
        return self.merged(total, (a.shape[0], *places, b.shape[-1]))

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        image, kernel = a.shape[1:-1], b.shape[:-2]
        return ConvImage(*self.settings, size=image)(out_grad, b), ConvKernel(*self.settings, window=kernel)(
            a, out_grad
        )

    def emit(self, g: Any, a: Any, b: Any) -> Any:
        dims, settings = len(self.stride), _settings(self)
        if dims == 2:
            return g.conv2d(a, b, layout="NHWC", kernel_layout="HWIO", **settings)
        layouts = {1: ("NWC", "WIO"), 3: ("NDHWC", "DHWIO")}[dims]
        return g.op(f"conv{dims}d", a, b, layout=layouts[0], kernel_layout=layouts[1], **settings)


class ConvImage(_Convolution):
    """The image whose convolution a result is the gradient of."""

    def combine(self, y: np.ndarray, b: np.ndarray) -> np.ndarray:
        window, places, channels = b.shape[:-2], y.shape[1:-1], b.shape[-2] * self.groups
        padded = tuple(e + 2 * p for e, p in zip(self.size, self.padding))
        image = np.zeros((y.shape[0], *padded, channels), y.dtype)
        results = self.rows(y)
        for tap, cut in self.taps(window, places):
            image[cut] += self.merged(results @ self.parts(b[tap]).swapaxes(1, 2), (y.shape[0], *places, channels))
        inside = tuple(slice(p, p + e) for p, e in zip(self.padding, self.size))
        return np.ascontiguousarray(image[(slice(None), *inside)])

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        y, b = node.inputs
        return Conv(*self.settings)(out_grad, b), ConvKernel(*self.settings, window=b.shape[:-2])(out_grad, y)

    def emit(self, g: Any, y: Any, b: Any) -> Any:
        dims = len(self.stride)
        if dims == 1:  # an image of one row
            flat = ConvImage((1, *self.stride), (0, *self.padding), (1, *self.dilation), self.groups, (1, *self.size))
            n, *rest = y.type.shape
            image = flat.emit(g, g.reshape(y, shape=(n, 1, *rest)), g.reshape(b, shape=(1, *b.type.shape)))
            return g.reshape(image, shape=(n, *image.type.shape[2:]))
        if dims > 2:
            return self.by_convolution(g, y, b)
        window, places = b.type.shape[:2], y.type.shape[1:3]
        extra = tuple(
            e - ((r - 1) * s - 2 * p + d * (k - 1) + 1)
            for e, r, k, s, p, d in zip(self.size, places, window, self.stride, self.padding, self.dilation)
        )
        kernel = g.transpose(b, axes=(3, 2, 0, 1))
        return g.conv2d_transpose(y, kernel, output_padding=extra, layout="NHWC", **_settings(self))

    def by_convolution(self, g: Any, y: Any, b: Any) -> Any:
        """As the convolution of the result, with zeros between its places and around them, by the kernel turned around."""
        dims, (n, *places, outputs) = len(self.stride), y.type.shape
        *window, depth, _ = b.type.shape
        apart = g.reshape(y, shape=(n, *(v for e in places for v in (e, 1)), outputs))
        apart = g.pad(apart, pad_width=((0, 0), *(w for s in self.stride for w in ((0, 0), (0, s - 1))), (0, 0)))
        spread = [e * s for e, s in zip(places, self.stride)]
        apart = g.reshape(apart, shape=(n, *spread, outputs))
        before = [d * (k - 1) - p for d, k, p in zip(self.dilation, window, self.padding)]
        wanted = [e + d * (k - 1) for e, d, k in zip(self.size, self.dilation, window)]
        # what the pixels see begins `before` places ahead of the first, or behind it
        after = [max(0, w - lead - e) for w, lead, e in zip(wanted, before, spread)]
        apart = g.pad(apart, pad_width=((0, 0), *((max(0, lead), x) for lead, x in zip(before, after)), (0, 0)))
        begin = [max(0, -lead) for lead in before]
        end = [at + w for at, w in zip(begin, wanted)]
        apart = g.slice(apart, begin=(0, *begin, 0), end=(n, *end, outputs), strides=(1,) * (dims + 2))
        turned = g.flip(b, axes=tuple(range(dims)))
        parts = g.reshape(turned, shape=(*window, depth, self.groups, outputs // self.groups))
        order = (*range(dims), dims + 2, dims + 1, dims)
        kernel = g.reshape(g.transpose(parts, axes=order), shape=(*window, outputs // self.groups, self.groups * depth))
        return g.op(f"conv{dims}d", apart, kernel, layout="NDHWC", kernel_layout="DHWIO", stride=1, padding=0,
                    dilation=self.dilation, groups=self.groups)  # fmt: skip


class ConvKernel(_Convolution):
    """The kernel by which an image's convolution a result is the gradient of."""

    def combine(self, a: np.ndarray, y: np.ndarray) -> np.ndarray:
        image, results = self.bordered(a), self.rows(y)
        depth, outputs = a.shape[-1] // self.groups, y.shape[-1]
        kernel = np.empty((*self.window, depth, outputs), y.dtype)
        for tap, cut in self.taps(self.window, y.shape[1:-1]):
            kernel[tap] = self.merged(self.rows(image[cut]).swapaxes(1, 2) @ results, (depth, outputs))
        return kernel

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, y = node.inputs
        return ConvImage(*self.settings, size=a.shape[1:-1])(y, out_grad), Conv(*self.settings)(a, out_grad)

    def emit(self, g: Any, a: Any, y: Any) -> Any:
        if any(self.padding):
            a = g.pad(a, pad_width=((0, 0), *((p, p) for p in self.padding), (0, 0)))
        if self.groups in (1, y.type.shape[-1]):
            settings = {"window": self.window, "stride": self.stride, "dilation": self.dilation, "groups": self.groups}
            return g.op("conv_backward_weight", a, y, **settings)
        return self.by_products(g, a, y)

    def by_products(self, g: Any, a: Any, y: Any) -> Any:
        """Groups of several channels: one product of batches of matrices for each element of the window."""
        n, *places, outputs = y.type.shape
        channels, groups, pixels = a.type.shape[-1], self.groups, n * prod(places)

        def by_group(t: Any, width: int) -> Any:
            return g.transpose(g.reshape(t, shape=(pixels, groups, width // groups)), axes=(1, 0, 2))

        results, found = by_group(y, outputs), []
        for _, (_, *cut) in self.taps(self.window, places):
            begin, end, strides = ((0, *(getattr(c, k) for c in cut), 0) for k in ("start", "stop", "step"))
            part = g.slice(a, begin=begin, end=(n, *end[1:-1], channels), strides=(1, *strides[1:-1], 1))
            product_ = g.matmul(g.transpose(by_group(part, channels), axes=(0, 2, 1)), results)
            found.append(g.reshape(g.transpose(product_, axes=(1, 0, 2)), shape=(1, channels // groups, outputs)))
        joined = found[0] if len(found) == 1 else g.concat(*found, axis=0)
        return g.reshape(joined, shape=(*self.window, channels // groups, outputs))


def _settings(op: _Convolution) -> dict[str, Any]:
    return {"stride": op.stride, "padding": op.padding, "dilation": op.dilation, "groups": op.groups}


def each(value: Any, dims: int, what: str, least: int) -> tuple[int, ...]:
    """One number for each dimension."""
    numbers = (value,) * dims if isinstance(value, (int, np.integer)) else tuple(value)
    if len(numbers) != dims or any(v < least for v in numbers):
        raise ValueError(f"{what} is a number of at least {least}, or {dims} of them; got {value!r}")
    return tuple(int(v) for v in numbers)


def _given(dims: int, stride: Any, padding: Any, dilation: Any, groups: int) -> tuple[Any, ...]:
    values = ((stride, "stride", 1), (padding, "padding", 0), (dilation, "dilation", 1))
    if groups < 1:
        raise ValueError(f"there is at least one group, got {groups}")
    return (*(each(v, dims, what, least) for v, what, least in values), groups)


def conv(a: Tensor, b: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Convolution (cross-correlation) of images by kernels.

    Args:
        a: (n, *size, c); b: (*window, c / groups, o); the result is (n, *places, o).
        stride, padding, dilation: one number, or one for each dimension.

    Raises:
        ValueError: shapes or settings that do not fit.
    """
    op = Conv(*_given(a.ndim - 2, stride, padding, dilation, groups))
    _check(op, a.shape, b.shape)
    return op(a, b)


def _check(op: _Convolution, image: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    groups = op.groups
    if len(image) < 3 or len(kernel) != len(image):
        raise ValueError(f"a convolution takes images (n, ..., c) and kernels (..., c, o); got {image} and {kernel}")
    if image[-1] != kernel[-2] * groups or kernel[-1] % groups:
        raise ValueError(f"a kernel {kernel} does not fit {image[-1]} channels in {groups} groups")
    if min(op.places(image[1:-1], kernel[:-2])) < 1:
        raise ValueError(f"a window {kernel[:-2]} does not fit an image {image[1:-1]} with padding {op.padding}")


def conv_transpose(
    a: Tensor, b: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, output_padding: Any = 0
) -> Tensor:
    """The transpose of a convolution: each pixel of `a` adds a copy of the kernel to the result.

    Args:
        a: (n, *size, c); b: (*window, o / groups, c), as the convolution has it that this one is the transpose of; the result
            is (n, *places, o).
        stride, padding, dilation, groups: of that convolution.
        output_padding: further rows and columns of the result, less than the stride or the dilation.
    """
    dims = a.ndim - 2
    settings = _given(dims, stride, padding, dilation, groups)
    extra = each(output_padding, dims, "output_padding", 0)
    if b.ndim != a.ndim or b.shape[-1] != a.shape[-1] or a.shape[-1] % groups:
        raise ValueError(f"a kernel {b.shape} does not fit an image {a.shape} in {groups} groups")
    if any(e and e >= max(s, d) for e, s, d in zip(extra, settings[0], settings[2])):
        raise ValueError(f"output_padding {output_padding} must be less than the stride or the dilation")
    size = tuple(
        (e - 1) * s - 2 * p + d * (k - 1) + 1 + x
        for e, k, s, p, d, x in zip(a.shape[1:-1], b.shape[:-2], *settings[:3], extra)
    )
    if min(size) < 1:
        raise ValueError(f"padding {padding} leaves nothing of an image {a.shape[1:-1]}")
    return ConvImage(*settings, size=size)(a, b)
