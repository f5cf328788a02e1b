"""Products with weights that were packed beforehand: in panels of neighbouring columns, each contiguous in memory.

A panel holds `width` columns for every element of the reduction, one row after another, so that the inner loop of a register tile
reads memory in order. The last panel is filled up with zeros. `group` rows lie together, column by column, for instructions that sum
up several products at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import te
from ..dtype import DType
from ..ir.expr import Expr, as_expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from ..memory import finished
from .common import factors, reference_product, same_extent
from .conv import convolve, convolve_groups, infer_image, reference_image
from .registry import Operator, mismatch, register


def _panels(columns: int, width: int) -> int:
    return -(-columns // width)


def _infer_pack(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (w,) = args
    if w.ndim < 1 or attrs["width"] < 1:
        raise mismatch("pack_columns", "it takes a tensor with columns, and panels of at least one", w)
    group, columns = attrs["group"], int(w.shape[-1])
    if group == 1:
        return TensorType((_panels(columns, attrs["width"]), *w.shape[:-1], attrs["width"]), w.dtype)
    if group < 1 or w.ndim < 2 or int(w.shape[-2]) % group:
        raise mismatch("pack_columns", f"its rows do not divide into groups of {group}", w)
    shape = (_panels(columns, attrs["width"]), *w.shape[:-2], int(w.shape[-2]) // group, attrs["width"], group)
    return TensorType(shape, w.dtype)


def pack_tensor(w: te.Tensor, out: TensorType, group: int = 1, transposed: bool = False) -> te.Tensor:
    """The panels of a weight (or of a transposed matrix), as a tensor expression of the given shape."""
    columns, width = w.shape[-2 if transposed else -1].value, out.shape[-1 if group == 1 else -2]

    def at(panel: Expr, *rest: Expr) -> Expr:
        if group == 1:
            *row, column = rest
        else:
            *lead, block, column, member = rest
            row = [*lead, block * group + member]
        j = panel * width + column
        inside = w[(j, *row)] if transposed else w[(*row, j)]
        return inside if columns % width == 0 else te.select(j < columns, inside, as_expr(0, w.dtype))

    return te.compute(out.shape, at, name="pack_columns")


def _pack_reference(w: Any, width: int, group: int) -> Any:
    panels = _panels(w.shape[-1], width)
    full = w
    if w.shape[-1] != panels * width:
        full = np.zeros((*w.shape[:-1], panels * width), w.dtype)
        full[..., : w.shape[-1]] = w
    split = np.moveaxis(full.reshape(*w.shape[:-1], panels, width), -2, 0)
    if group > 1:
        split = np.swapaxes(split.reshape(*split.shape[:-2], -1, group, width), -1, -2)
    return finished(split)


def unpack(packed: Any, columns: int, group: int = 1) -> Any:
    """The weights that `pack_columns` packed."""
    if group > 1:
        packed = np.swapaxes(packed, -1, -2)
        packed = packed.reshape(*packed.shape[:-3], -1, packed.shape[-1])
    moved = np.moveaxis(packed, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)[..., :columns]


register(
    Operator("pack_columns", _infer_pack, lambda args, attrs, out: pack_tensor(args[0], out, attrs["group"]), _pack_reference,
             "injective", 1, {"width": ..., "group": 1})
)  # fmt: skip


def _check_panels(name: str, args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """The weight that is packed there, without the columns that fill up the last panel (of one group, of those of a
    convolution)."""
    x, p = args
    group = attrs["group"]
    if p.ndim < (3 if group == 1 else 4) or (group > 1 and p.shape[-1] != group):
        raise mismatch(name, f"the weight must be (panels, ..., in, columns), in groups of {group}", x, p)
    rows, width = (p.shape[1:-1], p.shape[-1]) if group == 1 else ((*p.shape[1:-3], p.shape[-3] * group), p.shape[-2])
    if _panels(attrs["columns"], int(width)) != p.shape[0]:
        why = f"{p.shape[0]} panels of {width} columns do not hold {attrs['columns']} columns"
        raise mismatch(name, why, x, p)
    return TensorType((*rows, attrs["columns"]), p.dtype)


def _finish(full: te.Tensor, out: TensorType) -> te.Tensor:
    """The result without the columns that fill up the last panel, in its own dtype."""
    if full.shape[-1].value == out.shape[-1] and full.dtype == out.dtype:
        return full
    return te.compute(out.shape, lambda *i: te.cast(full[i], out.dtype), name="columns")


def _infer_matmul(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, p = args
    w = _check_panels("packed_matmul", args, attrs)
    if x.ndim < 1 or w.ndim != 2 or not same_extent(x.shape[-1], w.shape[0]):
        raise mismatch("packed_matmul", "the weight must be (panels, in, width), with in as the last axis of x", x, p)
    return TensorType((*x.shape[:-1], attrs["columns"]), factors("packed_matmul", args, attrs["out_dtype"]))


def packed_product(
    x: Callable[..., Expr], dtype: DType, depth: Any, p: te.Tensor, out: TensorType, group: int = 1
) -> te.Tensor:
    """Rows times the columns in the panels p, as a tensor expression.

    Args:
        x: (rows..., k) -> the element there; dtype: its type; depth: how many there are in a row.
    """
    width = p.shape[-1 if group == 1 else -2].value
    k = te.reduce_axis(depth, "k")
    wide = dtype.accumulator

    def at(*index: Expr) -> Expr:
        *rows, j = index
        return te.sum(te.cast(x(*rows, k), wide) * te.cast(_panel_element(p, width, group, j, k), wide), axis=k)

    full = te.compute((*out.shape[:-1], p.shape[0].value * width), at, "matmul", panels(width, group))
    return _finish(full, out)


def panels(width: int, group: int = 1) -> dict[str, int]:
    """What a product's block says of its packed operand, whose first axis is over panels: their columns, and the rows that lie
    together for an instruction that sums up products."""
    return {"panel_width": width, "dot_group": group}


def _panel_element(p: te.Tensor, width: int, group: int, j: Expr, k: Expr, *before: Expr) -> Expr:
    """Column j of row k; `before` are the axes in front of the rows."""
    if group == 1:
        return p[(j // width, *before, k, j % width)]
    return p[(j // width, *before, k // group, j % width, k % group)]


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 2 * out.size * int(np.prod(_check_panels("packed", args, attrs).shape[:-1]))


def _matmul_reference(x: Any, p: Any, columns: int, group: int, out_dtype: Any) -> Any:
    return reference_product(x, unpack(p, columns, group), out_dtype)


def _packed_matmul(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, p = args
    return packed_product(lambda *i: x[i], x.dtype, x.shape[-1], p, out, attrs["group"])


_MATMUL = {"columns": ..., "group": 1, "out_dtype": None}
register(Operator("packed_matmul", _infer_matmul, _packed_matmul, _matmul_reference, "anchor", 2, _MATMUL, _flops))

_CONV = {"columns": ..., "group": 1, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
"""groups: of channels; where there are several, columns are those of one, and the panels have an axis for them before the rows."""


def _as_conv(attrs: Attrs) -> Attrs:
    """The attributes of the convolution that is meant."""
    same = {k: attrs[k] for k in ("stride", "padding", "dilation", "groups")}
    return Attrs.of(**same, layout="NHWC", kernel_layout="HWIO")


def _kernel(w: TensorType, attrs: Attrs) -> TensorType:
    """The kernel as conv2d has it, (height, width, in, out), of what `_check_panels` gives."""
    if attrs["groups"] == 1:
        return w
    return TensorType((*w.shape[1:-1], int(w.shape[-1]) * attrs["groups"]), w.dtype)


def _infer_conv(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, p = args
    w = _check_panels("packed_conv2d", args, attrs)
    if w.ndim != (4 if attrs["groups"] == 1 else 5) or (w.ndim == 5 and w.shape[0] != attrs["groups"]):
        why = "the weight must be (panels, height, width, in, columns), with the groups behind the panels where there are several"
        raise mismatch("packed_conv2d", why, x, p)
    return infer_image((x, _kernel(w, attrs)), _as_conv(attrs))


def _conv(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, p = args
    group = attrs["group"]
    width = p.shape[-1 if group == 1 else -2].value
    columns = p.shape[0].value * width
    *_, height, across, depth = p.shape[: -1 if group == 1 else -2]

    def weight(o: Expr, i: Expr, y: Expr, z: Expr) -> Expr:
        return _panel_element(p, width, group, o, i, y, z)

    def of_group(g: Expr, o: Expr, i: Expr, y: Expr, z: Expr) -> Expr:
        return _panel_element(p, width, group, o, i, g, y, z)

    size, conv, notes = (height, across), _as_conv(attrs), panels(width, group)
    if attrs["groups"] > 1:
        return _finish(convolve_groups(x, of_group, size, depth.value * group, columns, conv, out, notes), out)
    whole = TensorType((*out.shape[:-1], columns), out.dtype)
    return _finish(convolve(x, weight, size, depth.value * group, conv, whole, notes), out)


def _conv_reference(x: Any, p: Any, columns: int, group: int, groups: int, **attrs: Any) -> Any:
    weight = unpack(p, columns, group)
    if groups > 1:
        weight = np.moveaxis(weight, 0, 3)
        weight = weight.reshape(*weight.shape[:3], -1)
    return reference_image(x, weight, **attrs, groups=groups, layout="NHWC", kernel_layout="HWIO")


def _conv_flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 2 * out.size * int(np.prod(_kernel(_check_panels("packed_conv2d", args, attrs), attrs).shape[:-1]))


register(Operator("packed_conv2d", _infer_conv, _conv, _conv_reference, "anchor", 2, _CONV, _conv_flops))
