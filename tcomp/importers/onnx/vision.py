"""Images sampled at computed places."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ...ir.graph import Operand
from .node import Node
from .resize import cubic_weights
from .table import converts


def gathered(c: Node, rows: Operand, places: Sequence[Operand], size: Sequence[int]) -> Operand:
    """Pixels at integer places, one tensor for each dimension, moved to the nearest end.

    Args:
        rows: (batch, pixels, channels); places: (batch, ...). Returns (batch, ..., channels).
    """
    flat: Any = None
    for place, n in zip(places, size):
        inside = c.g.op("minimum_scalar", c.g.op("maximum_scalar", place, scalar=0), scalar=n - 1)
        flat = inside if flat is None else c.g.op("add", c.g.op("multiply_scalar", flat, scalar=n), inside)
    index = c.reshape(flat, (*flat.type.shape, 1))
    return c.g.op("gather_nd", rows, index, batch=1)


def pixels(c: Node, x: Operand) -> Operand:
    """(batch, channels, size...) -> (batch, pixels, channels)."""
    n, channels, *size = x.type.extents
    return c.transpose(c.reshape(x, (n, channels, prod(size))), (0, 2, 1))


def within(c: Node, place: Operand, n: int) -> Operand:
    """Whether a place lies on an axis of n elements."""
    low = c.g.op("greater_equal", place, c.constant(0, place))
    return c.g.op("logical_and", low, c.g.op("less", place, c.constant(n, place)))


@converts("GridSample")
def grid_sample(c: Node) -> Operand:
    x, grid = c[0], c[1]
    size = x.type.extents[2:]
    align, padding = bool(c.attr("align_corners", 0)), c.attr("padding_mode", "zeros")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(c.attr("mode", "linear"), c.attr("mode", "linear"))
    last = grid.type.ndim - 1
    taps: list[list[tuple[Operand, Operand | None, Operand | None]]] = []
    for d, n in enumerate(size):
        at = c.g.op("take", grid, c.constant(np.asarray(len(size) - 1 - d)), axis=last)
        scale = (n - 1) / 2 if align else n / 2
        place = c.g.op("add_scalar", c.g.op("multiply_scalar", at, scalar=scale), scalar=scale - (0 if align else 0.5))
        taps.append(_taps(c, place, n, mode, padding, align))
    rows = pixels(c, x)
    total: Any = None
    for chosen in product(*taps):
        value = gathered(c, rows, [t[0] for t in chosen], size)
        total = _weighted(
            c, total, value, [w for _, w, seen in chosen if w is not None], [s for *_, s in chosen if s is not None]
        )
    count = total.type.ndim - 2
    return c.transpose(total, (0, count + 1, *range(1, count + 1)))


def _weighted(c: Node, total: Any, value: Operand, weights: Sequence[Operand], seen: Sequence[Operand]) -> Any:
    """total + value * weights, where all of it is seen."""
    for s in seen:
        value = c.g.op("where", c.reshape(s, (*s.type.shape, 1)), value, c.constant(0, value))
    for w in weights:
        value = c.g.op("multiply", value, c.reshape(w, (*w.type.shape, 1)))
    return value if total is None else c.g.op("add", total, value)


def _reflected(c: Node, place: Operand, n: int, align: bool) -> Operand:
    """A place mirrored at both ends, at the middle of the last pixels or at their edges, as often as it takes."""
    g = c.g
    low, span = (0.0, float(n - 1)) if align else (-0.5, float(n))
    if span == 0:
        return g.op("multiply_scalar", place, scalar=0.0)
    size = g.op("abs", g.op("add_scalar", place, scalar=-low))
    rest = g.op("fmod", size, c.constant(2 * span, size))
    folded = g.op("minimum", rest, g.op("add_scalar", g.op("negative", rest), scalar=2 * span))
    inside = g.op("add_scalar", folded, scalar=low)
    return g.op("minimum_scalar", g.op("maximum_scalar", inside, scalar=0.0), scalar=float(n - 1))


def _taps(c: Node, place: Operand, n: int, mode: str, padding: str, align: bool) -> list[Any]:
    """(integer place, weight or None, whether it is seen or None) for each neighbour along one axis."""
    g = c.g

    def whole(at: Operand) -> tuple[Operand, Operand | None]:
        if padding == "reflection":
            at = _reflected(c, at, n, align)
        return c.cast(at, "int64"), within(c, at, n) if padding == "zeros" else None

    if padding == "border" and mode != "cubic":
        place = g.op("minimum_scalar", g.op("maximum_scalar", place, scalar=0.0), scalar=float(n - 1))
    if padding == "reflection" and mode != "cubic":
        place = _reflected(c, place, n, align)
    if mode == "nearest":
        at, seen = whole(g.op("round", place))
        return [(at, None, seen)]
    first = g.op("floor", place)
    part = g.op("subtract", place, first)
    if mode == "linear":
        weights = [g.op("add_scalar", g.op("negative", part), scalar=1.0), part]
        steps = [0, 1]
    elif mode == "cubic":
        weights, steps = cubic_weights(c, part, -0.75), [-1, 0, 1, 2]
    else:
        raise c.refuse(f"mode {mode!r} is unknown")
    found = []
    for step, w in zip(steps, weights):
        at, seen = whole(g.op("add_scalar", first, scalar=float(step)) if step else first)
        found.append((at, w, seen))
    return found


def bilinear(c: Node, rows: Operand, ys: Operand, xs: Operand, size: Sequence[int], zeros: bool) -> Operand:
    """(batch, ..., channels): an image between its pixels, at places (batch, ...).

    Args:
        zeros: whether what lies outside is zero; otherwise it is the nearest edge.
    """
    taps = [_taps(c, p, n, "linear", "zeros" if zeros else "border", False) for p, n in zip((ys, xs), size)]
    total: Any = None
    for chosen in product(*taps):
        value = gathered(c, rows, [t[0] for t in chosen], size)
        total = _weighted(c, total, value, [t[1] for t in chosen], [t[2] for t in chosen if t[2] is not None])
    return total


@converts("RoiAlign")
def roi_align(c: Node) -> Operand:
    """K. He et al., Mask R-CNN, 2017: means (or maxima) over points of a grid in each part of a region."""
    g, x, rois = c.g, c[0], c[1]
    channels, h, w = x.type.extents[1:]
    oh, ow, ratio = c.attr("output_height", 1), c.attr("output_width", 1), c.attr("sampling_ratio", 0)
    scale = c.attr("spatial_scale", 1.0)
    half = c.version >= 16 and c.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    if ratio < 1:
        raise c.refuse("sampling_ratio=0 makes grids that depend on the regions' sizes", "sampling_ratio of at least 1")
    corners = g.op("multiply_scalar", rois, scalar=scale)
    if half:
        corners = g.op("add_scalar", corners, scalar=-0.5)
    count = rois.type.shape[0]
    x1, y1, x2, y2 = (g.op("take", corners, c.constant(np.asarray(i)), axis=1) for i in range(4))

    def points(low: Operand, high: Operand, parts: int) -> Operand:
        """(regions, parts * ratio)"""
        extent = g.op("subtract", high, low)
        if not half:
            extent = g.op("maximum_scalar", extent, scalar=1.0)
        steps = c.constant((np.arange(parts * ratio) + 0.5) / (parts * ratio), x)
        return g.op("add", c.reshape(low, (count, 1)), g.op("multiply", c.reshape(extent, (count, 1)), steps))

    ys, xs = points(y1, y2, oh), points(x1, x2, ow)
    shape = (count, oh * ratio, ow * ratio)
    ys = g.op("broadcast_to", c.reshape(ys, (count, oh * ratio, 1)), shape=shape)
    xs = g.op("broadcast_to", c.reshape(xs, (count, 1, ow * ratio)), shape=shape)
    near = [_near(c, p, e) for p, e in ((ys, h), (xs, w))]
    images = g.op("take", pixels(c, x), c[2], axis=0)
    grid = c.attr("mode", "avg")
    values = _corner_values(c, images, ys, xs, (h, w), grid)
    seen = c.reshape(g.op("logical_and", *near), (*shape, 1))
    values = g.op("where", seen, values, c.constant(0, values))
    parts = c.reshape(values, (count, oh, ratio, ow, ratio, channels))
    y = g.op("mean" if grid == "avg" else "max", parts, axes=(2, 4))
    return c.transpose(y, (0, 3, 1, 2))


def _near(c: Node, p: Operand, n: int) -> Operand:
    """Whether a place lies on an axis, or less than one element beside it."""
    low = c.g.op("greater_equal", p, c.constant(-1.0, p))
    return c.g.op("logical_and", low, c.g.op("less_equal", p, c.constant(float(n), p)))


def _corner_values(c: Node, rows: Operand, ys: Operand, xs: Operand, size: Sequence[int], how: str) -> Operand:
    """The sum of four weighted neighbours; of maxima, the greatest of them, as the standard has it."""
    taps = [_taps(c, p, n, "linear", "border", False) for p, n in zip((ys, xs), size)]
    total: Any = None
    for chosen in product(*taps):
        value = _weighted(c, None, gathered(c, rows, [t[0] for t in chosen], size), [t[1] for t in chosen], [])
        total = value if total is None else c.g.op("add" if how == "avg" else "maximum", total, value)
    return total


@converts("DeformConv")
def deform_conv(c: Node) -> Operand:
    """X. Zhu et al., Deformable ConvNets v2, 2018: a convolution whose taps are moved by offsets, and weighted by a mask."""
    g, x, weight, offset = c.g, c[0], c[1], c[2]
    n, channels, *size = x.type.extents
    outputs, per_group, *kernel = weight.type.extents
    strides, dilations = c.ints("strides") or [1, 1], c.ints("dilations") or [1, 1]
    pads, groups, parts = c.ints("pads") or [0] * 4, c.attr("group", 1), c.attr("offset_group", 1)
    oh, ow = offset.type.extents[2:]
    taps = prod(kernel)
    moved = c.reshape(offset, (n, parts, taps, 2, oh, ow))
    where = []
    for d, (s, dil, count) in enumerate(zip(strides, dilations, (oh, ow))):
        tap = np.indices(kernel)[d].reshape(taps, 1, 1) * dil
        start = (np.arange(count) * s - pads[d]).reshape((-1, 1) if d == 0 else (1, -1))
        own = g.op("take", moved, c.constant(np.asarray(d)), axis=3)
        where.append(c.reshape(g.op("add", own, c.constant(tap + start, x)), (n * parts, taps, oh, ow)))
    images = c.reshape(x, (n * parts, channels // parts, *size))
    values = bilinear(c, pixels(c, images), where[0], where[1], size, True)
    if c.has(4):
        values = g.op("multiply", values, c.reshape(c[4], (n * parts, taps, oh, ow, 1)))
    columns = c.reshape(values, (n, parts, taps, oh * ow, channels // parts))
    columns = c.reshape(c.transpose(columns, (0, 1, 4, 2, 3)), (n, groups, channels // groups * taps, oh * ow))
    matrix = c.reshape(weight, (1, groups, outputs // groups, per_group * taps))
    y = c.reshape(g.op("matmul", matrix, columns), (n, outputs, oh, ow))
    return y if not c.has(3) else g.op("add", y, c.reshape(c[3], (outputs, 1, 1)))
