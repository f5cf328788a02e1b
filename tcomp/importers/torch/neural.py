"""Layers: products, convolutions, pooling, normalisation, attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import padded, product
from .node import Node
from .table import converts


@converts("mm", "bmm", "matmul", "dot", "mv")
def matmul(c: Node, a: Any, b: Any) -> Operand:
    return product(c, a, b)


@converts("addmm", "baddbmm", "addmv")
def add_matmul(c: Node, x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Operand:
    y = product(c, a, b)
    y = y if alpha == 1 else c.g.op("multiply", y, c.tensor(alpha))
    if beta == 0:
        return y
    return c.g.op("add", y, x if beta == 1 else c.g.op("multiply", x, c.tensor(beta)))


@converts("linear")
def linear(c: Node, x: Any, w: Any, bias: Any = None) -> Operand:
    return c.g.op("linear", x, w) if bias is None else c.g.op("linear", x, w, bias)


@converts("einsum")
def einsum(c: Node, equation: str, operands: Sequence[Any], **how: Any) -> Operand:
    return c.g.op("einsum", *operands, equation=equation)


# convolutions


def _with_bias(c: Node, y: Operand, bias: Any) -> Operand:
    if bias is None:
        return y
    return c.g.op("add", y, c.reshape(bias, (bias.type.shape[0], *(1 for _ in range(y.type.ndim - 2)))))


@converts("convolution")
def convolution(
    c: Node,
    x: Any,
    w: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Operand:
    dims = w.type.ndim - 2
    step, pads, reach = (c.each(v, dims) for v in (stride, padding, dilation))
    y = (_transposed if transposed else _direct)(c, x, w, step, pads, reach, groups, c.each(extra, dims))
    return _with_bias(c, y, bias)


@converts("conv1d", "conv2d", "conv3d")
def conv(
    c: Node, x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Operand:
    dims = w.type.ndim - 2
    step, reach = c.each(stride, dims), c.each(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(reach, w.type.extents[2:])]
        x = padded(c, x, [(0, 0), (0, 0), *((t // 2, t - t // 2) for t in total)])
    pads = [0] * dims if isinstance(padding, str) else c.each(padding, dims)
    return _with_bias(c, _direct(c, x, w, step, pads, reach, groups, []), bias)


def _direct(
    c: Node, x: Any, w: Any, stride: list[int], pads: list[int], dilation: list[int], groups: int, extra: Any
) -> Operand:
    dims = len(stride)
    how = {"stride": tuple(stride), "padding": tuple(pads), "dilation": tuple(dilation)}
    if dims == 1:
        how = {k: (v[0],) for k, v in how.items()}
    return c.g.op(f"conv{dims}d", x, w, groups=groups, **how)


@converts("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    c: Node,
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    extra: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Operand:
    dims = w.type.ndim - 2
    step, pads, reach = (c.each(v, dims) for v in (stride, padding, dilation))
    y = _transposed(c, x, w, step, pads, reach, groups, c.each(extra, dims))
    return _with_bias(c, y, bias)


def _transposed(
    c: Node, x: Any, w: Any, stride: list[int], pads: list[int], dilation: list[int], groups: int, extra: list[int]
) -> Operand:
    if len(stride) == 3:
        raise c.refuse("a transposed convolution of three dimensions")
    is_row = len(stride) == 1
    if is_row:
        x, w = (c.reshape(t, (*t.type.shape[:2], 1, t.type.shape[2])) for t in (x, w))
        stride, pads, dilation, extra = [1, *stride], [0, *pads], [1, *dilation], [0, *extra]
    y = c.g.op(
        "conv2d_transpose", x, w, stride=tuple(stride), padding=tuple(pads), output_padding=tuple(extra), dilation=tuple(dilation),
        groups=groups,
    )  # fmt: skip
    return c.reshape(y, (*y.type.shape[:2], y.type.shape[3])) if is_row else y


# pooling


def _image(c: Node, x: Operand) -> Operand:
    """(batch, channels, height, width) of an image of one or two dimensions, with or without a batch."""
    if c.op.startswith(("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d")):
        x = c.reshape(x, (*x.type.shape[:-1], 1, x.type.shape[-1]))
    return c.reshape(x, (1, *x.type.shape)) if x.type.ndim == 3 else x


def _window(c: Node, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[list[int]]:
    dims = 1 if "1d" in c.op else 2
    found = [c.each(v, dims) for v in (kernel, stride or kernel, padding, dilation)]
    return [[1, *v] if dims == 1 and i != 2 else [0, *v] if dims == 1 else v for i, v in enumerate(found)]


def _behind(size: Sequence[int], window: list[list[int]], ceil: bool) -> list[int]:
    """What ceil_mode adds behind the image: a last window that begins inside of it."""
    more = []
    for n, k, s, p, d in zip(size, *window):
        span = n + 2 * p - d * (k - 1) - 1
        count = (-(-span // s) if ceil else span // s) + 1
        if ceil and (count - 1) * s >= n + p:
            count -= 1
        more.append(max((count - 1) * s + d * (k - 1) + 1 - n - 2 * p, 0) if ceil else 0)
    return more


@converts("max_pool1d", "max_pool2d", "max_pool2d_with_indices")
def max_pool(
    c: Node, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    image, window = _image(c, x), _window(c, kernel, stride, padding, dilation)
    size, steps, (top, left), gaps = window
    down, right = _behind(image.type.extents[2:], window, ceil_mode)
    how = {
        "kernel": tuple(size),
        "stride": tuple(steps),
        "padding": (top, left, top + down, left + right),
        "dilation": tuple(gaps),
    }
    if "indices" in c.op:
        values, places = c.g.op("max_pool2d_places", image, **how)
        return c.reshape(values, c.shape), c.reshape(places, c.shape)
    return c.reshape(c.g.op("max_pool2d", image, **how), c.shape)


@converts("avg_pool1d", "avg_pool2d")
def avg_pool(
    c: Node, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, includes: bool = True,
    divisor: Any = None,
) -> Operand:  # fmt: skip
    image, window = _image(c, x), _window(c, kernel, stride, padding, 1)
    size, steps, (top, left), _ = window
    down, right = _behind(image.type.extents[2:], window, ceil_mode)
    around = (top, left, top + down, left + right)
    y = c.g.op("avg_pool2d", image, kernel=tuple(size), stride=tuple(steps), padding=around)
    if divisor:
        y = c.g.op("multiply_scalar", y, scalar=prod(size) / divisor)
    elif down or right or (not includes and (top or left)):
        y = c.g.op("multiply", y, c.constant(_shares(image.type.extents[2:], window, (down, right), includes), y))
    return c.reshape(y, c.shape)


def _shares(size: Sequence[int], window: list[list[int]], more: Sequence[int], includes: bool) -> np.ndarray:
    """All taps of a window over those that count, for each window."""
    factor: Any = np.ones(())
    for n, k, s, p, b in zip(size, *window[:3], more):
        count = (n + 2 * p + b - k) // s + 1
        low, high = (-p, n + p) if includes else (0, n)
        taps = np.arange(count)[:, None] * s - p + np.arange(k)
        factor = factor[..., None] * (k / ((taps >= low) & (taps < high)).sum(1))
    return factor


@converts("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool(c: Node, x: Any, wanted: Any) -> Operand:
    if "max" in c.op:
        raise c.refuse("adaptive maxima are not read")
    image = _image(c, x)
    target = [1, *c.each(wanted, 1)] if "1d" in c.op else c.each(wanted, 2)
    size = image.type.extents[2:]
    target = [n if t is None else t for n, t in zip(size, target)]
    if target == [1, 1]:
        return c.reshape(c.g.op("global_avg_pool2d", image), c.shape)
    if all(n % t == 0 for n, t in zip(size, target)):
        step = tuple(n // t for n, t in zip(size, target))
        return c.reshape(c.g.op("avg_pool2d", image, kernel=step, stride=step), c.shape)
    for axis, (n, t) in enumerate(zip(size, target), start=2):
        image = _means(c, image, axis, n, t)
    return c.reshape(image, c.shape)


def _means(c: Node, x: Operand, axis: int, n: int, count: int) -> Operand:
    """Means of overlapping parts of an axis, as a product with a matrix."""
    matrix = np.zeros((n, count))
    for i in range(count):
        a, b = i * n // count, -(-(i + 1) * n // count)
        matrix[a:b, i] = 1 / (b - a)
    order = [d for d in range(4) if d != axis] + [axis]
    y = c.g.op("matmul", c.transpose(x, order), c.constant(matrix, x))
    return c.transpose(y, [int(i) for i in np.argsort(order)])


# normalisation


@converts("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "native_batch_norm")
def batch_norm(c: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    training = any(r is True for r in rest[:1]) and not c.op.startswith("_native_batch_norm_legit_no_training")
    if training or mean is None:
        raise c.refuse("batch normalisation in training mode", "model.eval()")
    eps = [r for r in rest if isinstance(r, float)][1]
    channels = x.type.shape[1]
    one, zero = (c.constant(np.full(channels, v), x) for v in (1, 0))
    y = c.g.op(
        "batch_norm", x, *(c.cast(t, x.type.dtype) for t in (weight or one, bias or zero, mean, var)), axis=1, eps=eps
    )
    return (y, None, None) if "native" in c.op else y


@converts("layer_norm", "native_layer_norm")
def layer_norm(
    c: Node, x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> Any:
    count = prod(shape)
    rows = c.reshape(x, (*x.type.shape[: x.type.ndim - len(shape)], count))
    scale = c.constant(np.ones(count), x) if weight is None else c.reshape(weight, (count,))
    shift = c.constant(np.zeros(count), x) if bias is None else c.reshape(bias, (count,))
    y = c.reshape(c.g.op("layer_norm", rows, scale, shift, eps=eps), x.type.shape)
    return (y, None, None) if "native" in c.op else y


@converts("rms_norm")
def rms_norm(c: Node, x: Any, shape: Sequence[int], weight: Any = None, eps: Any = None) -> Operand:
    count = prod(shape)
    rows = c.reshape(x, (*x.type.shape[: x.type.ndim - len(shape)], count))
    scale = c.constant(np.ones(count), x) if weight is None else c.reshape(weight, (count,))
    limit = float(np.finfo(x.type.dtype.numpy).eps) if eps is None else eps
    return c.reshape(c.g.op("rms_norm", rows, scale, eps=limit), x.type.shape)


@converts("group_norm", "native_group_norm")
def group_norm(c: Node, x: Any, *args: Any) -> Any:
    if "native" in c.op:
        weight, bias, *_, groups, eps = args
    else:
        groups, weight, bias, eps = (*args, None, None, 1e-5)[:4] if len(args) < 4 else args[:4]
    channels = x.type.shape[1]
    scale = c.constant(np.ones(channels), x) if weight is None else weight
    shift = c.constant(np.zeros(channels), x) if bias is None else bias
    y = c.g.op("group_norm", x, scale, shift, groups=groups, eps=eps)
    return (y, None, None) if "native" in c.op else y


@converts("instance_norm")
def instance_norm(
    c: Node,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    uses_input: bool,
    momentum: float,
    eps: float,
    *rest: Any,
) -> Operand:
    if not uses_input:
        raise c.refuse("running statistics are not read")
    channels = x.type.shape[1]
    scale = c.constant(np.ones(channels), x) if weight is None else weight
    shift = c.constant(np.zeros(channels), x) if bias is None else bias
    return c.g.op("instance_norm", x, scale, shift, eps=eps)


# attention


@converts("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
def attention(
    c: Node, q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0, is_causal: bool = False, *,
    scale: Any = None, enable_gqa: bool = False,
) -> Operand:  # fmt: skip
    if dropout:
        raise c.refuse("dropout draws random numbers", "model.eval()")
    if enable_gqa and q.type.shape[-3] != k.type.shape[-3]:
        times = q.type.shape[-3] // k.type.shape[-3]
        k, v = (_repeated(c, t, times) for t in (k, v))
    args = [q, k, v]
    if mask is not None:
        if mask.type.dtype.is_bool:
            mask = c.g.op("where", mask, c.constant(0, q), c.constant(-np.inf, q))
        args.append(c.cast(mask, q.type.dtype))
    return c.g.op("attention", *args, scale=scale, causal="upper_left" if is_causal else False)


def _repeated(c: Node, x: Operand, times: int) -> Operand:
    *lead, heads, length, features = x.type.shape
    apart = c.reshape(x, (*lead, heads, 1, length, features))
    wide = c.g.op("broadcast_to", apart, shape=(*lead, heads, times, length, features))
    return c.reshape(wide, (*lead, heads * times, length, features))


# images of another size


@converts("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(c: Node, x: Any, *rest: Any) -> Operand:
    scales = next(
        (r for r in reversed(rest) if isinstance(r, (list, tuple)) and any(isinstance(s, float) for s in r)), None
    )
    y = x
    for d, count in enumerate(c.shape[2:]):
        n = x.type.extents[2 + d]
        if n != count:
            factor = 1 / scales[d] if scales else n / count
            places = np.minimum(np.floor(np.arange(count) * factor), n - 1).astype(np.int64)
            y = c.g.op("take", y, c.constant(places), axis=2 + d)
    return y


@converts("upsample_bilinear2d", "upsample_linear1d")
def upsample_linear(c: Node, x: Any, wanted: Any, align: bool, *rest: Any) -> Operand:
    scales = next((r for r in rest if isinstance(r, (list, tuple))), None) or [r for r in rest if isinstance(r, float)]
    y = x
    for d, count in enumerate(c.shape[2:]):
        n = x.type.extents[2 + d]
        if n == count:
            continue
        i = np.arange(count)
        if align:
            at = i * (n - 1) / (count - 1) if count > 1 else np.zeros(1)
        else:
            at = np.maximum((i + 0.5) * (1 / scales[d] if scales else n / count) - 0.5, 0)
        low = np.minimum(np.floor(at).astype(np.int64), n - 1)
        part = at - low
        shape = [count if a == 2 + d else 1 for a in range(x.type.ndim)]
        near, far = (c.g.op("take", y, c.constant(p), axis=2 + d) for p in (low, np.minimum(low + 1, n - 1)))
        weights = [c.constant(w.reshape(shape), x) for w in (1 - part, part)]
        y = c.g.op("add", c.g.op("multiply", near, weights[0]), c.g.op("multiply", far, weights[1]))
    return y


@converts("_weight_norm", "_weight_norm_interface")
def weight_norm(c: Node, v: Any, scale: Any, axis: int = 0) -> Any:
    axes = tuple(d for d in range(v.type.ndim) if d != c.place(axis, v.type.ndim))
    size = c.g.op("norm", v, order=2, axes=axes, keepdims=True)
    y = c.g.op("multiply", v, c.g.op("divide", scale, size))
    return (y, size) if "interface" in c.op else y
