"""Products with weights that were packed beforehand: in panels of neighbouring columns, each contiguous in memory.

A panel holds `width` columns for every element of the reduction, one row after another, so that the inner loop of a register tile
reads memory in order. The last panel is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..ir.expr import Expr, as_expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import same_dtype, same_extent
from .conv import convolve, infer_image, reference_image
from .registry import Operator, mismatch, register


def _panels(columns: int, width: int) -> int:
    return -(-columns // width)


def _infer_pack(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (w,) = args
    if w.ndim < 1 or attrs["width"] < 1:
        raise mismatch("pack_columns", "it takes a tensor with columns, and panels of at least one", w)
    columns = int(w.shape[-1])
    return TensorType((_panels(columns, attrs["width"]), *w.shape[:-1], attrs["width"]), w.dtype)


def pack_tensor(w: te.Tensor, width: int) -> te.Tensor:
    """The panels of a weight, as a tensor expression."""
    columns = w.shape[-1].value
    shape = (_panels(columns, width), *w.shape[:-1], width)

    def at(panel: Expr, *rest: Expr) -> Expr:
        *row, column = rest
        j = panel * width + column
        inside = w[(*row, j)]
        return inside if columns % width == 0 else te.select(j < columns, inside, as_expr(0, w.dtype))

    return te.compute(shape, at, name="pack_columns")


def _pack_reference(w: Any, width: int) -> Any:
    panels = _panels(w.shape[-1], width)
    full = np.zeros((*w.shape[:-1], panels * width), w.dtype)
    full[..., : w.shape[-1]] = w
    return np.ascontiguousarray(np.moveaxis(full.reshape(*w.shape[:-1], panels, width), -2, 0))


def unpack(packed: Any, columns: int) -> Any:
    """The weights that `pack_columns` packed."""
    moved = np.moveaxis(packed, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)[..., :columns]


register(
    Operator("pack_columns", _infer_pack, lambda args, attrs, out: pack_tensor(args[0], attrs["width"]), _pack_reference,
             "injective", 1, {"width": ...})
)  # fmt: skip


def _check_columns(name: str, args: Sequence[TensorType], attrs: Attrs) -> None:
    same_dtype(name, args)
    x, p = args
    if _panels(attrs["columns"], int(p.shape[-1])) != p.shape[0]:
        why = f"{p.shape[0]} panels of {p.shape[-1]} columns do not hold {attrs['columns']} columns"
        raise mismatch(name, why, x, p)


def _only_columns(full: te.Tensor, shape: tuple[int, ...]) -> te.Tensor:
    """The result without the columns that fill up the last panel."""
    if full.shape[-1].value == shape[-1]:
        return full
    return te.compute(shape, lambda *i: full[i], name="columns")


def _infer_matmul(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, p = args
    if x.ndim < 1 or p.ndim != 3 or not same_extent(x.shape[-1], p.shape[1]):
        raise mismatch("packed_matmul", "the weight must be (panels, in, width), with in as the last axis of x", x, p)
    _check_columns("packed_matmul", args, attrs)
    return TensorType((*x.shape[:-1], attrs["columns"]), x.dtype)


def packed_product(x: te.Tensor, p: te.Tensor, shape: tuple[int, ...]) -> te.Tensor:
    """Rows of x times the columns in the panels p, as a tensor expression of the given shape."""
    width = p.shape[-1].value
    k = te.reduce_axis(x.shape[-1], "k")

    def at(*index: Expr) -> Expr:
        *rows, j = index
        return te.sum(x[(*rows, k)] * p[j // width, k, j % width], axis=k)

    full = te.compute((*shape[:-1], p.shape[0].value * width), at, name="matmul")
    return _only_columns(full, shape)


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    p = args[1]
    return 2 * out.size * int(np.prod(p.shape[1:-1]))


register(
    Operator("packed_matmul", _infer_matmul, lambda args, attrs, out: packed_product(args[0], args[1], out.shape), lambda x, p, columns: x @ unpack(p, columns), "anchor", 2,
             {"columns": ...}, _flops)
)  # fmt: skip

_CONV = {"columns": ..., "stride": 1, "padding": 0, "dilation": 1}


def _as_conv(attrs: Attrs) -> Attrs:
    """The attributes of the convolution that is meant."""
    same = {k: attrs[k] for k in ("stride", "padding", "dilation")}
    return Attrs.of(**same, groups=1, layout="NHWC", kernel_layout="HWIO")


def _infer_conv(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, p = args
    if p.ndim != 5:
        raise mismatch("packed_conv2d", "the weight must be (panels, height, width, in, columns)", x, p)
    _check_columns("packed_conv2d", args, attrs)
    return infer_image((x, TensorType((*p.shape[1:4], attrs["columns"]), p.dtype)), _as_conv(attrs))


def _conv(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, p = args
    width = p.shape[-1].value
    padded = TensorType((*out.shape[:-1], p.shape[0].value * width), out.dtype)

    def weight(o: Expr, i: Expr, y: Expr, z: Expr) -> Expr:
        return p[o // width, y, z, i, o % width]

    return _only_columns(convolve(x, weight, tuple(p.shape[1:3]), p.shape[3], _as_conv(attrs), padded), out.shape)


def _conv_reference(x: Any, p: Any, columns: int, **attrs: Any) -> Any:
    return reference_image(x, unpack(p, columns), **attrs, groups=1, layout="NHWC", kernel_layout="HWIO")


register(Operator("packed_conv2d", _infer_conv, _conv, _conv_reference, "anchor", 2, _CONV, _flops))
