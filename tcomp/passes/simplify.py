"""Canonical forms and algebraic simplification of graphs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any, ClassVar

import numpy as np

from ..errors import InternalError
from ..ir.expr import Expr
from ..ir.graph import OpCall, Operand, TensorType
from ..ir.module import IRModule
from ..ops.common import extent, pair, plain
from ..ops.conv import padding_of
from .attention import products_to_attention
from .convolutions import conv1d_to_conv2d, kernel_gradient_by_parts, transposed_conv_to_phases, volumes_to_ndhwc
from .fold import EliminateDeadCode, fold_constant
from .movement import MOVEMENT
from .rewriter import Rewriter, Rule, rule

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
Shape = tuple[int | Expr, ...]
MAX_ROUNDS = 8
"""Rounds of rewriting that every graph may take, besides one for each of its calls."""


# canonical forms


@rule("linear", symbolic=True)
def linear_to_matmul(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """linear(x, w, b) = x @ w^T + b; the transposed weight folds."""
    x, w, *bias = call.args
    if x.type.ndim < 2:
        return None
    y = g.op("matmul", x, g.op("transpose", w, axes=(1, 0)))
    return g.op("add", y, bias[0]) if bias else y


@rule("matmul", symbolic=True)
def transposes_apart(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Transposed operands of a product are transposes of their own: they fold into constants, cancel, or join the packing later."""
    if not any(call.attrs["transposed"]):
        return None
    args = [
        g.op("transpose", a, axes=(*range(a.type.ndim - 2), a.type.ndim - 1, a.type.ndim - 2)) if swap else a
        for a, swap in zip(call.args, call.attrs["transposed"])
    ]
    return g.again(call, *args, transposed=(False, False))


