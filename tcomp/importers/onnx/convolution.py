"""Convolutions and pooling, of one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import padded
from .node import Node
from .table import converts


def window_of(c: Node, kernel: Sequence[int], ceil: bool = False) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Strides, paddings and dilations, a number (or a pair) for each dimension."""
    dims, size = len(kernel), c.static()[2:]
    strides, dilations = c.ints("strides") or [1] * dims, c.ints("dilations") or [1] * dims
    if not len(strides) == len(dilations) == len(size) == dims or min(strides + dilations + list(kernel)) < 1:
        raise c.refuse(f"strides {strides} and dilations {dilations} do not fit an image of {dims} dimensions")
    mode = c.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for n, k, s, d in zip(size, kernel, strides, dilations):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            half = total // 2
            pads.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
        return strides, pads, dilations
    given = c.ints("pads") or [0] * 2 * dims
    if mode == "VALID":
        given = [0] * 2 * dims
    if len(given) != 2 * dims:
        raise c.refuse(f"{len(given)} paddings for {dims} dimensions")
    return strides, list(zip(given[:dims], given[dims:])), dilations


@converts("Conv")
def conv(c: Node) -> Operand:
    y = convolved(c, c[0], c[1])
    return y if not c.has(2) else c.g.op("add", y, channels(c, c[2], y))


def channels(c: Node, bias: Operand, y: Operand) -> Operand:
    """One number a channel, as a tensor that broadcasts over an image."""
    return c.reshape(bias, (bias.type.shape[0], *(1 for _ in range(y.type.ndim - 2))))


def convolved(c: Node, x: Operand, w: Operand) -> Operand:
    """A convolution without its bias; images of one dimension are those of one row."""
    kernel = w.type.extents[2:]
    if not kernel or len(kernel) > 3:
        raise c.refuse(f"an image of {len(kernel)} dimensions", "1 to 3")
    given = c.ints("kernel_shape")
    if given is not None and tuple(given) != kernel:
        raise c.refuse(f"kernel_shape {given} is not that of the weights, {w.type}")
    strides, pads, dilations = window_of(c, kernel)
    groups = c.attr("group", 1)
    if any(min(p) < 0 for p in pads):
        x = padded(c, x, [(0, 0), (0, 0), *((min(a, 0), min(b, 0)) for a, b in pads)])
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
    if len(kernel) == 3:
        if any(a != b for a, b in pads):
            x = padded(c, x, [(0, 0), (0, 0), *pads])
            pads = [(0, 0)] * 3
        return c.g.op(
            "conv3d",
            x,
            w,
            stride=tuple(strides),
            padding=tuple(a for a, _ in pads),
            dilation=tuple(dilations),
            groups=groups,
        )
    return in_two(c, x, w, strides, pads, dilations, groups)


def in_two(
    c: Node, x: Operand, w: Operand, strides: Sequence[int], pads: Sequence[tuple[int, int]],
    dilations: Sequence[int], groups: int,
) -> Operand:  # fmt: skip
    """A convolution of one or two dimensions."""
    is_row = x.type.ndim == 3
    if is_row:
        x, w = (c.reshape(t, (*t.type.shape[:2], 1, t.type.shape[2])) for t in (x, w))
        strides, pads, dilations = [1, *strides], [(0, 0), *pads], [1, *dilations]
    (top, bottom), (left, right) = pads
    y: Operand = c.g.op(
        "conv2d",
        x,
        w,
        stride=tuple(strides),
        padding=(top, left, bottom, right),
        dilation=tuple(dilations),
        groups=groups,
    )
    return c.reshape(y, (*y.type.shape[:2], y.type.shape[3])) if is_row else y


@converts("ConvTranspose")
def conv_transpose(c: Node) -> Operand:
    x, w = c[0], c[1]
    kernel, size, groups = w.type.extents[2:], c.static()[2:], c.attr("group", 1)
    dims = len(kernel)
    strides, dilations = c.ints("strides") or [1] * dims, c.ints("dilations") or [1] * dims
    extra = c.ints("output_padding") or [0] * dims
    full = [s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(size, kernel, strides, dilations)]
    pads = _transposed_pads(c, size, full, strides, extra)
    y = _transposed(c, x, w, strides, dilations, groups)
    widths = [(-a, e - b) for (a, b), e in zip(pads, extra)]
    y = padded(c, y, [(0, 0), (0, 0), *widths])
    return y if not c.has(2) else c.g.op("add", y, channels(c, c[2], y))


