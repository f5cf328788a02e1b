"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.query import is_const
from ..ir.stmt import Attrs
from .common import broadcast_shape, element, factors, in_dtype, reference_product, same_extent
from .packed import pack_tensor, packed_product
from .registry import Operator, mismatch, register


def _infer_matmul(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    result = factors("matmul", args, attrs["out_dtype"])
    a, b = (_turned(t, swap) for t, swap in zip(args, attrs["transposed"]))
    if attrs["panel"] and b.ndim != 2:
        raise mismatch("matmul", "only one matrix, no stack of them, is packed into panels", a, b)
    if a.ndim < 2 or b.ndim < 2:
        raise mismatch("matmul", "both arguments need at least two dimensions", a, b, hint="reshape the vector")
    if not same_extent(a.shape[-1], b.shape[-2]):
        raise mismatch("matmul", f"the inner extents {a.shape[-1]} and {b.shape[-2]} differ", a, b)
    batch = broadcast_shape("matmul", [TensorType(a.shape[:-2], a.dtype), TensorType(b.shape[:-2], b.dtype)])
    return TensorType((*batch, a.shape[-2], b.shape[-1]), result)


def _turned(t: TensorType, swap: bool) -> TensorType:
    return TensorType((*t.shape[:-2], t.shape[-1], t.shape[-2]), t.dtype) if swap and t.ndim > 1 else t


def _matmul(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    a, b = args
    turn_a, turn_b = attrs["transposed"]
    depth = a.shape[-2 if turn_a else -1]
    if attrs["panel"]:
        panels = TensorType((-(-out.shape[-1] // attrs["panel"]), depth.value, attrs["panel"]), b.dtype)
        packed = pack_tensor(b, panels, transposed=turn_b)
        return packed_product(lambda i, k: a[k, i] if turn_a else a[i, k], a.dtype, depth, packed, out)
    k = te.reduce_axis(depth, "k")
    wide = a.dtype.accumulator

    def at(*index: Expr) -> Expr:
        *batch, i, j = index
        left = _row(a, batch, k, i) if turn_a else _row(a, batch, i, k)
        right = _row(b, batch, j, k) if turn_b else _row(b, batch, k, j)
        return te.sum(te.cast(left, wide) * te.cast(right, wide), axis=k)

    return in_dtype(te.compute(out.shape, at, name="matmul"), out.dtype)


def _row(t: te.Tensor, batch: Sequence[Expr], i: Expr, j: Expr) -> Expr:
    """An element of one matrix of a (broadcast) stack."""
    if t.ndim == 2:
        return t[i, j]
    stack = batch[len(batch) - (t.ndim - 2) :]
    zero = [e * 0 if is_const(s, 1) else e for e, s in zip(stack, t.shape)]
    return t[(*zero, i, j)]


def matmul_flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 2 * out.size * int(args[0].shape[-2 if attrs.get("transposed", (False,))[0] else -1])


def _matmul_reference(a: Any, b: Any, panel: int, out_dtype: Any, transposed: tuple[bool, bool]) -> Any:
    a, b = (np.swapaxes(x, -1, -2) if swap else x for x, swap in zip((a, b), transposed))
    return reference_product(a, b, out_dtype)


_MATMUL = {"panel": 0, "out_dtype": None, "transposed": (False, False)}
register(Operator("matmul", _infer_matmul, _matmul, _matmul_reference, "anchor", 2, _MATMUL, matmul_flops))
"""`transposed`: whether each operand's last two axes change places. `panel`: pack the second matrix, panel by panel of so many
columns, inside the kernel. `out_dtype`: float32 of 16-bit floats, whose
products are summed up in float32 in any case; those of 8-bit integers are int32."""


def _infer_linear(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, w = args[:2]
    kind = factors("linear", (x, w))
    if len(args) == 3 and args[2].dtype != kind:
        raise mismatch("linear", f"the bias must be {kind}, as the products' sums are", *args, hint="cast the bias")
    if w.ndim != 2 or x.ndim < 1 or not same_extent(x.shape[-1], w.shape[1]):
        raise mismatch("linear", "the weight must be (out, in) with as many inputs as the last axis", *args)
    if len(args) > 3 or (len(args) == 3 and (args[2].ndim != 1 or not same_extent(args[2].shape[0], w.shape[0]))):
        raise mismatch("linear", "the bias must be (out,)", *args)
    return TensorType((*x.shape[:-1], w.shape[0]), kind)


def _linear(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, w = args[:2]
    k = te.reduce_axis(x.shape[-1], "k")
    wide = x.dtype.accumulator
    product = lambda *i: te.sum(te.cast(x[(*i[:-1], k)], wide) * te.cast(w[i[-1], k], wide), axis=k)
    y = in_dtype(te.compute(out.shape, product, name="linear"), out.dtype)
    if len(args) == 2:
        return y
    return te.compute(out.shape, lambda *i: y[i] + element(args[2], i), name="linear_bias")


def _linear_reference(x: Any, w: Any, b: Any = None) -> Any:
    y = reference_product(x, w.T)
    return y if b is None else y + b


register(
    Operator("linear", _infer_linear, _linear, _linear_reference, "anchor", None, {},
             matmul_flops)
)  # fmt: skip
