"""The default schedule of products of few rows with a large matrix, and of sums over a large matrix's rows.

Each element of the matrix is used once, so its way from memory bounds the kernel. It is read as it lies, a few rows at a time,
as streams that the hardware prefetches; the accumulators of a long run of columns wait in the first cache meanwhile.
"""

from __future__ import annotations

from math import ceil, prod

from ...analysis.regions import writes
from ...ir.expr import Const, Var
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Block
from ...target import Target
from ..library import fuse_all, inline_elementwise, loaded, reduce_loops, tile_write_back
from ..schedule import Schedule
from .common import is_worth_threads, keep_local, reductions
from .tiled_reduction import applies as is_tiled_reduction

NAME = "streams"

MAX_ROWS = 4
"""Rows of the result whose accumulators are loaded and stored for each few rows of the matrix."""
STREAMS = 8
"""Rows of the matrix that are read side by side."""
VECTORS = 2
"""Neighbouring vectors of each row that are read at once."""


def applies(func: PrimFunc, target: Target) -> bool:
    """A reduction over the rows of one matrix, unpacked and twice as large as the cores' second caches, for at most MAX_ROWS
    results."""
    if not is_tiled_reduction(func, target) or len(func.blocks) > 2:
        return False
    block = func.blocks[reductions(func)[0]]
    rows = prod(it.extent.value for it in block.iters if it.kind == "spatial" and it.var is not _columns(block))
    return rows <= MAX_ROWS and _matrix_bytes(block) > 2 * target.own_l2_bytes * target.num_cores


def _columns(block: Block) -> Var:
    return [it.var for it in block.iters if it.kind == "spatial"][-1]


def _matrix_bytes(block: Block) -> int:
    """Size of the one operand that varies along the columns, where it is a matrix of the reduced rows; else 0."""
    columns = _columns(block)
    reduced = [it.var for it in block.iters if it.kind == "reduce"]
    matrices = [(b, i) for b, i in loaded(block) if any(columns in free_vars(e) for e in i)]
    if len(matrices) != 1 or len(reduced) != 1 or matrices[0][1] != (reduced[0], columns):
        return 0
    matrix = matrices[0][0]
    return prod(int(e.value) if isinstance(e, Const) else 0 for e in matrix.shape) * matrix.dtype.itemsize


def apply(sch: Schedule, target: Target) -> None:
    """Columns in long runs, one for each core at least; within a run STREAMS rows at a time, VECTORS vectors of each."""
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    block = sch.func.blocks[acc]
    extents = [it.extent.value for it in block.iters if it.kind == "spatial"]
    itemsize = max(b.dtype.itemsize for b in writes(block))
    lanes, rows = target.lanes(itemsize), prod(extents[:-1])
    cores = target.num_cores if is_worth_threads(sch.func, target.num_cores) else 1
    fit = target.l1_bytes // 2 // (rows * itemsize * lanes)
    run = VECTORS * ceil(min(fit, ceil(extents[-1] / (cores * lanes))) / VECTORS)
    epilogue = keep_local(sch, acc)
    outer, inner = tile_write_back(sch, epilogue, extents[:-1], run, lanes)
    site = fuse_all(sch, outer)
    assert site is not None
    sch.compute_at(acc, site)
    reduce = reduce_loops(sch, acc)[0]
    *own, last = [v for v in sch.get_loops(acc)[1:] if v is not reduce]
    across, vector, lane = sch.split(last, [None, VECTORS, lanes])
    beside, row = sch.split(reduce, [None, STREAMS])
    sch.reorder(beside, across, row, *own, vector, lane)
    cleared = sch.decompose_reduction(acc, beside)
    sch.vectorize(sch.split(sch.get_loops(cleared)[-1], [None, lanes])[1])
    for loop in (row, *own, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
    for loop in inner[:-2]:
        sch.unroll(loop)
    sch.vectorize(inner[-1])
    if cores > 1:
        sch.parallel(site)
