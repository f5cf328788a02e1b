"""The size of a register tile, by arithmetic from the target and the shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from ....target import CpuTarget


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: `rows` of the row axes times `vectors` of `lanes` elements of the last axis."""

    rows: tuple[int, ...]
    vectors: int
    lanes: int


def choose_tile(
    extents: Sequence[int],
    lanes: int,
    target: CpuTarget,
    vectors: Sequence[int] = range(1, 9),
    max_rows: int = 64,
    depth: int = 0,
    beyond_l2: bool = False,
    is_whole: bool = False,
    uneven: float = 1.0,
) -> Tile:
    """The register tile for a reduction.

    A tile of r rows and v vectors needs r * v accumulators, v operand vectors and a broadcast. Each step of the reduction takes
    as long as its r * v multiply-adds and what its r + v loads take from them, these loads, the latency of an accumulator, or the operand's way
    from L2, whichever is longest, and each tile some time to begin and to be written. Tiles at the edge of the rows take their own
    time; a panel that no row of tiles has read yet may come from far away. The tile with the least time for all results is taken.

    Args:
        extents: of the result, columns last.
        vectors: the numbers of vectors to choose from; max_rows: the most rows (see `rows_within`).
        depth: elements that are summed up for each result (0: many); they also tell whether a panel stays in L1.
        beyond_l2: the operand that varies along the columns lies beyond L2.
        is_whole: tiles at the edge of the rows are computed whole, into memory that has room for them.
        uneven: times as long as a kernel takes in which not all tiles are equal.
    """
    last, rows = extents[-1], list(extents[:-1]) or [1]
    lanes = min(lanes, last)
    best, least = Tile((1,) * len(rows), vectors[0], lanes), float("inf")
    for v in vectors:
        if v > max(ceil(last / lanes), vectors[0]):
            break
        for r in range(1, min(target.num_registers, max_rows + 1)):
            tile_rows = spread(rows, r)
            if tile_rows is None:
                continue
            tile = Tile(tile_rows, v, lanes)
            cycles = tile_cycles(extents, tile, target, depth, beyond_l2, is_whole, uneven)
            if cycles < least * (1 - 1e-9):
                best, least = tile, cycles
    return best


def tile_cycles(
    extents: Sequence[int],
    tile: Tile,
    target: CpuTarget,
    depth: int = 0,
    beyond_l2: bool = False,
    is_whole: bool = False,
    uneven: float = 1.0,
) -> float:
    """The time of a step of the reduction for all results, by register tiles of one size: to compare tiles by; infinite where the registers do not
    hold one. Arguments as for `choose_tile`.
    """
    costs = target.costs
    last, rows = extents[-1], list(extents[:-1]) or [1]
    r, v, lanes = prod(tile.rows), tile.vectors, tile.lanes
    if r * v + v + 1 > target.num_registers - 1:
        return float("inf")
    is_close = 0 < depth * v * target.vector_bytes <= target.l1_bytes // 2
    panels = ceil(last / (v * lanes))
    whole = [ceil(e / t) * t for e, t in zip(rows, tile.rows)] if is_whole else rows
    parts = list(_row_tiles(whole, tile.rows))
    cycles = sum(count * _cycles(size, v, target, is_close) for count, size in parts)
    if depth:
        length = (r + 1) * v * depth if panels == 1 else costs.window
        start = costs.tile_start * min(1.0, length / costs.window)
        cycles += sum(count * (start + _burst(size, v, target)) for count, size in parts) / depth
    if beyond_l2:
        first = _cycles(r, v, target, is_close)
        cycles += max(0.0, v * target.vector_bytes / costs.far_bytes - first)
    is_even = last % (v * lanes) == 0 and len(parts) == 1
    cycles *= panels * _imbalance(panels * sum(count for count, _ in parts), target.num_cores)
    return cycles if is_even else cycles * uneven


def _cycles(rows: int, vectors: int, target: CpuTarget, is_close: bool) -> float:
    """The time of a step of the reduction for one tile."""
    near = 0.0 if is_close else vectors * target.vector_bytes / target.costs.near_bytes
    work = (rows * vectors + target.costs.load_slack * (rows + vectors)) / target.fma_ports
    return max(work, (rows + vectors) / target.costs.loads, target.costs.fma_latency, near)


def _burst(rows: int, vectors: int, target: CpuTarget) -> float:
    """The time until the results of a tile are on their way; those of a row often begin within a cache line."""
    return target.costs.burst * max(0, rows * (vectors + 1) - target.costs.pending_lines)


def _row_tiles(extents: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[int, int]]:
    """How many tiles there are of each number of rows."""
    axes = [[p for p in ((e // t, t), (1, e % t)) if prod(p)] for e, t in zip(extents, tile)]
    for parts in product(*axes):
        yield prod(count for count, _ in parts), prod(size for _, size in parts)


def rows_of_all_tiles(extents: Sequence[int], tile: Sequence[int]) -> int:
    """Rows of a whole tile and of those at the edges together: each size has code of its own."""
    return sum(size for _, size in _row_tiles(extents or (1,), tile))


def _imbalance(tiles: int, cores: int) -> float:
    """How much longer the busiest core works than the average one."""
    return ceil(tiles / cores) * cores / tiles


def spread(extents: Sequence[int], r: int) -> tuple[int, ...] | None:
    """r rows taken from the innermost axis first; an outer axis only adds to a whole inner one. None where that is not possible."""
    tile, left = [1] * len(extents), r
    for d in range(len(extents) - 1, -1, -1):
        take = min(left, extents[d])
        if left > take and left % take:
            return None
        tile[d], left = take, left // take
        if left <= 1:
            break
    return tuple(tile) if left <= 1 and prod(tile) == r else None


def rows_within(row_bytes: int, target: CpuTarget) -> int:
    """How many rows of a matrix, so many bytes apart, L1 can hold lines of.

    A line's place in the cache is given by its address modulo 4096 (64 sets of 64 bytes): lines that lie a multiple of 4096 apart
    compete for the ways of one set, of which two are left to the other operand.
    """
    ways = max(4, target.l1_bytes // 4096 - 2)
    return ways if row_bytes % 4096 == 0 else 2 * ways if row_bytes % 2048 == 0 else 64
