"""Slices of a tensor changed at places that are tensors themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import normal_axis, same_extent
from .movement import place_along
from .registry import Operator, mismatch, register


def _infer(name: str) -> Callable[[Sequence[TensorType], Attrs], TensorType]:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, index, updates = args
        if x.ndim < 1 or not index.dtype.is_int:
            raise mismatch(name, "it takes a tensor with axes, integers, and slices", *args, hint="cast the index")
        axis = normal_axis(name, attrs["axis"], x.ndim)
        wanted = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
        if len(wanted) != updates.ndim or not all(map(same_extent, wanted, updates.shape)):
            shown = ", ".join(map(str, wanted))
            raise mismatch(name, f"the slices must be of shape ({shown})", *args)
        if updates.dtype != x.dtype or (name == "scatter_add" and x.dtype.is_bool):
            raise mismatch(name, "tensor and slices must be numbers of one dtype", *args, hint="cast them")
        if index.is_static and x.shape[axis] == 0 and index.size:
            raise mismatch(name, f"axis {axis} has no places", *args)
        return x

    return infer


def _compute(name: str) -> Callable[[Sequence[te.Tensor], Attrs, TensorType], te.Tensor]:
    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        x, index, updates = args
        axis = normal_axis(name, attrs["axis"], x.ndim)
        end = axis + index.ndim

        def at(*i: Expr) -> tuple[tuple[Expr, ...], Expr]:
            place = place_along(index[i[axis:end]], x.shape[axis])
            return (*i[:axis], place, *i[end:]), updates[i]

        return te.scatter(x, updates.shape, at, name == "scatter_add", name)

    return compute


def _reference(x: Any, index: Any, updates: Any, axis: int, adds: bool) -> Any:
    axis = axis % x.ndim
    wide = index.astype(np.int64).reshape(-1)
    places = np.clip(np.where(wide < 0, wide + x.shape[axis], wide), 0, x.shape[axis] - 1)
    out = np.moveaxis(np.array(x), axis, 0)  # a copy
    after = x.shape[axis + 1 :]
    rows = np.moveaxis(updates.reshape(*x.shape[:axis], wide.size, *after), axis, 0)
    for place, row in zip(places, rows):
        out[place] = out[place] + row if adds else row
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return prod(int(e) for e in args[2].shape)


for _name, _adds in (("scatter_add", True), ("scatter", False)):
    register(
        Operator(
            _name,
            _infer(_name),
            _compute(_name),
            lambda x, index, updates, axis, a=_adds: _reference(x, index, updates, axis, a),
            "scatter",
            3,
            {"axis": 0},
            _flops,
        )
    )
"""(tensor, integers, slices) -> the tensor, with the slices along `axis` that the integers name changed: each slice is added, or takes
its place, one after another in the order of the integers, so that sums are the same in each run. The transpose of `take`: places count
and are moved to the nearest end as there."""
