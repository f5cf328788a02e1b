"""The size of a register tile, by arithmetic from the target and the shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from ....target import Target

LATENCY = 4
"""Cycles of a multiply-add: so many accumulators for each port keep it busy."""
LOADS = 1.7
"""Vectors that a core loads in a cycle from its first cache: of two, some come late."""
NEAR_BYTES = 28
"""Bytes a cycle that the second cache keeps delivering; measured: tiles that ask for more wait for it."""
FAR_BYTES = 10
"""Bytes a cycle that a core gets, one stream read in order, from beyond its second cache."""
START = 40
"""Cycles that a tile takes besides: its first loads, its last sums."""
WINDOW = 512
"""Instructions that a core looks ahead: where rows are written whole, one after another, a tile starts before the end of the one
before it, as far as that is short."""
PENDING = 16
"""Cache lines that a core can have on their way at once; a tile that writes more of them waits."""
BURST = 3
"""Cycles that a cache line beyond PENDING waits."""
SLACK = 0.1
"""What a load for each multiply-add costs, where loads are not what bounds the tile: others wait for its place."""
UNEVEN = 1.03
"""What an edge costs: another version of the kernel."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: `rows` of the row axes times `vectors` of `lanes` elements of the last axis."""

    rows: tuple[int, ...]
    vectors: int
    lanes: int


def choose_tile(
    extents: Sequence[int],
    lanes: int,
    target: Target,
    vectors: Sequence[int] = range(1, 9),
    max_rows: int = 64,
    depth: int = 0,
    is_far: bool = False,
    is_whole: bool = False,
) -> Tile:
    """The register tile for a reduction.

    A tile of r rows and v vectors needs r * v accumulators, v operand vectors and a broadcast. Each step of the reduction takes
    as long as its r * v multiply-adds, its r + v loads, the latency of an accumulator, or the operand's way from the second
    cache, whichever is longest, and each tile some time to begin and to be written. Tiles at the edge of the rows take their own
    time; a panel that no row of tiles has read yet may come from far away. The tile with the least time for all results is taken.

    Args:
        extents: of the result, columns last.
        vectors: the numbers of vectors to choose from; max_rows: the most rows (see `rows_within`).
        depth: elements that are summed up for each result (0: many); they also tell whether a panel stays in the first cache.
        is_far: the operand that varies along the columns lies beyond the second cache.
        is_whole: tiles at the edge of the rows are computed whole, into memory that has room for them.
    """
    last, rows = extents[-1], list(extents[:-1]) or [1]
    lanes = min(lanes, last)
    best, least = Tile((1,) * len(rows), vectors[0], lanes), float("inf")
    for v in vectors:
        if v > max(ceil(last / lanes), vectors[0]):
            break
        is_close = 0 < depth * v * target.vector_bytes <= target.l1_bytes // 2
        panels = ceil(last / (v * lanes))
        for r in range(1, min(target.num_registers, max_rows + 1)):
            if r * v + v + 1 > target.num_registers - 1:
                break
            tile_rows = _spread(rows, r)
            if prod(tile_rows) != r:
                continue
            parts = list(
                _row_tiles([ceil(e / t) * t for e, t in zip(rows, tile_rows)] if is_whole else rows, tile_rows)
            )
            cycles = sum(count * _cycles(size, v, target, is_close) for count, size in parts)
            if depth:
                length = (r + 1) * v * depth if panels == 1 else WINDOW
                start = START * min(1.0, length / WINDOW)
                cycles += sum(count * (start + _burst(size, v)) for count, size in parts) / depth
            if is_far:
                first = _cycles(r, v, target, is_close)
                cycles += max(0.0, v * target.vector_bytes / FAR_BYTES - first)
            is_even = last % (v * lanes) == 0 and len(parts) == 1
            cycles *= panels * _imbalance(panels * sum(count for count, _ in parts), target.num_cores)
            cycles *= (1.0 if is_even else UNEVEN) * (1 + SLACK * (r + v) / (r * v))
            if cycles < least * (1 - 1e-9):
                best, least = Tile(tile_rows, v, lanes), cycles
    return best


def _cycles(rows: int, vectors: int, target: Target, is_close: bool) -> float:
    """The time of a step of the reduction for one tile."""
    near = 0.0 if is_close else vectors * target.vector_bytes / NEAR_BYTES
    return max(rows * vectors / target.fma_ports, (rows + vectors) / LOADS, LATENCY, near)


def _burst(rows: int, vectors: int) -> int:
    """The time until the results of a tile are on their way; those of a row often begin within a cache line."""
    return BURST * max(0, rows * (vectors + 1) - PENDING)


def _row_tiles(extents: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[int, int]]:
    """How many tiles there are of each number of rows."""
    axes = [[p for p in ((e // t, t), (1, e % t)) if prod(p)] for e, t in zip(extents, tile)]
    for parts in product(*axes):
        yield prod(count for count, _ in parts), prod(size for _, size in parts)


def _imbalance(tiles: int, cores: int) -> float:
    """How much longer the busiest core works than the average one."""
    return ceil(tiles / cores) * cores / tiles


def _spread(extents: list[int], r: int) -> tuple[int, ...]:
    """r rows taken from the innermost axis first; an outer axis only adds to a whole inner one."""
    tile, left = [1] * len(extents), r
    for d in range(len(extents) - 1, -1, -1):
        take = min(left, extents[d])
        if left > take and left % take:
            return (0,)
        tile[d], left = take, left // take
        if left <= 1:
            break
    return tuple(tile) if left <= 1 else (0,)


def rows_within(row_bytes: int, target: Target) -> int:
    """How many rows of a matrix, so many bytes apart, the first cache can hold lines of.

    A line's place in the cache is given by its address modulo 4096 (64 sets of 64 bytes): lines that lie a multiple of 4096 apart
    compete for the ways of one set, of which four are left to the other operand.
    """
    ways = max(4, target.l1_bytes // 4096 - 4)
    return ways if row_bytes % 4096 == 0 else 2 * ways if row_bytes % 2048 == 0 else 64
