"""Arrays that begin at a cache line, so that vectors of them do not straddle two."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import TcompError

ALIGN = 64
"""Bytes of a cache line."""


def aligned_empty(nbytes: int) -> np.ndarray:
    """So many bytes; the first is at a cache line's begin.

    Raises:
        TcompError: the system does not give so much memory.
    """
    try:
        raw = np.empty(nbytes + ALIGN, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than can be addressed
        raise TcompError(
            f"there is no memory for {nbytes / 2**30:.1f} GiB",
            why=str(error),
            hint="smaller extents, such as that of the batch",
        ) from error
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes] if nbytes else raw


def aligned_copy(array: np.ndarray, aside: int = 0) -> np.ndarray:
    """A copy in row-major order. aside: bytes from a cache line's begin to where it begins."""
    memory = aligned_empty(max(array.nbytes, 1) + aside)[aside:]
    copy = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def kept(array: np.ndarray) -> np.ndarray:
    """The array itself where it is aligned and nobody can write to its memory, else a copy that nobody else has."""
    is_ours = array.ctypes.data % ALIGN == 0 and array.flags.c_contiguous and _is_fixed(array)
    return array if is_ours else aligned_copy(array)


def finished(array: np.ndarray) -> np.ndarray:
    """A copy of a weight in its last layout, which nobody will write to: what runs it need not copy it again."""
    copy = aligned_copy(array)
    for a in _owners(copy):
        a.flags.writeable = False
    return copy


def zeros_like(array: np.ndarray) -> np.ndarray:
    """Zeros of the same shape and dtype, which take no memory, to look at."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def trim() -> None:
    """Give what was freed back to the system. glibc keeps blocks of up to 32 MiB once such blocks were freed (man 3 mallopt,
    M_MMAP_THRESHOLD); other C libraries are left alone."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if release is not None:
        release(ctypes.c_size_t(0))


def _owners(array: Any) -> Iterator[Any]:
    """An array, what it is a view of, and so on."""
    while array is not None:
        yield array
        array = getattr(array, "base", None)


def _is_fixed(array: np.ndarray) -> bool:
    """Whether no array over this memory can be written to; of memory that is not NumPy's nobody knows."""
    return all(isinstance(a, np.ndarray) and not a.flags.writeable for a in _owners(array))
