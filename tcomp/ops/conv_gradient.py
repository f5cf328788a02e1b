"""The gradient of a convolution by its kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import factors, in_dtype, widened
from .convolutions import each
from .registry import Operator, mismatch, register

NAME = "conv_backward_weight"


def _settings(attrs: Mapping[str, Any], dims: int) -> tuple[tuple[int, ...], ...]:
    """Window, stride and dilation, a number for each dimension."""
    return tuple(each(NAME, attrs[k], dims, k, 1) for k in ("window", "stride", "dilation"))


def _infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, y = args
    result, dims = factors(NAME, args), len(x.shape) - 2
    if dims < 1 or len(y.shape) != len(x.shape) or y.shape[0] != x.shape[0]:
        raise mismatch(NAME, "it takes images (n, *size, c) and gradients (n, *places, o) of results", *args)
    window, stride, dilation = _settings(attrs, dims)
    c, o, groups, parts = x.shape[-1], y.shape[-1], attrs["groups"], attrs["parts"]
    if parts < 1 or x.shape[0] % parts:
        raise ShapeError(f"{NAME}: {x.shape[0]} images do not make {parts} parts")
    if groups < 1 or c % groups or o % groups:
        raise ShapeError(f"{NAME}: {c} channels of the image and {o} of the result do not make {groups} groups")
    for size, places, k, s, d in zip(x.shape[1:-1], y.shape[1:-1], window, stride, dilation):
        if (places - 1) * s + d * (k - 1) >= size:
            raise mismatch(NAME, f"{places} places of a window of {k} do not fit into {size} pixels", *args)
    return TensorType((*([parts] if parts > 1 else []), *window, c // groups, o), result)


def _compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, y = args
    dims = x.ndim - 2
    _, stride, dilation = _settings(attrs, dims)
    share = x.shape[0] // attrs["parts"]
    n = te.reduce_axis(share, "rn")
    places = [te.reduce_axis(e, f"r{d}") for d, e in enumerate(y.shape[1:-1])]
    depth, per_group, wide = out.shape[-2], out.shape[-1] // attrs["groups"], x.dtype.accumulator

    def at(*index: Expr) -> Expr:
        *part, i, o = index
        tap = part[-dims:]
        image = n if len(part) == dims else part[0] * share + n
        channel = i if attrs["groups"] == 1 else o // per_group * depth + i
        pixel = [p * s + t * d for p, s, t, d in zip(places, stride, tap, dilation)]
        seen, passed = x[(image, *pixel, channel)], y[(image, *places, o)]
        return te.sum(te.cast(seen, wide) * te.cast(passed, wide), axis=[n, *places])

    return in_dtype(te.compute(out.shape, at, name=NAME), out.dtype)


def _reference(x: Any, y: Any, groups: int, parts: int, **attrs: Any) -> Any:
    if parts > 1:
        shares = zip(np.split(x, parts), np.split(y, parts))
        return np.stack([_reference(a, b, groups, 1, **attrs) for a, b in shares])
    window, stride, dilation = _settings(attrs, x.ndim - 2)
    kind, x, y = x.dtype, widened(x), widened(y)
    rows = y.reshape(-1, groups, y.shape[-1] // groups)
    found = np.empty((*window, x.shape[-1] // groups, y.shape[-1]), np.result_type(x, y))
    for tap in product(*map(range, window)):
        cut = tuple(
            slice(t * d, t * d + (e - 1) * s + 1, s) for t, d, e, s in zip(tap, dilation, y.shape[1:-1], stride)
        )
        seen = x[(slice(None), *cut)].reshape(len(rows), groups, -1)
        found[tap] = np.einsum("pgi,pgo->igo", seen, rows, optimize=True).reshape(found.shape[-2:])
    return found if kind.kind in "iu" or found.dtype == np.float64 else found.astype(kind)


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 2 * int(prod(args[1].shape[:-1])) * int(prod(out.shape)) // attrs["parts"]


_DEFAULTS = {"window": ..., "stride": 1, "dilation": 1, "groups": 1, "parts": 1}
"""Images are (n, *size, c), padded already; gradients of the result (n, *places, o); the result is (*window, c / groups, o), or, with
several parts of the images, one of these for each, (parts, *window, c / groups, o)."""

register(Operator(NAME, _infer, _compute, _reference, "anchor", 2, _DEFAULTS, _flops))
