"""Images of another size: each axis by itself, from tables of places and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.graph import Operand
from .node import Node
from .table import converts


@converts("Resize", "Upsample")
def resize(c: Node) -> Operand:
    x, rank = c[0], len(c.shape())
    size = c.static()
    first = c.op == "Upsample" or c.version < 11
    if first:
        scales = c.attr("scales") if "scales" in c.attrs else c.value(1).reshape(-1).tolist()
        return resized(
            c, x, tuple(range(rank)), [math.floor(n * s) for n, s in zip(size, scales)], scales, "asymmetric"
        )
    axes = c.places(c.ints("axes") or range(rank), rank)
    policy = c.attr("keep_aspect_ratio_policy", "stretch")
    if c.has(3):
        wanted = c.integers(3)
        scales = [w / size[a] for a, w in zip(axes, wanted)]
        if policy != "stretch":
            factor = min(scales) if policy == "not_larger" else max(scales)
            scales = [factor] * len(axes)
            wanted = [math.floor(size[a] * factor + 0.5) for a in axes]
    else:
        scales = [float(s) for s in c.value(2).reshape(-1)]
        wanted = [math.floor(size[a] * s) for a, s in zip(axes, scales)]
    region = _region(c, axes)
    return resized(c, x, axes, wanted, scales, c.attr("coordinate_transformation_mode", "half_pixel"), region)


def _region(c: Node, axes: Sequence[int]) -> list[tuple[float, float]]:
    """Where `tf_crop_and_resize` begins and ends along each axis."""
    if c.attr("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * len(axes)
    roi = c.value(1).reshape(-1)
    half = len(roi) // 2
    return [(float(roi[i]), float(roi[half + i])) for i in range(len(axes))]


def resized(
    c: Node, x: Operand, axes: Sequence[int], wanted: Sequence[int], scales: Sequence[float], where: str,
    region: Sequence[tuple[float, float]] | None = None,
) -> Operand:  # fmt: skip
    """An image resized along some axes."""
    mode = c.attr("mode", "nearest")
    outside: Any = None
    d = x.type.dtype
    wide = x if mode == "nearest" or d.is_float else c.cast(x, "float32")
    for i, (axis, count, scale) in enumerate(zip(axes, wanted, scales)):
        n = x.type.extents[axis]
        start, end = region[i] if region else (0.0, 1.0)
        at = _sources(where, n, count, scale, start, end)
        if where == "tf_crop_and_resize":
            beyond = (at < 0) | (at > n - 1)
            shaped = beyond.reshape([count if k == axis else 1 for k in range(x.type.ndim)])
            outside = shaped if outside is None else outside | shaped
        elif count == n and scale == 1.0:
            continue
        wide = _along(c, wide, axis, at, mode, scale)
    if outside is not None and outside.any():
        fill = c.constant(c.attr("extrapolation_value", 0.0), wide)
        wide = c.g.op("where", c.constant(outside), fill, wide)
    return c.cast(wide if d.is_float or mode == "nearest" else c.g.op("round", wide), d)


def _sources(where: str, n: int, count: int, scale: float, start: float, end: float) -> np.ndarray:
    """The place in the source of each element of the result."""
    i = np.arange(count, dtype=np.float64)
    whole = scale * n  # may be no integer
    match where:
        case "half_pixel":
            return (i + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = count / whole
            centre = n / 2
            return centre * (1 - adjustment) + (i + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (i + 0.5) / scale - 0.5 if count > 1 else np.zeros(count)
        case "align_corners":
            return i * (n - 1) / (whole - 1) if whole > 1 else np.zeros(count)
        case "tf_crop_and_resize":
            if count > 1:
                return start * (n - 1) + i * (end - start) * (n - 1) / (count - 1)
            return np.full(count, 0.5 * (start + end) * (n - 1))
        case "tf_half_pixel_for_nn":
            return (i + 0.5) / scale
    return i / scale


def _along(c: Node, x: Operand, axis: int, at: np.ndarray, mode: str, scale: float) -> Operand:
    """One axis: the sum of as many neighbours as the mode has, each by its weight."""
    n = x.type.extents[axis]
    if mode == "nearest":
        places = np.clip(_nearest(at, c.attr("nearest_mode", "round_prefer_floor")), 0, n - 1)
        if c.op == "Upsample" or c.version < 11:
            places = np.clip(np.floor(at), 0, n - 1)
        return c.g.op("take", x, c.constant(places.astype(np.int64)), axis=axis)
    if mode not in ("linear", "bilinear", "cubic"):
        raise c.refuse(f"mode {mode!r} is unknown")
    places, weights = _taps(c, at, n, mode, scale)
    if places.shape[1] > 4:
        return _dense(c, x, axis, places, weights)
    total: Any = None
    for k in range(places.shape[1]):
        shape = [len(at) if d == axis else 1 for d in range(x.type.ndim)]
        part = c.g.op("take", x, c.constant(places[:, k]), axis=axis)
        part = c.g.op("multiply", part, c.constant(weights[:, k].reshape(shape), x))
        total = part if total is None else c.g.op("add", total, part)
    return total


def _dense(c: Node, x: Operand, axis: int, places: np.ndarray, weights: np.ndarray) -> Operand:
    """Many neighbours: a product with the matrix of weights."""
    n = x.type.extents[axis]
    matrix = np.zeros((n, len(places)))
    for i, (row, w) in enumerate(zip(places, weights)):
        np.add.at(matrix[:, i], row, w)
    order = [*(d for d in range(x.type.ndim) if d != axis), axis]
    back = [int(i) for i in np.argsort(order)]
    moved = c.transpose(x, order)
    if moved.type.ndim == 1:
        y = c.reshape(c.g.op("matmul", c.reshape(moved, (1, n)), c.constant(matrix, x)), (len(places),))
    else:
        y = c.g.op("matmul", moved, c.constant(matrix, x))
    return c.transpose(y, back)


def _nearest(at: np.ndarray, how: str) -> np.ndarray:
    match how:
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
        case "round_prefer_ceil":
            return np.floor(at + 0.5)
    return np.ceil(at - 0.5)


def _taps(c: Node, at: np.ndarray, n: int, mode: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(places, weights): for each element of the result, the elements of the source that it is made of."""
    reach = 2 if mode == "cubic" else 1
    shrink = scale if c.attr("antialias", 0) and scale < 1 else 1.0
    span = math.ceil(reach / shrink)
    first = np.floor(at).astype(np.int64) - span + 1
    places = first[:, None] + np.arange(2 * span)
    distance = np.abs(places - at[:, None]) * shrink
    weights = _cubic(distance, c.attr("cubic_coeff_a", -0.75)) if mode == "cubic" else np.maximum(1 - distance, 0)
    if c.attr("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < n), weights, 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, n - 1), weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """R. Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def cubic_weights(c: Node, part: Operand, a: float) -> list[Operand]:
    """The weights of the four neighbours of a place that lies `part` behind the second of them."""

    def polynomial(x: Operand, *coefficients: float) -> Operand:
        total: Any = c.constant(coefficients[0], x)
        for k in coefficients[1:]:
            total = c.g.op("add_scalar", c.g.op("multiply", total, x), scalar=k)
        return total

    rest = c.g.op("add_scalar", c.g.op("negative", part), scalar=1.0)
    near, far = (a + 2, -(a + 3), 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    beyond = [c.g.op("add_scalar", t, scalar=1.0) for t in (part, rest)]
    return [polynomial(beyond[0], *far), polynomial(part, *near), polynomial(rest, *near), polynomial(beyond[1], *far)]
