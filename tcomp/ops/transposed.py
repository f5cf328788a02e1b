"""The transpose of a convolution of images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr, as_expr
from ..ir.graph import TensorType
from ..ir.query import all_of
from ..ir.stmt import Attrs
from .common import factors, in_dtype, pair, rank, widened
from .convolutions import channels_last, each
from .registry import Operator, mismatch, register

_TRANSPOSE = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "layout": "NCHW"}
"""The kernel is (in, out / groups, height, width), as the convolution has it that this one is the transpose of."""


def transposed_settings(attrs: Attrs) -> tuple[tuple[int, int], ...]:
    """Stride, padding, output padding and dilation, each (vertical, horizontal).

    Raises:
        ShapeError: out of range.
    """
    name = "conv2d_transpose"
    keys = (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    stride, padding, extra, dilation = (each(name, attrs[k], 2, k, least) for k, least in keys)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise ShapeError(f"{name}: output_padding {attrs['output_padding']!r} must be less than stride or dilation")
    return tuple(pair(name, v, "setting") for v in (stride, padding, extra, dilation))


def _infer_transposed(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    name = "conv2d_transpose"
    x, w = args
    result = factors(name, args)
    rank(name, x, 4, "image")
    rank(name, w, 4, "kernel")
    if attrs["layout"] not in ("NCHW", "NHWC"):
        raise ShapeError(f"{name}: unknown layout {attrs['layout']!r}", hint="NCHW or NHWC")
    n, *size, c = channels_last(x.shape, attrs["layout"] == "NHWC")
    groups = attrs["groups"]
    if groups < 1 or c % groups or w.shape[0] != c:
        raise mismatch(name, f"{c} channels in {groups} groups do not fit a kernel for {w.shape[0]}", x, w)
    out = [
        (e - 1) * s - 2 * p + d * (k - 1) + 1 + extra
        for e, k, s, p, extra, d in zip(size, w.shape[2:], *transposed_settings(attrs))
    ]
    if min(out) < 1:
        raise ShapeError(f"{name}: the padding leaves {out[0]} x {out[1]} elements")
    o = w.shape[1] * groups
    return TensorType((n, *out, o) if attrs["layout"] == "NHWC" else (n, o, *out), result)


def _transposed(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, w = args
    stride, padding, _, dilation = transposed_settings(attrs)
    image = attrs["layout"] == "NHWC"
    _, *size, channels = (e.value for e in channels_last(x.shape, image))
    per_group, depth = w.shape[1].value, channels // attrs["groups"]
    rs = [te.reduce_axis(w.shape[2 + n], f"r{n}") for n in range(2)]
    rc = te.reduce_axis(depth, "rc")
    wide = x.dtype.accumulator

    def at(*index: Expr) -> Expr:
        n, *place, o = channels_last(index, image)
        channel = rc if attrs["groups"] == 1 else o // per_group * depth + rc
        scaled = [y + p - r * d for y, p, r, d in zip(place, padding, rs, dilation)]
        where = [e // s for e, s in zip(scaled, stride)]
        hit = all_of([c for e, s, y, limit in zip(scaled, stride, where, size)
                      for c in (te.equal(e % s, 0), as_expr(0) <= y, y < limit)])  # fmt: skip
        value = x[(n, *where, channel)] if image else x[(n, channel, *where)]
        seen = te.select(hit, te.cast(value, wide), as_expr(0, wide))
        return te.sum(seen * te.cast(w[(channel, o % per_group, *rs)], wide), axis=[*rs, rc])

    return in_dtype(te.compute(out.shape, at, name="conv2d_transpose"), out.dtype)


def _transposed_reference(x: Any, w: Any, **given: Any) -> Any:
    attrs = Attrs.of(given)
    (sh, sw), (ph, pw), (eh, ew), (dh, dw) = transposed_settings(attrs)
    if attrs["layout"] == "NHWC":
        x = np.moveaxis(x, -1, 1)
    kind, x, w, groups = x.dtype, widened(x), widened(w), attrs["groups"]
    n, _, h, width = x.shape
    kh, kw = w.shape[2:]
    full = np.zeros(
        (n, groups, w.shape[1], (h - 1) * sh + dh * (kh - 1) + 1 + eh, (width - 1) * sw + dw * (kw - 1) + 1 + ew),
        x.dtype,
    )
    parts, kernels = x.reshape(n, groups, -1, h, width), w.reshape(groups, -1, *w.shape[1:])
    for a, b in product(range(kh), range(kw)):
        rows, columns = slice(a * dh, a * dh + (h - 1) * sh + 1, sh), slice(b * dw, b * dw + (width - 1) * sw + 1, sw)
        full[..., rows, columns] += np.einsum("ngihw,gio->ngohw", parts, kernels[..., a, b])
    y = full.reshape(n, -1, *full.shape[3:])[:, :, ph : full.shape[3] - ph, pw : full.shape[4] - pw]
    y = y if kind.kind in "iu" else y.astype(kind)
    return np.ascontiguousarray(np.moveaxis(y, 1, -1) if attrs["layout"] == "NHWC" else y)


def _transposed_flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 2 * args[0].size * int(prod(args[1].shape[1:]))


register(
    Operator("conv2d_transpose", _infer_transposed, _transposed, _transposed_reference, "anchor", 2, _TRANSPOSE,
             _transposed_flops)
)  # fmt: skip
