"""Random numbers that are a function of a seed, a step and a place: the same eagerly and compiled, and after a resumed run.

A step's random tensors are its streams 0, 1, 2, ... (see `tcomp`'s operator random_uniform).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

import tcomp

from .autograd import Tensor, TensorOp


class RandomUniform(TensorOp):
    """Numbers in [0, 1) from a key (seed, step)."""

    is_differentiable = False

    def __init__(self, shape: Sequence[int], stream: int) -> None:
        self.shape, self.stream = tuple(shape), stream

    def compute(self, key: np.ndarray) -> np.ndarray:
        g = tcomp.GraphBuilder()
        return tcomp.evaluate(g.build(self.lower(g, g.input("key", (2,), "int64"))), [key])[0]

    def lower(self, g: Any, key: Any) -> Any:
        return g.random_uniform(key, shape=self.shape, stream=self.stream)


class Generator:
    """Counts the streams that were drawn with a key.

    Args:
        key: (seed, step) as int64.
    """

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self.stream = 0

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), float32, from the next stream."""
        self.stream += 1
        return RandomUniform(shape, self.stream - 1)(self.key)


def key_of(seed: int, step: int = 0) -> Tensor:
    """The key of a step."""
    return Tensor.make_const(np.array([seed, step], np.int64))


_default = Generator(key_of(0))
_current: ContextVar[Generator | None] = ContextVar("generator", default=None)


def generator() -> Generator:
    """The generator in use."""
    return _current.get() or _default


@contextmanager
def using(chosen: Generator) -> Iterator[Generator]:
    """Draw from another generator within."""
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)


def seed(number: int, step: int = 0) -> None:
    """Start anew, at the beginning of a step: what is drawn from here on depends on these two numbers alone."""
    _default.key, _default.stream = key_of(number, step), 0


def uniform(*shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float32."""
    return generator().uniform(shape)