def _transposed_pads(
    c: Node, size: Sequence[int], full: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> list[tuple[int, int]]:
    """How much of the whole result is taken away at both ends of each dimension."""
    dims, mode = len(size), c.attr("auto_pad", "NOTSET")
    wanted = c.ints("output_shape")
    if mode in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
        wanted = [n * s for n, s in zip(size, strides)]
    if wanted is None:
        given = c.ints("pads") or [0] * 2 * dims
        return list(zip(given[:dims], given[dims:]))
    pads = []
    for have, want, e in zip(full, wanted[-dims:], extra):
        total = have + e - want
        half = total // 2
        pads.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return pads


def _transposed(
    c: Node, x: Operand, w: Operand, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> Operand:
    """The whole transposed convolution, nothing taken away."""
    if x.type.ndim == 5:
        return _transposed_volume(c, x, w, strides, dilations, groups)
    is_row = x.type.ndim == 3
    if is_row:
        x, w = (c.reshape(t, (*t.type.shape[:2], 1, t.type.shape[2])) for t in (x, w))
        strides, dilations = [1, *strides], [1, *dilations]
    y: Operand = c.g.op(
        "conv2d_transpose", x, w, stride=tuple(strides), padding=0, dilation=tuple(dilations), groups=groups
    )
    return c.reshape(y, (*y.type.shape[:2], y.type.shape[3])) if is_row else y


def _transposed_volume(
    c: Node, x: Operand, w: Operand, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> Operand:
    """As a convolution of the image with zeros between its elements, with the kernel turned around."""
    kernel = w.type.extents[2:]
    for d, s in enumerate(strides):
        if s > 1:
            x = c.g.op("dilate", x, axes=(d + 2,), dilation=s - 1)
            x = padded(c, x, [(0, 1 - s) if a == d + 2 else (0, 0) for a in range(5)])
    inputs, outputs = w.type.extents[:2]
    w = c.g.op("flip", w, axes=(2, 3, 4))
    apart = c.reshape(w, (groups, inputs // groups, outputs, *kernel))
    turned = c.reshape(c.transpose(apart, (0, 2, 1, 3, 4, 5)), (groups * outputs, inputs // groups, *kernel))
    reach = tuple(d * (k - 1) for d, k in zip(dilations, kernel))
    return c.g.op("conv3d", x, turned, stride=1, padding=reach, dilation=tuple(dilations), groups=groups)


# pooling


def _ceiled(c: Node, kernel: Sequence[int]) -> tuple[list[int], list[tuple[int, int]], list[int], list[int]]:
    """As `window_of`, with what ceil_mode adds behind the image: a last window that begins inside of it."""
    strides, pads, dilations = window_of(c, kernel)
    more = [0] * len(kernel)
    if c.attr("ceil_mode", 0):
        for i, (n, k, s, d) in enumerate(zip(c.static()[2:], kernel, strides, dilations)):
            a, b = pads[i]
            span = n + a + b - d * (k - 1) - 1
            count = -(-span // s) + 1
            if (count - 1) * s >= n + a:
                count -= 1
            more[i] = max((count - 1) * s + d * (k - 1) + 1 - n - a - b, 0)
    return strides, pads, dilations, more


def pooled(
    c: Node, name: str, x: Operand, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
) -> Operand:  # fmt: skip
    """Pooling of one to three dimensions, by two at a time: windows are products of intervals."""
    dims, shape = len(kernel), x.type.shape
    if dims not in (1, 2, 3):
        raise c.refuse(f"an image of {dims} dimensions", "1 to 3")
    more = {"count_include_pad": True} if name == "avg_pool2d" else {}

    def two(x: Operand, at: slice) -> Operand:
        (ka, kb), (sa, sb), (da, db) = (tuple(v[at]) for v in (kernel, strides, dilations))
        (top, bottom), (left, right) = pads[at]
        y: Operand = c.g.op(
            name, x, kernel=(ka, kb), stride=(sa, sb), padding=(top, left, bottom, right), dilation=(da, db), **more
        )
        return y

    if dims == 2:
        return two(x, slice(0, 2))
    n, channels, *size = shape
    if dims == 1:
        kernel, strides, pads, dilations = [1, *kernel], [1, *strides], [(0, 0), *pads], [1, *dilations]
        y = two(c.reshape(x, (n, channels, 1, size[0])), slice(0, 2))
        return c.reshape(y, (n, channels, y.type.shape[3]))
    y = two(c.reshape(x, (n, channels * size[0], *size[1:])), slice(1, 3))
    h, w = y.type.shape[2:]
    kernel, strides, pads, dilations = [kernel[0], 1], [strides[0], 1], [pads[0], (0, 0)], [dilations[0], 1]
    y = two(c.reshape(y, (n, channels, size[0], h * w)), slice(0, 2))
    return c.reshape(y, (n, channels, y.type.shape[2], h, w))


@converts("MaxPool")
def max_pool(c: Node) -> Any:
    kernel = c.ints("kernel_shape") or []
    strides, pads, dilations, more = _ceiled(c, kernel)
    around = [(a, b + m) for (a, b), m in zip(pads, more)]
    if c.num_outputs < 2:
        return pooled(c, "max_pool2d", c[0], kernel, strides, around, dilations)
    if len(kernel) != 2:
        raise c.refuse(f"places in an image of {len(kernel)} dimensions", "2")
    (top, bottom), (left, right) = around
    values, places = c.g.op(
        "max_pool2d_places", c[0], kernel=tuple(kernel), stride=tuple(strides), padding=(top, left, bottom, right),
        dilation=tuple(dilations),
    )  # fmt: skip
    n, channels, h, w = c.static()
    if c.attr("storage_order", 0):  # columns one after another
        width = c.constant(np.asarray(w, np.int64))
        row, column = c.g.op("floor_divide", places, width), c.g.op("floor_mod", places, width)
        places = c.g.op("add", c.g.op("multiply_scalar", column, scalar=h), row)
    first = np.arange(n * channels).reshape(n, channels, 1, 1) * (h * w)
    return values, c.g.op("add", places, c.constant(first))


def _mean_of_windows(
    c: Node, x: Operand, kernel: Sequence[int], counted: Sequence[Sequence[int]], strides: Sequence[int],
    pads: Sequence[tuple[int, int]], dilations: Sequence[int],
) -> Operand:  # fmt: skip
    """Means over windows, divided by how many elements of each one count.

    Args:
        counted: for each dimension and place, how many taps count.
    """
    y = pooled(c, "avg_pool2d", x, kernel, strides, pads, dilations)
    if all(n == k for numbers, k in zip(counted, kernel) for n in numbers):
        return y
    factor: Any = np.ones(())
    for numbers, k in zip(counted, kernel):
        factor = factor[..., None] * (k / np.maximum(np.asarray(numbers, np.float64), 1))
    return c.g.op("multiply", y, c.constant(factor, y))


@converts("AveragePool")
def average_pool(c: Node) -> Operand:
    kernel = c.ints("kernel_shape") or []
    strides, pads, dilations, more = _ceiled(c, kernel)
    includes = bool(c.attr("count_include_pad", 0))
    counted = []
    for n, k, s, (a, b), d, m in zip(c.static()[2:], kernel, strides, pads, dilations, more):
        count = (n + a + b + m - d * (k - 1) - 1) // s + 1
        low, high = (-a, n + b) if includes else (0, n)
        counted.append([sum(low <= i * s - a + j * d < high for j in range(k)) for i in range(count)])
    around = [(a, b + m) for (a, b), m in zip(pads, more)]
    return _mean_of_windows(c, c[0], kernel, counted, strides, around, dilations)


@converts("LpPool")
def lp_pool(c: Node) -> Operand:
    """(sum |x|^p)^(1/p) over windows."""
    x, p = c[0], c.attr("p", 2)
    kernel = c.ints("kernel_shape") or []
    strides, pads, dilations, more = _ceiled(c, kernel)
    size = c.g.op("abs", x)
    powers = size if p == 1 else c.g.op("power_scalar", size, scalar=float(p))
    mean = pooled(c, "avg_pool2d", powers, kernel, strides, [(a, b + m) for (a, b), m in zip(pads, more)], dilations)
    total = c.g.op("multiply_scalar", mean, scalar=float(prod(kernel)))
    return total if p == 1 else c.g.op("power_scalar", total, scalar=1 / p)


@converts("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(c: Node) -> Operand:
    x = c[0]
    axes = tuple(range(2, x.type.ndim))
    if c.op == "GlobalAveragePool" and x.type.ndim == 4:
        return c.g.op("global_avg_pool2d", x)
    if c.op == "GlobalLpPool":
        p = float(c.attr("p", 2))
        powers = c.g.op("power_scalar", c.g.op("abs", x), scalar=p)
        return c.g.op("power_scalar", c.g.op("sum", powers, axes=axes, keepdims=True), scalar=1 / p)
    name = "mean" if c.op == "GlobalAveragePool" else "max"
    return c.g.op(name, x, axes=axes, keepdims=True)


@converts("MaxUnpool")
def max_unpool(c: Node) -> Operand:
    x, places = c[0], c[1]
    kernel = c.ints("kernel_shape") or []
    strides = c.ints("strides") or [1] * len(kernel)
    pads = c.ints("pads") or [0] * 2 * len(kernel)
    n, channels, *size = c.static()
    dims = len(kernel)
    natural = [(e - 1) * s + k - pads[i] - pads[dims + i] for i, (e, s, k) in enumerate(zip(size, strides, kernel))]
    wanted = [n, channels, *natural]
    flat = c.reshape(places, (prod(c.static()),))
    if c.has(2):
        wanted = c.integers(2)
    start = c.zeros((prod(wanted),), x.type.dtype)
    if wanted[2:] != natural:  # places count in the natural shape
        digits, rest = [], flat
        for e in reversed([n, channels, *natural]):
            limit = c.constant(np.asarray(e, np.int64))
            digits.append(c.g.op("floor_mod", rest, limit))
            rest = c.g.op("floor_divide", rest, limit)
        flat = c.constant(np.asarray(0, np.int64))
        for e, digit in zip(wanted, reversed(digits)):
            flat = c.g.op("add", c.g.op("multiply_scalar", flat, scalar=e), digit)
    filled = c.g.op("scatter", start, flat, c.reshape(x, (prod(c.static()),)), axis=0)
    return c.reshape(filled, wanted)


@converts("LRN")
def lrn(c: Node) -> Operand:
    """x / (bias + alpha / size * sum of squares of the channels around)^beta."""
    x, size = c[0], c.needed("size", int)
    alpha, beta, bias = c.attr("alpha", 1e-4), c.attr("beta", 0.75), c.attr("bias", 1.0)
    n, channels, *rest = c.static()
    # channels lie across, so that neighbouring pixels are neighbours in memory
    squares = c.reshape(c.g.op("multiply", x, x), (n, 1, channels, prod(rest)))
    before = (size - 1) // 2
    mean = c.g.op(
        "avg_pool2d", squares, kernel=(1, size), stride=(1, 1), padding=(0, before, 0, size - 1 - before),
        count_include_pad=True, layout="NHWC",
    )  # fmt: skip
    around = c.g.op("add_scalar", c.g.op("multiply_scalar", mean, scalar=alpha), scalar=bias)
    return c.g.op("divide", x, c.reshape(_positive_power(c, around, beta, bias > 0 <= alpha), c.static()))


def _positive_power(c: Node, x: Operand, exponent: float, is_positive: bool) -> Operand:
    """x to a power; of positive numbers, quarters are square roots and their products."""
    quarters = 4 * exponent
    if not is_positive or quarters not in (1, 2, 3, 4):
        return c.g.op("power_scalar", x, scalar=exponent)
    half = c.g.op("sqrt", x)
    return {
        1: lambda: c.g.op("sqrt", half),
        2: lambda: half,
        3: lambda: c.g.op("multiply", half, c.g.op("sqrt", half)),
        4: lambda: x,
    }[int(quarters)]()
