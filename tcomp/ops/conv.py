"""Convolution over images, in NCHW or NHWC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import factors, in_dtype, pair, rank, widened
from .movement import pad_tensor
from .registry import Operator, mismatch, register

IMAGE = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
_KERNEL = {"OIHW": (0, 1, 2, 3), "HWIO": (3, 2, 0, 1)}


def layout_order(name: str, table: dict[str, tuple[int, ...]], layout: str) -> tuple[int, ...]:
    if layout not in table:
        raise ShapeError(f"{name}: unknown layout {layout!r}", hint=f"one of {', '.join(table)}")
    return table[layout]


def from_canonical(order: tuple[int, ...], values: Sequence[Any]) -> tuple[Any, ...]:
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
    n, c, h, width = (x.shape[a] for a in layout_order("conv2d", IMAGE, attrs["layout"]))
    o, i, kh, kw = (w.shape[a] for a in layout_order("conv2d", _KERNEL, attrs["kernel_layout"]))
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
    return TensorType(from_canonical(layout_order("conv2d", IMAGE, attrs["layout"]), shape), result)


def _conv(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, w = args
    kernel = _KERNEL[attrs["kernel_layout"]]
    _, i, kh, kw = (w.shape[a] for a in kernel)

    def weight(*at: Expr) -> Expr:
        return w[from_canonical(kernel, at)]

    columns = out.shape[IMAGE[attrs["layout"]][1]] // attrs["groups"]
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
    image = IMAGE[attrs["layout"]]
    (sh, sw), (dh, dw) = pair("conv2d", attrs["stride"], "stride"), pair("conv2d", attrs["dilation"], "dilation")
    vertical, horizontal = padding_of("conv2d", attrs["padding"])
    if any((*vertical, *horizontal)):
        x = pad_tensor(x, from_canonical(image, ((0, 0), (0, 0), vertical, horizontal)), 0)
    ry, rx, rc = te.reduce_axis(size[0], "ry"), te.reduce_axis(size[1], "rx"), te.reduce_axis(depth, "rc")

    def pixel(n: Expr, channel: Expr, y: Expr, z: Expr) -> Expr:
        return te.cast(x[from_canonical(image, (n, channel, y * sh + ry * dh, z * sw + rx * dw))], x.dtype.accumulator)

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
        n, c, y, z = (index[a] for a in IMAGE[attrs["layout"]])
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
    image, groups = IMAGE[attrs["layout"]], attrs["groups"]
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
    x, w = widened(x.transpose(IMAGE[layout])), widened(w.transpose(_KERNEL[kernel_layout]))
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
    return np.ascontiguousarray(y.transpose(np.argsort(IMAGE[layout])))


def _conv_flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    *_, i, kh, kw = _conv_parts(args, attrs)
    return 2 * out.size * i * kh * kw


register(Operator("conv2d", infer_image, _conv, reference_image, "anchor", 2, _CONV_DEFAULTS, _conv_flops))
