"""The default schedule of products and other reductions whose last output axis is contiguous in memory.

Matrix products, convolutions over NHWC images, pooling, sums over leading axes: each output tile stays in vector registers
while the reduction runs, and what follows (bias, activation, residual) happens in its write-back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from ...analysis.regions import consumers, writes
from ...ir.arith import linear
from ...ir.expr import Const, Var
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Block
from ...target import Target
from ..library import (
    accumulate_tile,
    fuse_all,
    inline_elementwise,
    is_output,
    loaded,
    pack_operand,
    points,
    tile_write_back,
    unroll_and_vectorize,
    vectorize_innermost,
)
from ..schedule import Schedule
from .common import is_worth_threads, reductions

NAME = "tiled reduction"


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: `rows` of the row axes times `vectors` of `lanes` elements of the last axis."""

    rows: tuple[int, ...]
    vectors: int
    lanes: int


def applies(func: PrimFunc, target: Target) -> bool:
    names = reductions(func)
    if len(names) != 1:
        return False
    block = func.blocks[names[0]]
    return points(block) is not None and len(writes(block)) == 1 and _vectorizes(block) and _epilogue_fits(func, block)


def _spatial(block: Block) -> list[Var]:
    return [it.var for it in block.iters if it.kind == "spatial"]


def _vectorizes(block: Block) -> bool:
    """Whether neighbours along the last spatial axis are neighbours in every operand, or share the element."""
    spatial = _spatial(block)
    if not spatial:
        return False
    last = spatial[-1]
    extent = next(it.extent for it in block.iters if it.var is last)
    if not isinstance(extent, Const) or extent.value < 4:
        return False
    for _, indices in loaded(block):
        for position, index in enumerate(reversed(indices)):
            if last in free_vars(index) and (position > 0 or linear(index).terms.get(last) != 1):
                return False
    return True


def _epilogue_fits(func: PrimFunc, block: Block) -> bool:
    """Whether what follows the reduction is one elementwise block over the same axes (or nothing)."""
    if is_output(func, block):
        return True
    users = consumers(func, writes(block)[0])
    if len(users) != 1 or not is_output(func, users[0]) or len(writes(users[0])) != 1:
        return len(users) == 1 and not users[0].is_reduction and len(func.outputs) == 1
    return len(users[0].iters) == len(_spatial(block)) and len(func.outputs) == 1


def choose_tile(extents: list[int], lanes: int, registers: int) -> Tile:
    """The register tile for a reduction.

    A tile of r rows and v vectors needs r * v accumulators, v operand vectors and a broadcast, and does r * v multiply-adds
    for r + v loads. Among the tiles that fit the registers, take the one with the best product of arithmetic per load and
    share of lanes and rows that do useful work.
    """
    last, rows = extents[-1], extents[:-1] or [1]
    lanes = min(lanes, last)
    best, best_score = Tile((1,) * len(rows), 1, lanes), -1.0
    for vectors in range(1, min(8, ceil(last / lanes)) + 1):
        for r in range(1, registers):
            if r * vectors + vectors + 1 > registers - 1:
                break
            tile_rows = _spread(rows, r)
            if prod(tile_rows) != r:
                continue
            used = last / (ceil(last / (vectors * lanes)) * vectors * lanes)
            for extent, t in zip(rows, tile_rows):
                used *= extent / (ceil(extent / t) * t)
            # at least 8 accumulators hide the latency of a multiply-add on two ports
            busy = min(1.0, r * vectors / 8)
            score = used * busy * (r * vectors / (r + vectors)) ** 0.5
            if score > best_score + 1e-9:
                best, best_score = Tile(tile_rows, vectors, lanes), score
    return best


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


def apply(sch: Schedule, target: Target) -> None:
    """Tile the write-back for the register file; compute the reduction per tile, unrolled over the tile's rows.

    Tile sizes come from `choose_tile`. A padded input is copied, with its border, for the rows at hand.
    """
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    block = sch.func.blocks[acc]
    extents = [it.extent.value for it in block.iters if it.kind == "spatial"]
    itemsize = max(b.dtype.itemsize for b in writes(block))
    tile = choose_tile(extents, target.lanes(itemsize), target.num_registers)
    padded = [b.name for b in sch.func.blocks.values() if not b.is_reduction and not is_output(sch.func, b)]
    if is_output(sch.func, block):
        epilogue = sch.cache_write(acc, 0, "local").name
    else:
        epilogue = consumers(sch.func, writes(block)[0])[0].name
        sch.set_scope(acc, 0, "local")
    padded = [name for name in padded if name != epilogue]
    outer, inner = tile_write_back(sch, epilogue, tile.rows, tile.vectors, tile.lanes)
    panel = None if padded else _panel_to_pack(sch, acc, tile, extents, target)
    site, depth = _place_outer(sch, outer, padded, panel is not None, target)
    sch.compute_at(acc, site)
    if panel is not None:
        pack_operand(sch, acc, panel, outer[-1], tile.lanes)
    for name in padded:
        sch.compute_at(name, sch.get_loops(acc)[0])
        vectorize_innermost(sch, name, tile.lanes, 1)
    accumulate_tile(sch, acc, depth, tile.vectors, tile.lanes)
    unroll_and_vectorize(sch, inner)


def _panel_to_pack(sch: Schedule, acc: str, tile: Tile, extents: list[int], target: Target) -> str | None:
    """The operand whose panel should be copied into contiguous memory for each column of tiles, if any.

    It pays where the operand's rows lie far apart, one tile's share of it spans more pages than the first translation
    buffer holds, the copy serves at least four rows of tiles, and there are columns of tiles for all cores.
    """
    block = sch.func.blocks[acc]
    last = _spatial(block)[-1]
    columns = ceil(extents[-1] / (tile.vectors * tile.lanes))
    row_tiles = prod(ceil(e / r) for e, r in zip(extents[:-1], tile.rows))
    if columns < target.num_cores or row_tiles < 4:
        return None
    for buffer, indices in loaded(block):
        rows = prod(getattr(e, "value", 0) for e in buffer.shape[:-1])
        if indices and indices[-1] is last and rows >= 128 and extents[-1] * buffer.dtype.itemsize >= 1024:
            return buffer.name
    return None


def _place_outer(sch: Schedule, outer: list[Var], padded: list[str], packed: bool, target: Target) -> tuple[Var, int]:
    """Order and parallelize the loops over tiles; returns the innermost, and how many there are now."""
    is_big = is_worth_threads(sch.func, target.num_cores)
    if padded and len(outer) > 2:
        rows = fuse_all(sch, outer[:-2])
        assert rows is not None
        if is_big:
            sch.parallel(rows)
        return outer[-1], 3
    if len(outer) > 1:
        # the last axis outermost: the operand that varies along it stays in cache while all rows pass
        sch.reorder(outer[-1], *outer[:-1])
        outer = [outer[-1], *outer[:-1]]
    if packed:
        if is_big:
            sch.parallel(outer[0])
        return outer[-1], len(outer)
    site = fuse_all(sch, outer)
    assert site is not None
    if is_big:
        sch.parallel(site)
    return site, 1
