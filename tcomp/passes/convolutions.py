"""Convolutions of other kinds, in terms of conv2d, for which there are fast kernels."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..ir.arith import divisors
from ..ir.graph import OpCall, Operand, TensorType
from ..ops.convolutions import LAYOUTS, each
from ..ops.transposed import transposed_settings
from .rewriter import Rewriter, Rule, rule


@rule("conv1d")
def conv1d_to_conv2d(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A convolution along a line is one over images of one row."""
    x, w = call.args
    is_last, kernel_last = call.attrs["layout"] == "NWC", call.attrs["kernel_layout"] == "WIO"
    n, a, b = x.type.shape
    image = g.op("reshape", x, shape=(n, 1, a, b) if is_last else (n, a, 1, b))
    k, i, o = w.type.shape
    kernel = g.op("reshape", w, shape=(1, k, i, o) if kernel_last else (k, i, 1, o))
    stride, padding, dilation = (each("conv1d", call.attrs[k], 1, k, 0)[0] for k in ("stride", "padding", "dilation"))
    y = g.op(
        "conv2d", image, kernel, stride=(1, stride), padding=(0, padding), dilation=(1, dilation), groups=call.attrs["groups"],
        layout="NHWC" if is_last else "NCHW", kernel_layout="HWIO" if kernel_last else "OIHW",
    )  # fmt: skip
    return g.op("reshape", y, shape=type_.shape)


@rule("conv3d")
def volumes_to_ndhwc(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Convolutions of three dimensions run with channels innermost, as those of images do."""
    if (call.attrs["layout"], call.attrs["kernel_layout"]) == (LAYOUTS[3][1], LAYOUTS[3][3]):
        return None
    x, w = call.args
    changes = {"layout": "NDHWC", "kernel_layout": "DHWIO"}
    kernel = w if call.attrs["kernel_layout"] == "DHWIO" else g.op("transpose", w, axes=(2, 3, 4, 1, 0))
    if call.attrs["layout"] == "NDHWC":
        return g.again(call, x, kernel, **changes)
    volume = g.op("transpose", x, axes=(0, 2, 3, 4, 1))
    return g.op("transpose", g.again(call, volume, kernel, **changes), axes=(0, 4, 1, 2, 3))


@rule("conv2d_transpose", groups=1, layout="NHWC")
def transposed_conv_to_phases(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A transposed convolution with stride s is s * s plain ones, each with every s-th tap of the kernel, interleaved."""
    x, w = call.args
    stride, padding, _, dilation = transposed_settings(call.attrs)
    if dilation != (1, 1) or not all(type_.shape):
        return None
    kernel = g.op("transpose", w, axes=(2, 3, 0, 1))  # (height, width, in, out)
    n, *size, o = type_.extents
    counts = [-(-(e + p) // s) for e, p, s in zip(size, padding, stride)]
    rows = []
    for a in range(stride[0]):
        row = [_phase(g, x, kernel, (a, b), stride, counts) for b in range(stride[1])]
        rows.append(_interleaved(g, row, 4))
    full = g.op("reshape", _interleaved(g, rows, 2), shape=(n, counts[0] * stride[0], counts[1] * stride[1], o))
    (top, left), (h, width) = padding, size
    if full.type.shape == type_.shape:
        return full
    return g.op("slice", full, begin=(0, top, left, 0), end=(n, top + h, left + width, o))


def kernel_gradient_by_parts(resident_bytes: int) -> Rule:
    """The gradient of a kernel by many images is that by a few at a time, summed up: each tile of it passes over all of them, and
    those few stay in L2 meanwhile.

    Args:
        resident_bytes: what L2 keeps while a kernel passes over it again and again.
    """
    apply = partial(_by_parts, resident_bytes)
    return Rule("kernel_gradient_by_parts", apply, frozenset({"conv_backward_weight"}), attrs={"parts": 1})


def _by_parts(resident: int, g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    if not isinstance(call.args[0].type.shape[0], int):
        return None
    images = call.args[0].type.shape[0]
    nbytes = sum(a.type.size * a.type.dtype.itemsize for a in call.args)
    most = min(images, nbytes // max(1, 2 * type_.size * type_.dtype.itemsize))  # the parts are written and read, too
    choices = [p for p in divisors(images, most) if p > 1 and nbytes <= 2 * p * resident] if images else []
    if nbytes <= 2 * resident or not choices:
        return None
    parts = next((p for p in choices if nbytes <= p * resident), choices[-1])
    return g.op("sum", g.again(call, *call.args, parts=parts), axes=(0,))


def _interleaved(g: Rewriter, parts: list[Operand], axis: int) -> Operand:
    return parts[0] if len(parts) == 1 else g.op("concat", *parts, axis=axis)


def _phase(
    g: Rewriter, x: Operand, kernel: Operand, phase: tuple[int, int], stride: tuple[int, int], counts: list[int]
) -> Operand:
    """What the taps of one phase add up to, as (n, rows, 1, columns, 1, channels)."""
    n, *size, _ = x.type.extents
    *window, c, o = kernel.type.extents
    shape = (n, counts[0], 1, counts[1], 1, o)
    if any(a >= k for a, k in zip(phase, window)):
        zero = g.constant(np.zeros((1,) * 6, x.type.dtype.numpy), "zero")
        return g.op("broadcast_to", zero, shape=shape)
    taps = g.op("slice", kernel, begin=(*phase, 0, 0), end=(*window, c, o), strides=(*stride, 1, 1))
    taps = g.op("flip", taps, axes=(0, 1))
    before = [k - 1 for k in taps.type.extents[:2]]
    after = [max(0, count - e) for count, e in zip(counts, size)]
    y = g.op("conv2d", x, taps, padding=(*before, *after), layout="NHWC", kernel_layout="HWIO")
    if y.type.shape[1:3] != tuple(counts):
        y = g.op("slice", y, begin=(0, 0, 0, 0), end=(n, *counts, o))
    return g.op("reshape", y, shape=shape)
