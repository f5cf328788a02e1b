"""3 x 3 convolutions by Winograd's minimal filtering: F(m x m, 3 x 3) with m = 2 or 4.

(m + 2)^2 products give m^2 outputs, where the direct way takes 9 m^2. The weights are transformed when compiling (G g G^T), tiles
of the image when running (B^T d B); the products, summed over the channels, are (m + 2)^2 matrix products; their results are
transformed back (A^T z A). S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin, S. Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016.

Rounding errors are larger than those of the direct way: measured against float64 on normal data, about 1.5 times for m = 2 and
5 times for m = 4 (relative error about 5e-7 and 2e-6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr, as_expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from ..memory import finished
from .common import float_only, same_dtype
from .conv import infer_image, padding_of
from .registry import Operator, mismatch, register

Table = tuple[tuple[float, ...], ...]

IMAGE: dict[int, Table] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}  # fmt: skip
"""B^T by m."""
WEIGHT: dict[int, Table] = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}  # fmt: skip
"""G by m."""
RESULT: dict[int, Table] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
"""A^T by m."""

IN_CACHE = 1 << 13
"""Weights transformed at a time."""


def combine(index: Expr, table: Table, term: Callable[[int], Expr]) -> Expr:
    """The sum of table[index][n] * term(n). Where the loop over the index is unrolled, only that row is left."""
    sums = []
    for row in table:
        total: Expr | None = None
        for n, c in enumerate(row):
            if c == 0:
                continue
            part = term(n) if abs(c) == 1 else term(n) * as_expr(abs(float(c)), term(n).dtype)
            total = (part if c > 0 else -part) if total is None else total + part if c > 0 else total - part
        assert total is not None
        sums.append(total)
    result = sums[-1]
    for n in range(len(sums) - 2, -1, -1):
        result = te.select(te.equal(index, n), sums[n], result)
    return result


def _weighted(index: Expr, table: Table, term: Callable[[int], Expr]) -> Expr:
    """The same sum where the loop over the index stays: every term counts, its factor is looked up."""
    total: Expr | None = None
    for n in range(len(table[0])):
        part = term(n)
        factor = as_expr(float(table[-1][n]), part.dtype)
        for k in range(len(table) - 2, -1, -1):
            factor = te.select(te.equal(index, k), as_expr(float(table[k][n]), part.dtype), factor)
        total = part * factor if total is None else total + part * factor
    assert total is not None
    return total


def _check_tile(name: str, attrs: Attrs) -> int:
    if attrs["tile"] not in IMAGE:
        raise ShapeError(f"{name}: tile {attrs['tile']!r} is not supported", hint="2 or 4")
    return int(attrs["tile"])


def _wide_floats(name: str, t: TensorType) -> None:
    float_only(name, t)
    if t.dtype.bits == 16:
        raise mismatch(name, "its transforms lose too much in 16 bits", t, hint="cast the argument")


def _infer_weight(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (w,) = args
    m = _check_tile("winograd_weight", attrs)
    _wide_floats("winograd_weight", w)
    if w.ndim != 4 or w.shape[:2] != (3, 3) or attrs["width"] < 1:
        raise mismatch("winograd_weight", "it takes weights of (3, 3, in, out), and panels of at least one column", w)
    return TensorType((m + 2, m + 2, -(-w.shape[3] // attrs["width"]), w.shape[2], attrs["width"]), w.dtype)


def _weight(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (w,) = args
    m, width, columns = attrs["tile"], attrs["width"], w.shape[3].value

    def at(a: Expr, b: Expr, panel: Expr, i: Expr, column: Expr) -> Expr:
        o = panel * width + column
        both = _weighted(b, WEIGHT[m], lambda z: _weighted(a, WEIGHT[m], lambda y: w[y, z, i, o]))
        return both if columns % width == 0 else te.select(o < columns, both, as_expr(0, w.dtype))

    return te.compute(out.shape, at, name="winograd_weight")


def _weight_reference(w: Any, tile: int, width: int) -> Any:
    g = np.asarray(WEIGHT[tile])
    flat = w.reshape(3, 3, -1)
    u = np.empty((len(g), len(g), flat.shape[2]), w.dtype)
    for start in range(0, flat.shape[2], IN_CACHE):
        part = flat[:, :, start : start + IN_CACHE].astype(np.float64)
        rows = (g @ part.reshape(3, -1)).reshape(len(g), *part.shape[1:])  # two products, for speed
        u[:, :, start : start + IN_CACHE] = g @ rows
    u = u.reshape(len(g), len(g), *w.shape[2:])
    panels = -(-w.shape[3] // width)
    if panels * width > w.shape[3]:
        u = np.pad(u, [*[(0, 0)] * 3, (0, panels * width - w.shape[3])])
    return finished(np.moveaxis(u.reshape(*u.shape[:3], panels, width), 3, 2))


register(
    Operator("winograd_weight", _infer_weight, _weight, _weight_reference, "injective", 1, {"tile": ..., "width": ...})
)


def _as_conv(attrs: Attrs) -> Attrs:
    return Attrs.of(stride=1, dilation=1, padding=attrs["padding"], groups=1, layout="NHWC", kernel_layout="HWIO")


def _infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, u = args
    m = _check_tile("winograd_conv2d", attrs)
    same_dtype("winograd_conv2d", args)
    _wide_floats("winograd_conv2d", x)
    if u.ndim != 5 or u.shape[:2] != (m + 2, m + 2) or -(-attrs["columns"] // u.shape[4]) != u.shape[2]:
        raise mismatch("winograd_conv2d", f"the weight must be what winograd_weight(tile={m}) makes", x, u)
    return infer_image((x, TensorType((3, 3, u.shape[3], attrs["columns"]), u.dtype)), _as_conv(attrs))


def _conv(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, u = args
    m, (n, oh, ow, _) = attrs["tile"], out.shape
    _, h, w, depth = x.shape
    (top, _), (left, _) = padding_of("winograd_conv2d", attrs["padding"])
    down, right, size = -(-oh // m), -(-ow // m), m + 2
    tiles, width = n * down * right, u.shape[4].value

    def pixel(i: Expr, j: Expr, p: Expr, c: Expr) -> Expr:
        y, z = p // right % down * m + i - top, p % right * m + j - left
        inside = (y >= 0) & (y < h) & (z >= 0) & (z < w)
        return te.select(inside, x[p // (down * right), y, z, c], as_expr(0, x.dtype))

    patch = te.compute((size, size, tiles, depth), pixel, name="winograd_patch", role="winograd_patch")
    half = te.compute(
        patch.shape,
        lambda a, j, p, c: combine(a, IMAGE[m], lambda i: patch[i, j, p, c]),
        name="winograd_half",
        role="winograd_half",
    )
    image = te.compute(
        patch.shape,
        lambda a, b, p, c: combine(b, IMAGE[m], lambda j: half[a, j, p, c]),
        name="winograd_image",
        role="winograd_image",
    )
    k = te.reduce_axis(depth, "k")
    product = te.compute(
        (size, size, tiles, u.shape[2].value * width),
        lambda a, b, p, o: te.sum(image[a, b, p, k] * u[a, b, o // width, k, o % width], axis=k),
        name="winograd_product",
        role="winograd_product",
    )
    rows = te.compute(
        (m, size, tiles, u.shape[2].value * width),
        lambda q, b, p, o: combine(q, RESULT[m], lambda a: product[a, b, p, o]),
        name="winograd_rows",
        role="winograd_rows",
    )

    def at(i: Expr, y: Expr, z: Expr, o: Expr) -> Expr:
        p = (i * down + y // m) * right + z // m
        return combine(z % m, RESULT[m], lambda b: rows[y % m, b, p, o])

    return te.compute(out.shape, at, name="winograd_conv2d", role="winograd_conv2d")


def _reference(x: Any, u: Any, tile: int, columns: int, padding: Any) -> Any:
    (top, bottom), (left, right) = padding_of("winograd_conv2d", padding)
    n, h, w, depth = x.shape
    oh, ow = h + top + bottom - 2, w + left + right - 2
    down, across = -(-oh // tile), -(-ow // tile)
    widths = ((top, down * tile + 2 - h - top), (left, across * tile + 2 - w - left))
    padded = np.pad(x, ((0, 0), *((a, max(b, 0)) for a, b in widths), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (tile + 2, tile + 2), (1, 2))
    patches = patches[:, : down * tile : tile, : across * tile : tile]  # n, down, across, depth, i, j
    b, a = (np.asarray(table[tile], x.dtype) for table in (IMAGE, RESULT))
    image = np.einsum("ai,nyxcij,bj->abnyxc", b, patches, b, optimize=True)
    weight = np.moveaxis(u, 2, 3).reshape(*u.shape[:2], depth, -1)[..., :columns]
    products = np.einsum("abnyxc,abco->abnyxo", image, weight, optimize=True)
    result = np.einsum("pa,abnyxo,qb->nypxqo", a, products, a, optimize=True)
    result = result.reshape(n, down * tile, across * tile, columns)[:, :oh, :ow]
    return np.ascontiguousarray(result).astype(x.dtype)


register(
    Operator(
        "winograd_conv2d", _infer, _conv, _reference, "anchor", 2, {"tile": ..., "columns": ..., "padding": 0},
        lambda args, out, attrs: 2 * 9 * out.size * int(args[1].shape[3]),
    )
)  # fmt: skip
