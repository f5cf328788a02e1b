"""Arrays for results, and where arrays lie."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ..dtype import dtype
from ..memory import ALIGN, aligned_empty
from .arguments import Spec

RECYCLE_FROM = 1 << 17
"""Results of at least this many bytes are recycled: malloc would map fresh pages on each call."""
ALIGN_FROM = 8192
"""Results of at least this many bytes begin at a cache line, which costs a microsecond."""


def _free_count() -> int:
    """The reference count, as `sys.getrefcount` tells it, of an object that one local variable holds, taken out of a dict as in
    `ResultMemory.array`: interpreters count differently. 0, which no object has, where a second reference is not counted: nothing
    is recycled then."""
    held = {0: np.empty(1, np.uint8)}
    memory = held.pop(0, None)
    alone = sys.getrefcount(memory)
    other = memory
    seen = sys.getrefcount(memory)
    del other
    return alone if seen > alone else 0


FREE = _free_count()


class ResultMemory:
    """Makes arrays for results. A large one takes the memory of the one before it, once nobody refers to that any more: new pages
    from the system cost more than many a kernel."""

    def __init__(self) -> None:
        self._memory: dict[int, np.ndarray] = {}

    def array(self, number: int, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        """An array for result `number`."""
        nbytes = prod(shape) * kind.itemsize
        if nbytes < RECYCLE_FROM:
            return empty(shape, kind)
        memory = self._memory.pop(number, None)  # taken out, so that no other call finds it meanwhile
        if memory is None or sys.getrefcount(memory) > FREE:
            memory = aligned_empty(nbytes)
            memory = memory if memory.base is None else memory.base
        self._memory[number] = memory
        start = -address_of(memory) % ALIGN
        return memory[start : start + nbytes].view(kind).reshape(shape)


def empty(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """A new array. Large ones begin at a cache line, so that vectors do not straddle two."""
    count = prod(shape)
    if count * kind.itemsize < ALIGN_FROM:
        return np.empty(shape, kind)
    return aligned_empty(count * kind.itemsize).view(kind).reshape(shape)


def numpy_dtype(spec: Spec) -> np.dtype:
    return np.dtype(dtype(spec.dtype).numpy)


def static_types(specs: Sequence[Spec]) -> tuple[tuple[tuple[int, ...], np.dtype], ...] | None:
    """Shapes and dtypes; None where an extent is known only at a call."""
    if any(not isinstance(extent, int) for s in specs for extent in s.shape):
        return None
    return tuple((tuple(e for e in s.shape if isinstance(e, int)), numpy_dtype(s)) for s in specs)


def _slow_address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _fast_address(array: np.ndarray) -> int:
    return ctypes.c_size_t.from_address(id(array) + object.__basicsize__).value


def _find_address() -> Callable[[np.ndarray], int]:
    """How to learn where an array's elements lie. NumPy's C API has the pointer right behind the object's head; its own attribute
    takes longer than a small kernel. Where that is not so (an interpreter other than CPython), the attribute."""
    probe = np.empty(3)
    if sys.implementation.name == "cpython" and _fast_address(probe) == _slow_address(probe):
        return _fast_address
    return _slow_address


address_of = _find_address()
