"""Arrays between margins that nobody may write to: code that leaves an array is seen, where it would else damage what lies beside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MARGIN = 4096
"""Bytes on each side."""
_MARK = 0xAB
_ALIGN = 64


class Guards:
    """Makes arrays, and tells which were left."""

    def __init__(self) -> None:
        self._made: list[tuple[np.ndarray, int, np.ndarray]] = []

    def around(self, array: np.ndarray) -> np.ndarray:
        """A copy between margins."""
        raw = np.full(array.nbytes + 2 * MARGIN + _ALIGN, _MARK, np.uint8)
        begin = MARGIN + -(raw.ctypes.data + MARGIN) % _ALIGN
        copy = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        self._made.append((raw, begin, copy))
        return copy

    def around_all(self, arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
        return [self.around(a) for a in arrays]

    def damage(self) -> str:
        """Which array something was written beside, and where; "" where nothing was."""
        for number, (raw, begin, copy) in enumerate(self._made):
            for side, first, margin in (("before", -begin, raw[:begin]), ("behind", 0, raw[begin + copy.nbytes :])):
                bad = np.flatnonzero(margin != _MARK)
                if bad.size:
                    at = int(bad[0]) + first
                    return f"{bad.size} bytes {side} array {number}, {copy.dtype}{list(copy.shape)}, written, the first at {at}"
        return ""
