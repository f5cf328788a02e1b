"""Inputs to try a program with."""

from __future__ import annotations

import numpy as np

from ..dtype import dtype
from .program import Program
from .results import numpy_dtype


def example_inputs(p: Program, seed: int = 0) -> list[np.ndarray]:
    """Random inputs of a program without symbolic extents: normal numbers, 0 and 1 for integers and bools, and where they are places in a table,
    all that it has."""
    rng = np.random.default_rng(seed)
    limits: dict[int, tuple[int, int]] = {}
    for c in p.checks:
        low, high = limits.get(c.input, (0, c.high))
        limits[c.input] = max(low, c.low), min(high, c.high)
    arrays = []
    for i, spec in enumerate(p.inputs):
        shape, kind = tuple(e for e in spec.shape if isinstance(e, int)), dtype(spec.dtype)
        low, high = limits.get(i, (0, 1))
        is_count = kind.is_bool or kind.is_int
        drawn = rng.integers(low, high + 1, shape) if is_count else np.asarray(rng.standard_normal(shape))
        arrays.append(drawn.astype(numpy_dtype(spec)))
    return arrays
