"""Convolution and pooling over images, in NCHW or NHWC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr, as_expr, const
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import extents_of, factors, float_only, in_dtype, mean_factor, mean_scale, pair, rank, rounds_once, widened
from .movement import pad_tensor
from .registry import Operator, mismatch, register

_IMAGE = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
_KERNEL = {"OIHW": (0, 1, 2, 3), "HWIO": (3, 2, 0, 1)}


def _order(name: str, table: dict[str, tuple[int, ...]], layout: str) -> tuple[int, ...]:
    if layout not in table:
        raise ShapeError(f"{name}: unknown layout {layout!r}", hint=f"one of {', '.join(table)}")
    return table[layout]


def _from_canonical(order: tuple[int, ...], values: Sequence[Any]) -> tuple[Any, ...]:
    """Values named (n, c, h, w) or (o, i, h, w), in the order that a layout has them."""
    out: list[Any] = [None] * len(order)
    for position, value in zip(order, values):
        out[position] = value
    return tuple(out)


def padding_of(name: str, value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of p, (vertical, horizontal) or (top, left, bottom, right)."""
    if not isinstance(value, int) and len(value) == 4:
        if any(not isinstance(v, int) or v < 0 for v in value):
            raise ShapeError(f"{name}: padding must be non-negative integers, got {value!r}")
        top, left, bottom, right = value
        return (top, bottom), (left, right)
    h, w = pair(name, value, "padding")
    return (h, h), (w, w)


