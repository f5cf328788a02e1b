"""The default schedule of attention (`tcomp.ops.attention` says what it computes)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from ....analysis.regions import writes
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....target import Target
from ...library import (
    accumulate_tile,
    fuse_all,
    tile_write_back,
    unroll_and_vectorize,
    vectorize_innermost,
    vectorize_partial,
)
from ...schedule import Schedule
from .common import inline_into_output, is_worth_threads
from .rows import factor
from .tiles import Tile, choose_tile, rows_within

NAME = "attention"

KEYS, PRODUCT, SCORES, TOP, WEIGHTS, TOTAL, MIXED, RESULT = (
    "attention_keys", "attention_product", "attention_scores", "attention_top", "attention_weights", "attention_total",
    "attention_mixed", "attention",
)  # fmt: skip
ROW_TILES = 8
"""Register tiles of queries that go together: they share what is loaded of keys and values."""

EMPTY = 1.08
"""What part of the rows may be computed for nothing, if that makes larger groups."""


def applies(func: PrimFunc, target: Target) -> bool:
    return PRODUCT in func.blocks


def panel_for(target: Target, scores: Sequence[int], queries: Sequence[int], itemsize: int) -> int:
    """Keys in a panel, packed inside the kernel; 0 where there are too few queries to use it, or too few keys.

    Args:
        scores: extents of the scores, (..., rows, keys); queries: of the queries, (..., rows, features).
    """
    (rows, keys), lanes = scores[-2:], target.lanes(itemsize)
    if rows < 4 or keys < lanes:
        return 0
    most = range(1, min(4, ceil(keys / lanes)) + 1)
    tile = choose_tile([rows, keys], lanes, target, most, rows_within(queries[-1] * itemsize, target), is_whole=True)
    return lanes * tile.vectors


def apply(sch: Schedule, target: Target) -> None:
    """Some rows of queries at a time: their scores, the weights of these, and the weighted values, all in the second cache.

    Both products have register tiles, chosen as for any product; the scale and the mask join the write-back of the first, the
    division by the sum of the weights that of the second. With few queries each score is summed up in vectors along the
    features. Stacks of matrices run in parallel; groups of rows too, where there are few stacks.
    """
    *batch, rows, features = _extents(sch, RESULT)
    keys, depth, is_packed = _extents(sch, SCORES)[-1], _depth(sch), KEYS in sch.func.blocks
    itemsize = writes(sch.func.blocks[SCORES])[0].dtype.itemsize
    lanes, stacks = target.lanes(itemsize), prod(batch)
    is_big = is_worth_threads(sch.func, target.num_cores)
    by_stack = not is_big or stacks >= 2 * target.num_cores
    panel = _extents(sch, KEYS)[-1] // lanes if is_packed else 1
    first = choose_tile([rows, keys], lanes, target, (panel,), rows_within(depth * itemsize, target), is_whole=True)
    share = rows if by_stack else ceil(rows * stacks / (4 * target.num_cores))
    together = min(rows, _together(target, share, first.rows[-1], keys * itemsize))
    second = choose_tile([together, features], lanes, target, range(1, 5), is_whole=True)
    result = inline_into_output(sch, RESULT)
    *outer, row, _ = sch.get_loops(result)
    group, _ = sch.split(row, [None, together])
    stack = fuse_all(sch, outer)
    around = 1 if stack is None else 2
    sch.set_scope(MIXED, 0, "local")
    _product(sch, MIXED, result, around, second, last_outside=False)
    _softmax(sch, group, around, lanes)
    sch.compute_at(SCORES, group)
    if is_packed:
        sch.set_scope(PRODUCT, 0, "local")
        _product(sch, PRODUCT, SCORES, around, first, last_outside=True)
        _pack(sch, stack if by_stack else None, lanes, is_big)
    else:
        _dots(sch, lanes)
    if is_big:
        sch.parallel(group if stack is None else stack if by_stack else sch.fuse(stack, group))


def _extents(sch: Schedule, block: str) -> list[int]:
    return [e.value for e in writes(sch.func.blocks[block])[0].shape]


def _depth(sch: Schedule) -> int:
    return next(it.extent.value for it in sch.func.blocks[PRODUCT].iters if it.kind == "reduce")


def _together(target: Target, rows: int, tile: int, bytes_per_row: int) -> int:
    """Rows of queries at a time: whole register tiles, whose scores and weights fill half of the second cache at most; as many as
    leave little of the last group empty."""
    room = target.l2_bytes_per_core // 2 // (2 * bytes_per_row)
    most = max(1, min(ROW_TILES, room // tile, ceil(rows / tile)))
    filled = {tiles * tile: ceil(rows / (tiles * tile)) * tiles * tile for tiles in range(1, most + 1)}
    return max(n for n in filled if filled[n] <= EMPTY * min(filled.values()))


def _product(sch: Schedule, acc: str, write: str, around: int, tile: Tile, last_outside: bool) -> None:
    """A matrix product in register tiles, inside the loops around it."""
    outer, inner = tile_write_back(sch, write, tile.rows, tile.vectors, tile.lanes, around)
    if last_outside:
        outer = [outer[-1], *outer[:-1]]
        sch.reorder(*outer)
    sch.compute_at(acc, outer[-1])
    accumulate_tile(sch, acc, around + len(outer), tile.vectors, tile.lanes)
    unroll_and_vectorize(sch, inner)


def _dots(sch: Schedule, lanes: int) -> None:
    """Each score by itself: vectors along the features, then across their lanes."""
    name, parts = factor(sch, PRODUCT, lanes)
    place = sch.get_loops(SCORES)[-1]
    for block in (name, *reversed(parts)):
        sch.compute_at(block, place)
    for block in parts:
        vectorize_partial(sch, block)


def _softmax(sch: Schedule, group: Var, around: int, lanes: int) -> None:
    """The weights of a row, its greatest score and the weights' sum one after another, while the row is in the first cache."""
    top, top_parts = factor(sch, TOP, lanes)
    total, total_parts = factor(sch, TOTAL, lanes)
    for name in (total, *reversed(total_parts), WEIGHTS):
        sch.compute_at(name, group)
    line = group
    if sch.get_loops(WEIGHTS)[around:-1]:  # several rows, one after another
        line = sch.get_loops(WEIGHTS)[around]
        for name in (*total_parts, total):
            line = sch.merge(line, sch.get_loops(name)[around])
    for name in (top, *reversed(top_parts)):
        sch.compute_at(name, line)
    for name in (*top_parts, *total_parts):
        vectorize_partial(sch, name)
    vectorize_innermost(sch, WEIGHTS, lanes, sch.get_loops(WEIGHTS).index(line) + 1)


def _pack(sch: Schedule, stack: Var | None, lanes: int, is_big: bool) -> None:
    """The keys' panels, for one stack at a time, or all of them beforehand."""
    if stack is not None:
        sch.compute_at(KEYS, stack)
    else:
        panel = fuse_all(sch, sch.get_loops(KEYS)[:-2])
        if is_big and panel is not None:
            sch.parallel(panel)
    vectorize_innermost(sch, KEYS, lanes, 1)
