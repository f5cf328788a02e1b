"""How operands lie where no target asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dtype import DType


@dataclass(frozen=True, slots=True)
class PlainLayout:
    """A `LayoutPolicy` that leaves every operand as it lies."""

    turned_bytes: int = 0
    resident_bytes: int = 1 << 62
    near_bytes: int = 0
    max_split_groups: int = 0

    def panel(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        return 0

    def panel_inside(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> int:
        return 0

    def winograd(self, extents: Sequence[int], weight: Sequence[int], dtype: DType) -> tuple[int, int]:
        return 0, 0

    def key_panel(self, scores: Sequence[int], queries: Sequence[int], dtype: DType) -> int:
        return 0

    def dot_group(self, a: DType, b: DType) -> int:
        return 1
