"""Convolutions of one and of three dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import factors, in_dtype, rank, widened
from .conv import windows
from .movement import pad_tensor
from .registry import Operator, mismatch, register

LAYOUTS = {1: ("NCW", "NWC", "OIW", "WIO"), 3: ("NCDHW", "NDHWC", "OIDHW", "DHWIO")}
"""By dimensions: channels first and last, of images and of kernels."""


def each(name: str, value: Any, count: int, what: str, least: int) -> tuple[int, ...]:
    """One number for each dimension."""
    result = (value,) * count if isinstance(value, int) else tuple(value)
    if len(result) != count or any(not isinstance(v, int) or v < least for v in result):
        raise ShapeError(f"{name}: {what} must be 1 or {count} integers of at least {least}, got {value!r}")
    return result


def channels_last(shape: Sequence[Any], is_last: bool) -> tuple[Any, ...]:
    """(n, spatial..., c) of a shape."""
    return tuple(shape) if is_last else (shape[0], *shape[2:], shape[1])


def _outputs_last(shape: Sequence[Any], is_last: bool) -> tuple[Any, ...]:
    """(spatial..., i, o) of a kernel's shape."""
    return tuple(shape) if is_last else (*shape[2:], shape[1], shape[0])


@dataclass(frozen=True, slots=True)
class _Convolution:
    """The operator for images of some dimensions."""

    dims: int

    @property
    def name(self) -> str:
        return f"conv{self.dims}d"

    def settings(self, attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
        """Stride, padding and dilation, a number for each dimension."""
        keys = (("stride", 1), ("padding", 0), ("dilation", 1))
        return tuple(each(self.name, attrs[k], self.dims, k, least) for k, least in keys)

    def layouts(self, attrs: Mapping[str, Any]) -> tuple[bool, bool]:
        """Whether the image has its channels last, and the kernel its outputs."""
        first, last, kernel_first, kernel_last = LAYOUTS[self.dims]
        for key, known in (("layout", (first, last)), ("kernel_layout", (kernel_first, kernel_last))):
            if attrs[key] not in known:
                raise ShapeError(f"{self.name}: unknown layout {attrs[key]!r}", hint=f"one of {', '.join(known)}")
        return attrs["layout"] == last, attrs["kernel_layout"] == kernel_last

    def infer(self, args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, w = args
        result = factors(self.name, args)
        rank(self.name, x, self.dims + 2, "image")
        rank(self.name, w, self.dims + 2, "kernel")
        image, kernel = self.layouts(attrs)
        (n, *size, c), (*window, i, o) = channels_last(x.shape, image), _outputs_last(w.shape, kernel)
        groups = attrs["groups"]
        if groups < 1 or c % groups or o % groups or i != c // groups:
            why = f"{c} channels in {groups} groups do not fit kernels of {i} channels for {o} outputs"
            raise mismatch(self.name, why, x, w)
        sides = zip(size, window, *self.settings(attrs))
        out = [windows(self.name, e, k, s, (p, p), d) for e, k, s, p, d in sides]
        return TensorType((n, *out, o) if image else (n, o, *out), result)

    def compute(self, args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        x, w = args
        stride, padding, dilation = self.settings(attrs)
        image, kernel = self.layouts(attrs)
        if any(padding):
            sides = [(0, 0), *((p, p) for p in padding), (0, 0)]
            x = pad_tensor(x, sides if image else [sides[0], sides[-1], *sides[1:-1]], 0)
        *window, depth, outputs = _outputs_last(w.shape, kernel)
        rs = [te.reduce_axis(k, f"r{n}") for n, k in enumerate(window)]
        rc = te.reduce_axis(depth, "rc")
        wide, per_group = x.dtype.accumulator, outputs.value // attrs["groups"]

        def at(*index: Expr) -> Expr:
            n, *place, o = channels_last(index, image)
            channel = rc if attrs["groups"] == 1 else o // per_group * depth.value + rc
            where = [y * s + r * d for y, s, r, d in zip(place, stride, rs, dilation)]
            value = x[(n, *where, channel)] if image else x[(n, channel, *where)]
            weight = w[(*rs, rc, o)] if kernel else w[(o, rc, *rs)]
            return te.sum(te.cast(value, wide) * te.cast(weight, wide), axis=[*rs, rc])

        return in_dtype(te.compute(out.shape, at, name=self.name), out.dtype)

    def reference(self, x: Any, w: Any, groups: int, **attrs: Any) -> Any:
        stride, padding, dilation = self.settings(attrs)
        image, kernel = self.layouts(attrs)
        x = np.moveaxis(x, -1, 1) if image else x
        w = np.moveaxis(w, (-1, -2), (0, 1)) if kernel else w
        kind, x, w = x.dtype, widened(x), widened(w)
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
        n, o, window = x.shape[0], w.shape[0], w.shape[2:]
        out = [(e - d * (k - 1) - 1) // s + 1 for e, k, s, d in zip(x.shape[2:], window, stride, dilation)]
        y = np.zeros((n, groups, o // groups, *out), x.dtype)
        kernels = w.reshape(groups, o // groups, *w.shape[1:])
        for tap in product(*map(range, window)):
            cut = tuple(slice(t * d, t * d + (e - 1) * s + 1, s) for t, d, e, s in zip(tap, dilation, out, stride))
            part = x[(slice(None), slice(None), *cut)].reshape(n, groups, -1, *out)
            y += np.einsum("ngi...,goi->ngo...", part, kernels[(..., *tap)])
        y = y.reshape(n, o, *out)
        y = y if kind.kind in "iu" else y.astype(kind)
        return np.ascontiguousarray(np.moveaxis(y, 1, -1) if image else y)

    def flops(self, args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
        return 2 * out.size * int(prod(_outputs_last(args[1].shape, self.layouts(attrs)[1])[:-1]))


for _dims, (_layout, _, _kernel_layout, _) in LAYOUTS.items():
    _conv = _Convolution(_dims)
    _settings = {
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "layout": _layout,
        "kernel_layout": _kernel_layout,
    }
    register(Operator(_conv.name, _conv.infer, _conv.compute, _conv.reference, "anchor", 2, _settings, _conv.flops))
