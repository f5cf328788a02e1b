"""Pooling over images, in NCHW or NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..dtype import int64
from ..errors import ShapeError
from ..ir.expr import Expr, as_expr, call, const
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import extents_of, float_only, mean_factor, mean_scale, pair, rank, rounds_once
from .conv import IMAGE, from_canonical, layout_order, padding_of, windows
from .movement import pad_tensor
from .registry import Operator, mismatch, register

_POOL_DEFAULTS = {"kernel": ..., "stride": None, "padding": 0, "dilation": 1, "layout": "NCHW"}


def _pool_geometry(name: str, attrs: Attrs) -> tuple[Any, ...]:
    kh, kw = pair(name, attrs["kernel"], "kernel")
    sh, sw = (kh, kw) if attrs["stride"] is None else pair(name, attrs["stride"], "stride")
    dh, dw = pair(name, attrs["dilation"], "dilation")
    if min(kh, kw, sh, sw, dh, dw) < 1:
        raise ShapeError(f"{name}: kernel, stride and dilation are at least 1")
    vertical, horizontal = padding_of(name, attrs["padding"])
    return kh, kw, sh, sw, dh, dw, vertical, horizontal


def _infer_pool(name: str, args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (x,) = args
    rank(name, x, 4, "image")
    if name == "avg_pool2d":
        float_only(name, x)
    if x.dtype.is_bool:
        raise mismatch(name, "it takes numbers", x, hint="cast the argument")
    order = layout_order(name, IMAGE, attrs["layout"])
    n, c, h, w = (x.shape[a] for a in order)
    kh, kw, sh, sw, dh, dw, vertical, horizontal = _pool_geometry(name, attrs)
    if max(vertical) > dh * (kh - 1) or max(horizontal) > dw * (kw - 1):
        raise ShapeError(f"{name}: padding {attrs['padding']} is not smaller than the window ({kh}, {kw})")
    shape = (n, c, windows(name, h, kh, sh, vertical, dh), windows(name, w, kw, sw, horizontal, dw))
    return TensorType(from_canonical(order, shape), x.dtype)


def _pool(name: str, args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    image = IMAGE[attrs["layout"]]
    kh, kw, sh, sw, dh, dw, vertical, horizontal = _pool_geometry(name, attrs)
    h, w = x.shape[image[2]], x.shape[image[3]]
    is_max = name == "max_pool2d"
    if any((*vertical, *horizontal)):
        border = x.dtype.lowest if is_max else 0
        x = pad_tensor(x, from_canonical(image, ((0, 0), (0, 0), vertical, horizontal)), border)
    ry, rx = te.reduce_axis(kh, "ry"), te.reduce_axis(kw, "rx")

    def at(*index: Expr) -> Expr:
        n, c, y, z = (index[a] for a in image)
        value = x[from_canonical(image, (n, c, y * sh + ry * dh, z * sw + rx * dw))]
        return (te.max if is_max else te.sum)(value, axis=[ry, rx])

    pooled = te.compute(out.shape, at, name=name)
    if is_max:
        return pooled

    def mean(*index: Expr) -> Expr:
        if attrs["count_include_pad"] or not any((*vertical, *horizontal)):
            return pooled[index] * as_expr(1.0 / (kh * kw), out.dtype)
        rows = _covered(index[image[2]] * sh - vertical[0], kh, dh, h)
        columns = _covered(index[image[3]] * sw - horizontal[0], kw, dw, w)
        return pooled[index] / te.cast(rows * columns, out.dtype)

    return te.compute(out.shape, mean, name=f"{name}_mean")


def _covered(start: Expr, size: int, step: int, extent: Expr) -> Expr:
    """How many of `size` positions from `start`, a step apart, lie in [0, extent)."""
    if step == 1:
        return te.minimum(start + size, extent) - te.maximum(start, const(0))
    before = (te.maximum(const(0) - start, const(0)) + (step - 1)) // step
    inside = (te.maximum(extent - start, const(0)) + (step - 1)) // step
    return te.minimum(inside, const(size)) - before


def _pool_reference(
    name: str,
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    layout: str,
    count_include_pad: bool = True,
) -> Any:
    attrs = Attrs.of(kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    kh, kw, sh, sw, dh, dw, vertical, horizontal = _pool_geometry(name, attrs)
    x = x.transpose(IMAGE[layout])
    widths = ((0, 0), (0, 0), vertical, horizontal)

    def windows(values: Any, border: float) -> Any:
        padded = np.pad(values, widths, constant_values=border)
        reach = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
        view = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))
        return view[:, :, ::sh, ::sw, ::dh, ::dw]

    if name == "max_pool2d":
        lowest = -np.inf if x.dtype.kind not in "iub" else np.iinfo(x.dtype).min
        y = windows(x, lowest).max(axis=(4, 5))
    else:
        total = windows(x, 0).sum(axis=(4, 5))
        count = kh * kw if count_include_pad else windows(np.ones_like(x), 0).sum(axis=(4, 5))
        y = total / count
    return np.ascontiguousarray(y.astype(x.dtype).transpose(np.argsort(IMAGE[layout])))


for _name in ("max_pool2d", "avg_pool2d"):
    _more = {} if _name == "max_pool2d" else {"count_include_pad": True}
    _op = Operator(
        _name,
        lambda args, attrs, n=_name: _infer_pool(n, args, attrs),
        lambda args, attrs, out, n=_name: _pool(n, args, attrs, out),
        lambda x, n=_name, **attrs: _pool_reference(n, x, **attrs),
        "anchor",
        1,
        _POOL_DEFAULTS | _more,
        lambda args, out, attrs, n=_name: out.size * int(np.prod(pair(n, attrs["kernel"], "kernel"))),
    )
    register(_op if _name == "max_pool2d" else rounds_once(_op))


def _infer_global(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (x,) = args
    rank("global_avg_pool2d", x, 4, "image")
    float_only("global_avg_pool2d", x)
    n, c, _, _ = (x.shape[a] for a in layout_order("global_avg_pool2d", IMAGE, attrs["layout"]))
    return TensorType(from_canonical(IMAGE[attrs["layout"]], (n, c, 1, 1)), x.dtype)


def _global(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    image = IMAGE[attrs["layout"]]
    h, w = x.shape[image[2]], x.shape[image[3]]
    ry, rx = te.reduce_axis(h, "ry"), te.reduce_axis(w, "rx")
    total = te.compute(
        out.shape,
        lambda *i: te.sum(x[from_canonical(image, (i[image[0]], i[image[1]], ry, rx))], axis=[ry, rx]),
        name="global_sum",
    )
    return te.compute(out.shape, lambda *i: total[i] * mean_scale((h, w), out.dtype), name="global_avg_pool2d")


def _global_reference(x: Any, layout: str) -> Any:
    axes = IMAGE[layout][2:]
    return x.sum(axis=axes, keepdims=True) * x.dtype.type(mean_factor(prod(x.shape[a] for a in axes)))


register(
    rounds_once(
        Operator("global_avg_pool2d", _infer_global, _global, _global_reference, "anchor", 1, {"layout": "NCHW"},
                 lambda args, out, attrs: args[0].size),
        lambda types, attrs: extents_of(types[0], IMAGE[attrs["layout"]][2:]),
    )
)  # fmt: skip


def _infer_places(args: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, TensorType]:
    values = _infer_pool("max_pool2d", args, attrs.with_(layout="NCHW"))
    return values, TensorType(values.shape, int64)


def _places(args: Sequence[te.Tensor], attrs: Attrs, out: Any) -> tuple[te.Tensor, te.Tensor]:
    """The greatest element of each window, then the first place where it stands. A NaN is greatest."""
    (x,) = args
    kh, kw, sh, sw, dh, dw, vertical, horizontal = _pool_geometry("max_pool2d", attrs)
    h, w = x.shape[2:]
    best = _pool("max_pool2d", args, attrs.with_(layout="NCHW"), out[0])
    ry, rx = te.reduce_axis(kh, "ry"), te.reduce_axis(kw, "rx")

    def first(n: Expr, c: Expr, y: Expr, z: Expr) -> Expr:
        row, column = y * sh + ry * dh - vertical[0], z * sw + rx * dw - horizontal[0]
        inside = te.all(const(0) <= row, row < h, const(0) <= column, column < w)
        value = te.select(inside, x[n, c, row, column], as_expr(x.dtype.lowest, x.dtype))
        here = te.equal(value, best[n, c, y, z])
        here = here | call("isnan", value) if x.dtype.is_float else here
        return te.min(te.select(inside & here, row * w + column, const(int64.highest)), axis=[ry, rx])

    places = te.compute(best.shape, first, name="max_pool2d_first")
    return best, te.compute(best.shape, lambda *i: places[i], name="max_pool2d_places")


def _places_reference(x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[Any, Any]:
    kh, kw, sh, sw, dh, dw, vertical, horizontal = _pool_geometry(
        "max_pool2d", Attrs.of(kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    )
    h, w = x.shape[2:]
    values = _pool_reference("max_pool2d", x, kernel, stride, padding, dilation, "NCHW")
    places = np.empty(values.shape, np.int64)
    for n, c, y, z in np.ndindex(values.shape):
        rows = [r for r in range(y * sh - vertical[0], y * sh - vertical[0] + dh * kh, dh) if 0 <= r < h]
        columns = [r for r in range(z * sw - horizontal[0], z * sw - horizontal[0] + dw * kw, dw) if 0 <= r < w]
        best = int(np.argmax(x[n, c][np.ix_(rows, columns)]))
        places[n, c, y, z] = rows[best // len(columns)] * w + columns[best % len(columns)]
    return values, places


register(
    Operator("max_pool2d_places", _infer_places, _places, _places_reference, "row_reduction", 1,
             {k: v for k, v in _POOL_DEFAULTS.items() if k != "layout"},
             lambda args, out, attrs: 2 * out.size * int(np.prod(pair("max_pool2d", attrs["kernel"], "kernel"))))
)  # fmt: skip
"""The greatest elements of windows, and where each stands first in its channel (int64, counted row by row)."""
