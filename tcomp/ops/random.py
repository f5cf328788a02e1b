"""Random tensors, each element a function of seed, step, stream and place."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..dtype import float32, int64, uint32
from ..errors import ShapeError
from ..ir.expr import Expr, call, cast, const
from ..ir.graph import TensorType
from ..ir.philox import philox
from ..ir.stmt import Attrs
from .registry import Operator, mismatch, register

_SCALE = 2.0**-24
"""Floats have 24 bits: so many of a word become a number in [0, 1), all of them equally far apart."""


def _infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (key,) = args
    if key.shape != (2,) or key.dtype != int64:
        raise mismatch("random_uniform", "the key is two int64: seed and step", key)
    shape = tuple(attrs["shape"])
    if any(not isinstance(s, int) or s < 0 for s in shape) or prod(shape) > 1 << 32:
        raise ShapeError(f"random_uniform: {shape} is no shape of at most 2^32 elements")
    return TensorType(shape, float32)


def _uniform(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (key,) = args

    def word(value: Expr, number: int) -> Expr:
        return cast(call("shr", value, const(32, int64)) if number else value, uint32)

    def at(*index: Expr) -> Expr:
        place: Expr = const(0, int64)
        for i, extent in zip(index, out.shape):
            place = place * extent + i
        seed, step = key[const(0)], key[const(1)]
        counter = (cast(place, uint32), const(attrs["stream"], uint32), word(step, 0), word(step, 1))
        bits = call("philox", *counter, word(seed, 0), word(seed, 1))
        return cast(call("shr", bits, const(8, uint32)), float32) * const(_SCALE, float32)

    return te.compute(out.shape, at, name="random_uniform")


def _reference(key: Any, shape: Sequence[int], stream: int) -> Any:
    low, high = (np.asarray(key) & 0xFFFFFFFF).astype(np.uint32), (np.asarray(key) >> 32 & 0xFFFFFFFF).astype(np.uint32)
    place = np.arange(prod(shape), dtype=np.uint64).astype(np.uint32)
    bits = philox(place, stream, low[1], high[1], low[0], high[0])[0]
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(_SCALE)).reshape(shape)


register(
    Operator("random_uniform", _infer, _uniform, _reference, "source", 1, {"shape": ..., "stream": 0},
             lambda args, out, attrs: 40 * out.size)
)  # fmt: skip
"""Uniform numbers in [0, 1) from a key (seed, step); streams are the random tensors of one step."""
