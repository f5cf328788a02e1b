"""How operands lie where no target asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dtype import DType


@dataclass(frozen=True, slots=True)
class PlainLayout:
    """A `LayoutPolicy` that leaves every operand as it lies."""

    turned_bytes: int = 0
    reads_turned: bool = False
    resident_bytes: int = 1 << 62
    near_bytes: int = 0
    max_split_groups: int = 0

    def panel(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        return 0

    def is_turned(self, weight: Sequence[int], dtype: DType) -> bool:
        return False

    def panel_inside(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        return 0

    def winograd(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> tuple[int, int]:
        return 0, 0

    def key_panel(self, scores: Sequence[int], queries: Sequence[int], dtype: DType) -> int:
        return 0

    def dot_group(self, a: DType, b: DType) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class GpuLayout(PlainLayout):
    """Products bring both operands to shared memory, and turn them on the way if need be."""

    turned_bytes: int = 1 << 62
    reads_turned: bool = True

    def is_turned(self, weight: Sequence[int], dtype: DType) -> bool:
        """Where its rows are not made of accesses of 16 bytes, but its columns are: the words of a vocabulary may be any number."""
        run = max(16 // dtype.itemsize, 1)
        return len(weight) == 2 and weight[1] % run != 0 and weight[0] % run == 0
