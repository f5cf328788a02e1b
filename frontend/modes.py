"""How operations are recorded: contexts that hold for the current thread or task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

TRACING: ContextVar[bool] = ContextVar("tracing", default=False)
DIFFERENTIATING: ContextVar[bool] = ContextVar("differentiating", default=True)
DETECTING: ContextVar[bool] = ContextVar("detecting", default=False)
ASSIGNING: ContextVar[dict[int, Any] | None] = ContextVar("assigning", default=None)


@contextmanager
def _setting(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def keep_graph() -> Any:
    """Within, every operation is recorded, also those that need no gradient: this is how models are traced."""
    return _setting(TRACING, True)


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


def detect_anomaly() -> Any:
    """Within, the first operator whose result holds NaN, while its inputs hold none, raises an AnomalyError."""
    return _setting(DETECTING, True)
