"""How the CPU's rules want operands to lie: the plans of the kernels that will read them, asked before there are kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import ClassVar

from ....dtype import DType
from ....target import CpuTarget
from . import attention, panels, tiled_reduction, winograd
from .common import Work

Extents = Sequence[int]


@dataclass(frozen=True, slots=True)
class CpuLayout:
    """The layouts of a CPU (a `LayoutPolicy` of the graph passes).

    Attributes:
        use_winograd: whether 3 x 3 convolutions may go by Winograd's algorithm.
        max_split_groups: groups of a convolution up to which each may become a kernel of its own.
    """

    target: CpuTarget
    use_winograd: bool = True

    max_split_groups: ClassVar[int] = 8

    @property
    def resident_bytes(self) -> int:
        """Half of L2: what else passes needs the rest."""
        return self.target.l2_bytes_per_core // 2

    @property
    def near_bytes(self) -> int:
        """Some times what the L2 caches of all cores hold."""
        return int(self.target.costs.near_caches * self.target.l2_bytes_per_core * self.target.num_cores)

    @property
    def reads_turned(self) -> bool:
        """Products that pack nothing are small, or have few rows: they read their operands a row at a time."""
        return False

    @property
    def turned_bytes(self) -> int:
        """Bytes of a transposed matrix up to which a product reads its rows as columns: they then stay in L1."""
        return int(self.target.costs.turned_bytes)

    def panel(self, extents: Extents, weight: Extents, dtype: DType) -> int:
        """Columns of a panel of a weight: those of the register tile that its kernel will have; 0 for a single column, which is
        multiplied along its rows.

        Args:
            extents: of the result, columns last; weight: extents of the weight, columns last.
        """
        if weight[-1] == 1:
            return 0
        plan = tiled_reduction.plan(open_problem(extents, weight, dtype), self.target)
        return plan.vectors * plan.lanes

    def is_turned(self, weight: Sequence[int], dtype: DType) -> bool:
        return False

    def panel_inside(self, extents: Extents, weight: Extents, dtype: DType) -> int:
        """Columns of the panels into which a kernel packs an operand that varies; 0 where that does not pay.

        It pays where the copy serves at least MIN_ROW_TILES tiles of rows, and there are columns of tiles for all cores.
        """
        width = self.panel(extents, weight, dtype)
        if not width:
            return 0
        rows = self.target.num_registers * self.target.lanes(dtype.accumulator.itemsize) // width
        enough = extents[0] >= tiled_reduction.MIN_ROW_TILES * min(rows, extents[0])
        return width if enough and ceil(extents[1] / width) >= self.target.num_cores and extents[0] > rows else 0

    def winograd(self, extents: Extents, weight: Extents, dtype: DType) -> tuple[int, int]:
        """(outputs along a side of a tile, columns of a panel) of a 3 x 3 convolution; (0, 0) to convolve directly."""
        return winograd.choose_algorithm(self.target, extents, tuple(weight), dtype) if self.use_winograd else (0, 0)

    def key_panel(self, scores: Extents, queries: Extents, dtype: DType) -> int:
        """Keys in a panel of attention's keys; 0 to read them where they lie."""
        return attention.panel_for(self.target, scores, queries, dtype.accumulator.itemsize)

    def dot_group(self, a: DType, b: DType) -> int:
        """Rows of a packed weight that lie together for an instruction that sums up their products; 1 for none."""
        found = panels.dot_instruction(self.target, a, b)
        return 1 if found is None else found[1]


def open_problem(extents: Extents, weight: Extents, dtype: DType) -> tiled_reduction.Problem:
    """A product whose weight may be packed as the plan likes."""
    depth, size = prod(weight[:-1]), prod(extents)
    return tiled_reduction.Problem(
        tuple(extents), depth, dtype.accumulator.itemsize, prod(weight) * dtype.itemsize,
        Work(size * depth, 0, (prod(weight) + size) * dtype.itemsize), row_bytes=(weight[-2] * dtype.itemsize,), panel=None,
    )  # fmt: skip