@rule("batch_norm", symbolic=True)
def batch_norm_to_scale(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Batch normalisation with known statistics is a scale and a shift."""
    if not _keeps_precision(type_):
        return None
    arrays = [a for x in call.args[1:] if (a := g.array(x)) is not None]
    if len(arrays) < 4:
        return None
    weight, bias, mean, var = (a.astype(np.float64) for a in arrays)
    scale = weight / np.sqrt(var + call.attrs["eps"])
    shape = [1] * type_.ndim
    shape[call.attrs["axis"]] = len(scale)
    kind = type_.dtype.numpy
    scaled = g.op("multiply", call.args[0], g.constant(scale.reshape(shape).astype(kind), "bn_scale"))
    return g.op("add", scaled, g.constant((bias - mean * scale).reshape(shape).astype(kind), "bn_shift"))


@rule(layout="NCHW", symbolic=True)
def images_to_nhwc(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Convolutions and pooling run with channels innermost, where they vectorize; the transposes cancel between layers."""
    x, *rest = call.args
    image = g.op("transpose", x, axes=_TO_NHWC)
    changes: dict[str, Any] = {"layout": "NHWC"}
    if call.op == "conv2d":
        if call.attrs["kernel_layout"] == "OIHW":
            rest = [g.op("transpose", rest[0], axes=(2, 3, 1, 0))]
        changes["kernel_layout"] = "HWIO"
    return g.op("transpose", g.again(call, image, *rest, **changes), axes=_TO_NCHW)


@rule("conv2d", layout="NHWC", kernel_layout="HWIO", symbolic=True)
def pointwise_conv_to_matmul(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A 1 x 1 convolution is a product of the pixels (those that the stride picks), as rows, and the weights."""
    x, w = call.args
    if w.type.shape[:2] != (1, 1) or call.attrs["groups"] != 1:
        return None
    if any(p for side in padding_of("conv2d", call.attrs["padding"]) for p in side):
        return None
    stride = pair("conv2d", call.attrs["stride"], "stride")
    if stride != (1, 1):
        x = g.op("slice", x, begin=(0, 0, 0, 0), end=x.type.shape, strides=(1, *stride, 1))
    return g.op("matmul", x, g.op("reshape", w, shape=w.type.shape[2:]))


@rule("matmul", symbolic=True)
def matmul_of_rows(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """All rows of a stack times one matrix are one product."""
    if call.args[0].type.ndim < 3 or call.args[1].type.ndim != 2:
        return None
    x, w = call.args
    rows = g.op("reshape", x, shape=(plain(reduce(mul, map(extent, x.type.shape[:-1]))), x.type.shape[-1]))
    return g.op("reshape", g.again(call, rows, w), shape=type_.shape)


@rule("conv2d", layout="NHWC", kernel_layout="OIHW", symbolic=True)
def kernel_to_hwio(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Kernels with output channels innermost, as they are packed; constant ones are turned when compiling."""
    return g.again(call, call.args[0], g.op("transpose", call.args[1], axes=(2, 3, 1, 0)), kernel_layout="HWIO")


# arithmetic

_NEUTRAL = {("multiply_scalar", 1), ("divide_scalar", 1), ("power_scalar", 1)}


@rule(
    "multiply_scalar",
    "divide_scalar",
    "power_scalar",
    "negative",
    "logical_not",
    "relu",
    "abs",
    "where",
    "multiply",
    symbolic=True,
)
def simplify_arithmetic(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Identities that hold for every value, NaN and signed zero included."""
    if (call.op, call.attrs.get("scalar")) in _NEUTRAL:
        return call.args[0]
    if call.op in ("negative", "logical_not"):
        inner = g.definition(call.args[0], call.op)
        return None if inner is None or inner.args[0].type != type_ else inner.args[0]
    if call.op in ("relu", "abs") and g.definition(call.args[0], call.op) is not None:
        return call.args[0]
    if call.op == "where" and call.args[1] == call.args[2] and call.args[1].type == type_:
        return call.args[1]
    if call.op == "multiply":
        for x, c in (call.args, call.args[::-1]):
            array = g.array(c)
            if array is not None and np.all(array == 1) and x.type.shape == type_.shape:
                return x
    return None


@rule("add")
def join_products(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """a @ b + c @ d = [a c] @ [b; d], where c @ d sums up so few elements that reading and writing results would take most of its
    time: the gradient of a weight that is used in every step of a sequence becomes one product."""
    if type_.ndim != 2:
        return None
    products = [p for a in call.args if (p := g.definition(a, "matmul")) is not None]
    if len(products) < 2 or any(p.args[0].type.ndim != 2 or p.attrs["panel"] or p.attrs["out_dtype"] for p in products):
        return None
    if any(a.type.shape != type_.shape or not g.is_used_once(a) for a in call.args):
        return None
    rows, columns = type_.extents
    if min(p.args[0].type.extents[1] for p in products) * (rows + columns) > rows * columns:
        return None
    left, right = (_joined(g, [p.args[side] for p in products], 1 - side) for side in (0, 1))
    return g.op("matmul", left, right)


def _joined(g: Rewriter, parts: list[Operand], axis: int) -> Operand:
    """Matrices side by side; transposed ones are turned afterwards, all at once."""
    turned = [t for p in parts if (t := g.definition(p, "transpose")) is not None]
    if len(turned) == len(parts):
        return g.op("transpose", _joined(g, [t.args[0] for t in turned], 1 - axis), axes=(1, 0))
    found: list[Operand] = []
    for p in parts:
        inner = g.definition(p, "concat")
        found += inner.args if inner is not None and inner.attrs["axis"] % 2 == axis else (p,)
    return g.op("concat", *found, axis=axis)


# sums of slices


def _scattered(g: Rewriter, x: Operand) -> OpCall | None:
    """The call that adds slices to zeros, and makes nothing but this operand of one use."""
    call = g.definition(x, "scatter_add")
    if call is None or not g.is_used_once(x):
        return None
    spread = g.definition(call.args[0], "broadcast_to")
    start = g.array(spread.args[0] if spread is not None else call.args[0])
    return call if start is not None and not np.any(start) else None


@rule("multiply", "multiply_scalar", "divide_scalar", "negative")
def scale_slices(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A number times a sum of slices: the slices are multiplied, and so is nothing that none of them reaches."""
    for i, x in enumerate(call.args):
        sums = _scattered(g, x)
        if sums is None or any(a.type.shape for a in call.args if a is not x):
            continue
        zeros, index, slices = sums.args
        operands = [slices if j == i else a for j, a in enumerate(call.args)]
        return g.again(sums, zeros, index, g.op(call.op, *operands, **call.attrs))
    return None


@rule("add", "subtract")
def add_slices(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A tensor and a sum of slices: the slices are added to the tensor, most of which need not be touched."""
    pairs = [call.args, call.args[::-1]] if call.op == "add" else [call.args]
    for x, y in pairs:
        sums = _scattered(g, y)
        if sums is not None and x.type == type_:
            _, index, slices = sums.args
            return g.again(sums, x, index, slices if call.op == "add" else g.op("negative", slices))
    return None


# scales into weights


@rule("multiply", symbolic=True)
def fold_scale(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A constant factor for each output channel goes into the constant weight of the product before it."""
    for y, c in (call.args, call.args[::-1]):
        factor = g.array(c)
        if factor is None or y.type.shape != type_.shape or not _is_last_axis(factor.shape):
            continue
        inner = g.definition(y)
        if inner is None or not g.is_used_once(y) or not _keeps_precision(type_, c.type):
            continue
        if inner.op == "add":
            for z, b in (inner.args, inner.args[::-1]):
                if g.array(b) is not None and z.type.shape == type_.shape:
                    return g.op("add", g.op("multiply", z, c), g.op("multiply", b, c))
        weight = g.array(inner.args[1]) if inner.op in ("conv2d", "matmul") else None
        if weight is None or (inner.op == "conv2d" and inner.attrs["kernel_layout"] != "HWIO"):
            continue
        if weight.dtype != factor.dtype:
            continue
        with np.errstate(over="ignore"):
            scaled = (weight.astype(np.float64) * factor.reshape(-1).astype(np.float64)).astype(weight.dtype)
        if np.isfinite(scaled).all() or not np.isfinite(weight).all():
            return g.again(inner, inner.args[0], g.constant(scaled, f"{inner.args[1].name}_scaled"))
    return None


def _keeps_precision(*types: TensorType) -> bool:
    """Whether arithmetic may be done in another order: integers are cut and 16-bit floats overflow where the order given does not."""
    return all(t.dtype.is_float and t.dtype.bits >= 32 for t in types)


def _is_last_axis(shape: tuple[int, ...]) -> bool:
    return all(s == 1 for s in shape[:-1])


@rule("add", symbolic=True)
def merge_shifts(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """(x + a) + b = x + (a + b) for constants a and b."""
    if not (_keeps_precision(type_) or type_.dtype.is_int):
        return None
    for y, b in (call.args, call.args[::-1]):
        inner = g.definition(y, "add") if g.array(b) is not None else None
        if inner is None or not g.is_used_once(y):
            continue
        for x, a in (inner.args, inner.args[::-1]):
            if g.array(a) is not None and x.type.shape == type_.shape and g.array(x) is None:
                return g.op("add", x, g.op("add", a, b))
    return None


CANONICAL = (
    linear_to_matmul,
    transposes_apart,
    batch_norm_to_scale,
    conv1d_to_conv2d,
    volumes_to_ndhwc,
    images_to_nhwc,
    transposed_conv_to_phases,
    kernel_to_hwio,
    pointwise_conv_to_matmul,
    products_to_attention,
    matmul_of_rows,
)
ARITHMETIC = (simplify_arithmetic, join_products, scale_slices, add_slices)
SCALES = (fold_scale, merge_shifts)


def _until_stable(module: IRModule, rules: tuple[Rule, ...]) -> IRModule:
    """Rewrite again and again until no rule applies any more.

    Raises:
        InternalError: they never stop; the message names those that were still at it.
    """
    for _ in range(MAX_ROUNDS + module.main.num_calls):
        rewriter = Rewriter(module, rules)
        new = rewriter.run()
        if new is module:
            return module
        module = EliminateDeadCode().run(new)  # what rules left behind must not count as a use
    raise InternalError(f"the rules {', '.join(dict.fromkeys(rewriter.fired))} never come to an end")


@dataclass(frozen=True)
class Canonicalize:
    """One form for each thing: products are matmul, images are NHWC, batch normalisation is a scale and a shift.

    Attributes:
        resident_bytes: what L2 keeps while a kernel passes over it again and again.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})
    resident_bytes: int = 1 << 20

    def run(self, module: IRModule) -> IRModule:
        by_parts = kernel_gradient_by_parts(self.resident_bytes)
        return _until_stable(module, (fold_constant, *CANONICAL, by_parts, *MOVEMENT))


@dataclass(frozen=True)
class SimplifyAlgebra:
    """Remove what computes nothing; let transposes cancel."""

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        return _until_stable(module, (fold_constant, *MOVEMENT, *ARITHMETIC))


@dataclass(frozen=True)
class FoldScales:
    """Batch-norm folding: constant scales go into constant weights, constant shifts merge."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        return _until_stable(module, (fold_constant, *MOVEMENT, *SCALES))