def windows(name: str, extent: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int = 1) -> int:
    count = (extent + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise ShapeError(
            f"{name}: a window of {dilation * (kernel - 1) + 1} does not fit {extent} + {sum(pad)} elements"
        )
    return count


_CONV_DEFAULTS = {
    "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "layout": "NCHW", "kernel_layout": "OIHW",
}  # fmt: skip


def _conv_parts(args: Sequence[TensorType], attrs: Attrs) -> tuple[Any, ...]:
    x, w = args
    n, c, h, width = (x.shape[a] for a in _order("conv2d", _IMAGE, attrs["layout"]))
    o, i, kh, kw = (w.shape[a] for a in _order("conv2d", _KERNEL, attrs["kernel_layout"]))
    return n, c, h, width, o, i, kh, kw


def infer_image(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, w = args
    result = factors("conv2d", args)
    rank("conv2d", x, 4, "image")
    rank("conv2d", w, 4, "kernel")
    n, c, h, width, o, i, kh, kw = _conv_parts(args, attrs)
    groups = attrs["groups"]
    if groups < 1 or c % groups or o % groups:
        raise mismatch("conv2d", f"{c} channels and {o} outputs must both divide by {groups} groups", x, w)
    if i != c // groups:
        raise mismatch(
            "conv2d", f"{c} channels in {groups} groups need kernels of {c // groups} channels, not {i}", x, w
        )
    (sh, sw), (dh, dw) = pair("conv2d", attrs["stride"], "stride"), pair("conv2d", attrs["dilation"], "dilation")
    if min(sh, sw, dh, dw) < 1:
        raise ShapeError("conv2d: stride and dilation are at least 1")
    vertical, horizontal = padding_of("conv2d", attrs["padding"])
    shape = (n, o, windows("conv2d", h, kh, sh, vertical, dh), windows("conv2d", width, kw, sw, horizontal, dw))
    return TensorType(_from_canonical(_order("conv2d", _IMAGE, attrs["layout"]), shape), result)


def _conv(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, w = args
    kernel = _KERNEL[attrs["kernel_layout"]]
    _, i, kh, kw = (w.shape[a] for a in kernel)

    def weight(*at: Expr) -> Expr:
        return w[_from_canonical(kernel, at)]

    columns = out.shape[_IMAGE[attrs["layout"]][1]] // attrs["groups"]
    if attrs["groups"] == 1 or (i.value, columns) == (1, 1):
        return in_dtype(convolve(x, weight, (kh, kw), i.value, attrs, out), out.dtype)

    def of_group(g: Expr, o: Expr, *at: Expr) -> Expr:
        return weight(g * columns + o, *at)

    return in_dtype(convolve_groups(x, of_group, (kh, kw), i.value, columns, attrs, out), out.dtype)


def _windows(
    x: te.Tensor, size: tuple[Any, Any], depth: Any, attrs: Attrs
) -> tuple[Callable[..., Expr], tuple[Any, ...]]:
    """The image that a convolution sees, and its reduce axes.

    Returns:
        (image, channel, row, column of the result) -> the element of the window there, widened; (row of the kernel, column of
        the kernel, input channel).
    """
    image = _IMAGE[attrs["layout"]]
    (sh, sw), (dh, dw) = pair("conv2d", attrs["stride"], "stride"), pair("conv2d", attrs["dilation"], "dilation")
    vertical, horizontal = padding_of("conv2d", attrs["padding"])
    if any((*vertical, *horizontal)):
        x = pad_tensor(x, _from_canonical(image, ((0, 0), (0, 0), vertical, horizontal)), 0)
    ry, rx, rc = te.reduce_axis(size[0], "ry"), te.reduce_axis(size[1], "rx"), te.reduce_axis(depth, "rc")

    def pixel(n: Expr, channel: Expr, y: Expr, z: Expr) -> Expr:
        return te.cast(x[_from_canonical(image, (n, channel, y * sh + ry * dh, z * sw + rx * dw))], x.dtype.accumulator)

    return pixel, (ry, rx, rc)


def convolve(
    x: te.Tensor, weight: Callable[..., Expr], size: tuple[Any, Any], depth: Any, attrs: Attrs, out: TensorType,
    notes: Mapping[str, int] | None = None,
) -> te.Tensor:  # fmt: skip
    """The tensor expression of a convolution, of all channels or of each by itself, in the type in which it sums up.

    Args:
        weight: (output channel, input channel, row, column) -> the weight there.
        size: height and width of the kernels; depth: input channels of a group. notes: annotations of the block.
    """
    pixel, (ry, rx, rc) = _windows(x, size, depth, attrs)

    def at(*index: Expr) -> Expr:
        n, c, y, z = (index[a] for a in _IMAGE[attrs["layout"]])
        value = pixel(n, rc if attrs["groups"] == 1 else c, y, z)
        return te.sum(value * te.cast(weight(c, rc, ry, rx), value.dtype), axis=[ry, rx, rc])

    return te.compute(out.shape, at, "conv2d", notes)


def convolve_groups(
    x: te.Tensor, weight: Callable[..., Expr], size: tuple[Any, Any], depth: Any, columns: int, attrs: Attrs,
    out: TensorType, notes: Mapping[str, int] | None = None,
) -> te.Tensor:  # fmt: skip
    """The tensor expression of a convolution in groups of channels: one after the other, then put side by side.

    Args:
        weight: (group, output channel in the group, input channel, row, column) -> the weight there.
        size: height and width of the kernels; depth: input channels of a group.
        columns: output channels of a group, with those that fill up a panel. notes: annotations of the block.
    """
    image, groups = _IMAGE[attrs["layout"]], attrs["groups"]
    pixel, (ry, rx, rc) = _windows(x, size, depth, attrs)
    n, c, height, width = (out.shape[a] for a in image)

    def at(g: Expr, n: Expr, y: Expr, z: Expr, o: Expr) -> Expr:
        value = pixel(n, g * depth + rc, y, z)
        return te.sum(value * te.cast(weight(g, o, rc, ry, rx), value.dtype), axis=[ry, rx, rc])

    full = te.compute((groups, n, height, width, columns), at, "conv2d", notes)

    def joined(*index: Expr) -> Expr:
        n, o, y, z = (index[a] for a in image)
        return full[o // (c // groups), n, y, z, o % (c // groups)]

    return te.compute(out.shape, joined, name="channels")


def reference_image(
    x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, layout: str, kernel_layout: str
) -> Any:
    result = np.result_type(x, w)
    x, w = widened(x.transpose(_IMAGE[layout])), widened(w.transpose(_KERNEL[kernel_layout]))
    (sh, sw), (dh, dw) = pair("conv2d", stride, "stride"), pair("conv2d", dilation, "dilation")
    x = np.pad(x, ((0, 0), (0, 0), *padding_of("conv2d", padding)))
    o, i, kh, kw = w.shape
    view = np.lib.stride_tricks.sliding_window_view(x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), (2, 3))
    view = view[:, :, ::sh, ::sw, ::dh, ::dw]
    n, _, oh, ow = view.shape[:4]
    view = view.reshape(n, groups, i, oh, ow, kh, kw)
    kernels = w.reshape(groups, o // groups, i, kh, kw)
    y = np.einsum("ngihwyx,goiyx->ngohw", view, kernels, optimize=True).reshape(n, o, oh, ow)
    y = y.astype(x.dtype if x.dtype.kind in "iu" else result)
    return np.ascontiguousarray(y.transpose(np.argsort(_IMAGE[layout])))


def _conv_flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    *_, i, kh, kw = _conv_parts(args, attrs)
    return 2 * out.size * i * kh * kw


register(Operator("conv2d", infer_image, _conv, reference_image, "anchor", 2, _CONV_DEFAULTS, _conv_flops))

_POOL_DEFAULTS = {"kernel": ..., "stride": None, "padding": 0, "layout": "NCHW"}


def _pool_geometry(name: str, attrs: Attrs) -> tuple[Any, ...]:
    kh, kw = pair(name, attrs["kernel"], "kernel")
    sh, sw = (kh, kw) if attrs["stride"] is None else pair(name, attrs["stride"], "stride")
    if min(kh, kw, sh, sw) < 1:
        raise ShapeError(f"{name}: kernel and stride are at least 1")
    vertical, horizontal = padding_of(name, attrs["padding"])
    return kh, kw, sh, sw, vertical, horizontal


def _infer_pool(name: str, args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (x,) = args
    rank(name, x, 4, "image")
    if name == "avg_pool2d":
        float_only(name, x)
    if x.dtype.is_bool:
        raise mismatch(name, "it takes numbers", x, hint="cast the argument")
    order = _order(name, _IMAGE, attrs["layout"])
    n, c, h, w = (x.shape[a] for a in order)
    kh, kw, sh, sw, vertical, horizontal = _pool_geometry(name, attrs)
    if max(vertical) >= kh or max(horizontal) >= kw:
        raise ShapeError(f"{name}: padding {attrs['padding']} is not smaller than the window ({kh}, {kw})")
    shape = (n, c, windows(name, h, kh, sh, vertical), windows(name, w, kw, sw, horizontal))
    return TensorType(_from_canonical(order, shape), x.dtype)


def _pool(name: str, args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    image = _IMAGE[attrs["layout"]]
    kh, kw, sh, sw, vertical, horizontal = _pool_geometry(name, attrs)
    h, w = x.shape[image[2]], x.shape[image[3]]
    is_max = name == "max_pool2d"
    if any((*vertical, *horizontal)):
        border = x.dtype.lowest if is_max else 0
        x = pad_tensor(x, _from_canonical(image, ((0, 0), (0, 0), vertical, horizontal)), border)
    ry, rx = te.reduce_axis(kh, "ry"), te.reduce_axis(kw, "rx")

    def at(*index: Expr) -> Expr:
        n, c, y, z = (index[a] for a in image)
        value = x[_from_canonical(image, (n, c, y * sh + ry, z * sw + rx))]
        return (te.max if is_max else te.sum)(value, axis=[ry, rx])

    pooled = te.compute(out.shape, at, name=name)
    if is_max:
        return pooled

    def mean(*index: Expr) -> Expr:
        if attrs["count_include_pad"] or not any((*vertical, *horizontal)):
            return pooled[index] * as_expr(1.0 / (kh * kw), out.dtype)
        rows = _covered(index[image[2]] * sh - vertical[0], kh, h)
        columns = _covered(index[image[3]] * sw - horizontal[0], kw, w)
        return pooled[index] / te.cast(rows * columns, out.dtype)

    return te.compute(out.shape, mean, name=f"{name}_mean")


def _covered(start: Expr, size: int, extent: Expr) -> Expr:
    """How many of `size` positions from `start` lie in [0, extent)."""
    return te.minimum(start + size, extent) - te.maximum(start, const(0))


def _pool_reference(
    name: str, x: Any, kernel: Any, stride: Any, padding: Any, layout: str, count_include_pad: bool = True
) -> Any:
    attrs = Attrs.of(kernel=kernel, stride=stride, padding=padding)
    kh, kw, sh, sw, vertical, horizontal = _pool_geometry(name, attrs)
    x = x.transpose(_IMAGE[layout])
    widths = ((0, 0), (0, 0), vertical, horizontal)

    def windows(values: Any, border: float) -> Any:
        padded = np.pad(values, widths, constant_values=border)
        return np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))[:, :, ::sh, ::sw]

    if name == "max_pool2d":
        lowest = -np.inf if x.dtype.kind not in "iub" else np.iinfo(x.dtype).min
        y = windows(x, lowest).max(axis=(4, 5))
    else:
        total = windows(x, 0).sum(axis=(4, 5))
        count = kh * kw if count_include_pad else windows(np.ones_like(x), 0).sum(axis=(4, 5))
        y = total / count
    return np.ascontiguousarray(y.astype(x.dtype).transpose(np.argsort(_IMAGE[layout])))


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
    n, c, _, _ = (x.shape[a] for a in _order("global_avg_pool2d", _IMAGE, attrs["layout"]))
    return TensorType(_from_canonical(_IMAGE[attrs["layout"]], (n, c, 1, 1)), x.dtype)


def _global(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    image = _IMAGE[attrs["layout"]]
    h, w = x.shape[image[2]], x.shape[image[3]]
    ry, rx = te.reduce_axis(h, "ry"), te.reduce_axis(w, "rx")
    total = te.compute(
        out.shape,
        lambda *i: te.sum(x[_from_canonical(image, (i[image[0]], i[image[1]], ry, rx))], axis=[ry, rx]),
        name="global_sum",
    )
    return te.compute(out.shape, lambda *i: total[i] * mean_scale((h, w), out.dtype), name="global_avg_pool2d")


def _global_reference(x: Any, layout: str) -> Any:
    axes = _IMAGE[layout][2:]
    return x.sum(axis=axes, keepdims=True) * x.dtype.type(mean_factor(prod(x.shape[a] for a in axes)))


register(
    rounds_once(
        Operator("global_avg_pool2d", _infer_global, _global, _global_reference, "anchor", 1, {"layout": "NCHW"},
                 lambda args, out, attrs: args[0].size),
        lambda types, attrs: extents_of(types[0], _IMAGE[attrs["layout"]][2:]),
    )
)  # fmt: skip
