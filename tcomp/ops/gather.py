"""Elements of a tensor at places that are tensors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import normal_axis, same_extent
from .movement import place_along
from .registry import Operator, mismatch, register


def _infer_elements(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, index = args
    axis = normal_axis("gather_elements", attrs["axis"], x.ndim)
    if x.ndim < 1 or index.ndim != x.ndim or not index.dtype.is_int:
        raise mismatch("gather_elements", "places are integers, with as many axes as the tensor", *args)
    if any(
        d != axis and not same_extent(i, e) and not (isinstance(i, int) and isinstance(e, int) and i <= e)
        for d, (i, e) in enumerate(zip(index.shape, x.shape))
    ):
        raise mismatch("gather_elements", f"there are more places than elements along an axis but {axis}", *args)
    if x.shape[axis] == 0 and index.size:
        raise mismatch("gather_elements", f"axis {axis} has no elements", *args)
    return TensorType(index.shape, x.dtype)


def _elements(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, index = args
    axis = normal_axis("gather_elements", attrs["axis"], x.ndim)
    return te.compute(
        out.shape,
        lambda *i: x[(*i[:axis], place_along(index[i], x.shape[axis]), *i[axis + 1 :])],
        name="gather_elements",
    )


def _elements_reference(x: Any, index: Any, axis: int) -> Any:
    wide, extent = index.astype(np.int64), x.shape[axis]
    places = np.clip(np.where(wide < 0, wide + extent, wide), 0, max(extent - 1, 0))
    cut = tuple(slice(None) if d == axis % x.ndim else slice(0, n) for d, n in enumerate(index.shape))
    return np.take_along_axis(x[cut], places, axis)


register(
    Operator("gather_elements", _infer_elements, _elements, _elements_reference, "injective", 2, {"axis": 0},
             lambda args, out, attrs: 0)
)  # fmt: skip
"""(tensor, places) -> at each point the element there, but at the given place along `axis`. Negative places count from the end; what is
out of range is moved to the nearest end."""


def _infer_nd(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, index = args
    batch = attrs["batch"]
    depth = index.shape[-1] if index.ndim else None
    if not isinstance(depth, int) or not index.dtype.is_int or not 0 <= batch < index.ndim:
        raise mismatch("gather_nd", "places are integers, whose last axis holds one number for each axis", *args)
    if not 0 < depth <= x.ndim - batch or not all(map(same_extent, x.shape[:batch], index.shape[:batch])):
        raise mismatch("gather_nd", f"{depth} places after {batch} common axes do not fit the tensor", *args)
    if any(e == 0 for e in x.shape[batch : batch + depth]) and index.size:
        raise mismatch("gather_nd", "there are no elements to take", *args)
    return TensorType((*index.shape[:-1], *x.shape[batch + depth :]), x.dtype)


def _nd(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, index = args
    depth, rows, batch = index.shape[-1].value, index.ndim - 1, attrs["batch"]

    def at(*i: Expr) -> Expr:
        places = [place_along(index[(*i[:rows], d)], x.shape[batch + d]) for d in range(depth)]
        return x[(*i[:batch], *places, *i[rows:])]

    return te.compute(out.shape, at, name="gather_nd")


def _nd_reference(x: Any, index: Any, batch: int) -> Any:
    depth = index.shape[-1]
    out = np.zeros((*index.shape[:-1], *x.shape[batch + depth :]), x.dtype)
    for i in np.ndindex(index.shape[:-1]):
        places = [int(p) + (e if p < 0 else 0) for p, e in zip(index[i], x.shape[batch:])]
        inside = tuple(min(max(p, 0), e - 1) for p, e in zip(places, x.shape[batch:]))
        out[i] = x[(*i[:batch], *inside)]
    return out


register(Operator("gather_nd", _infer_nd, _nd, _nd_reference, "injective", 2, {"batch": 0}, lambda args, out, attrs: 0))
"""(tensor, places) -> the slices that the last axis of the places names, one number for each axis after `batch` common ones."""
