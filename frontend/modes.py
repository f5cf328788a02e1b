"""How operations are recorded: contexts that hold for the current thread or task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import ml_dtypes
import numpy as np

TRACING: ContextVar[Callable[[Any, Any], Any] | None] = ContextVar("tracing", default=None)
DIFFERENTIATING: ContextVar[bool] = ContextVar("differentiating", default=True)
DETECTING: ContextVar[bool] = ContextVar("detecting", default=False)
PRECISION: ContextVar[np.dtype | None] = ContextVar("precision", default=None)
ASSIGNING: ContextVar[dict[int, Any] | None] = ContextVar("assigning", default=None)


@contextmanager
def _setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def keep_graph(infer: Callable[[Any, Any], Any]) -> Any:
    """Within, every operation is recorded, also those that need no gradient, and computed only when its value is asked for: this is
    how models are traced.

    Args:
        infer: (operator, inputs) -> what has the result's `shape`, `dtype` and `size`, or a tuple of such; None to compute it at once.
    """
    return _setting(TRACING, infer)


def no_grad() -> Any:
    """Within, results need no gradient, so that what they were computed from is not kept. A context, or a decorator."""
    return _setting(DIFFERENTIATING, False)


def enable_grad() -> Any:
    """Within, gradients are recorded again, inside of `no_grad`."""
    return _setting(DIFFERENTIATING, True)


@contextmanager
def assigned() -> Iterator[dict[int, Any]]:
    """Within, setting a tensor's `data` changes nothing, but is noted: the new values, by the tensor's id. So a trace keeps what a
    model does to its buffers."""
    changes: dict[int, Any] = {}
    token = ASSIGNING.set(changes)
    try:
        yield changes
    finally:
        ASSIGNING.reset(token)


def detect_anomaly(enabled: bool = True) -> Any:
    """Within, the first operator whose result holds NaN, while its inputs hold none, raises an AnomalyError."""
    return _setting(DETECTING, enabled)


_SHORT = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


def autocast(dtype: Any = "bfloat16") -> Any:
    """Within, matrix products and convolutions of float32 tensors round their operands to a shorter type and add up in float32; so do
    their gradients. Everything else, parameters and results of operators too, stays float32 (P. Micikevicius et al., Mixed
    Precision Training, 2018). A context, or a decorator.

    Convolutions round their results to the shorter type, too; attention stays as it is.

    Args:
        dtype: bfloat16, float16, or None for full precision.

    Raises:
        ValueError: another dtype.
    """
    return _setting(PRECISION, None if dtype is None else short_dtype(dtype))


def short_dtype(dtype: Any) -> np.dtype:
    """bfloat16 or float16.

    Raises:
        ValueError: another dtype.
    """
    found = _SHORT.get(dtype if isinstance(dtype, str) else np.dtype(dtype).name)
    if found is None:
        raise ValueError(f"products are computed in {' or '.join(_SHORT)}, or with None as they are; not in {dtype}")
    return found
