"""The default schedule of products of few rows with a large matrix, and of sums over a large matrix's rows.

Each element of the matrix is used once, so its way from memory bounds the kernel. It is read as it lies, a few rows at a time,
as streams that the hardware prefetches; the accumulators of a long run of columns wait in L1 meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import writes
from ....ir.expr import Const, Var
from ....ir.index_map import IndexMap
from ....ir.primfunc import PrimFunc
from ....ir.query import free_vars, int_of
from ....ir.stmt import Block
from ....target import CpuTarget
from ...library import (
    fuse_all,
    inline_elementwise,
    loaded,
    pack_operand,
    reduce_loops,
    tile_write_back,
    unroll_and_vectorize,
)
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from .common import Work, keep_local, reductions
from .tiled_reduction import applies as is_tiled_reduction

NAME = "streams"

MAX_ROWS = 40
"""Rows of the result up to which the matrix is not worth being packed."""
HELD = 16
"""Vectors of the matrix that stay in registers while the result's rows pass: neighbours of some rows, read side by side."""
WIDTHS = {2: 1.0, 3: 1.03, 4: 1.06, 1: 1.15}
"""How many neighbours to take of each row, and what that costs: of more, fewer rows are held, and accumulators are loaded and stored for each few of
them; of one, its multiply-adds wait for one another. Two against four ran 1.00 to 1.14 times as fast (AVX-512) and 1.00 to 1.17 (AVX2 code) in 23
products and sums of 1 to 36 rows, on a Granite Rapids."""


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    """A reduction over the rows of one matrix, of which there are several, unpacked, for at most MAX_ROWS results. From L2 a matrix comes fast
    enough for register tiles, whose sums need not wait in L1: products of 4 to 16 rows with a matrix that takes less than half of it ran 0.99 to 2.1
    times as fast in tiles (AVX-512 and AVX2 code on a Granite Rapids), and with a larger one, by streams, up to 1.8 times."""
    if not is_tiled_reduction(func, target) or len(func.blocks) > 2:
        return False
    block = func.blocks[reductions(func)[0]]
    if prod(int_of(it.extent) for it in block.reduce) < 2:
        return False
    rows = prod(int_of(it.extent) for it in block.spatial if it.var is not _columns(block))
    return rows <= MAX_ROWS and _matrix_bytes(block) > max(target.l1_bytes, target.l2_bytes_per_core // 2)


def _columns(block: Block) -> Var:
    return [it.var for it in block.spatial][-1]


def _matrix_bytes(block: Block) -> int:
    """Size of the one operand that varies along the columns, where it is a matrix of the reduced rows; else 0."""
    columns = _columns(block)
    reduced = [it.var for it in block.reduce]
    matrices = [(b, i) for b, i in loaded(block) if any(columns in free_vars(e) for e in i)]
    if len(matrices) != 1 or len(reduced) != 1 or matrices[0][1] != (reduced[0], columns):
        return 0
    matrix = matrices[0][0]
    return prod(int(e.value) if isinstance(e, Const) else 0 for e in matrix.shape) * matrix.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: rows and columns of the result, bytes of an accumulator."""

    rows: int
    columns: int
    itemsize: int
    work: Work


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies."""
    block = func.blocks[reductions(func)[0]]
    *rows, columns = [int_of(it.extent) for it in block.spatial]
    return Problem(prod(rows), columns, max(b.dtype.itemsize for b in writes(block)), Work.of(func))


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a matrix is streamed."""

    run: int = decision("vectors of the result whose accumulators wait in L1", lambda p, t: range(1, _most(p, t) + 1))
    width: int = decision("neighbouring vectors taken of each row", lambda p, t: tuple(WIDTHS))
    held: int = decision("rows of the matrix at a time", lambda p, t: range(1, HELD + 1))
    lanes: int = decision("elements of a vector", lambda p, t: (t.lanes(p.itemsize),))
    beside: bool = decision("copy the factors, and put accumulators used together side by side", yes_or_no)
    parallel: bool = decision("run columns on all cores", yes_or_no)


def _most(p: Problem, target: CpuTarget) -> int:
    """Vectors of a run: their accumulators fill half of L1, or are all there are."""
    lanes = target.lanes(p.itemsize)
    return min(max(1, target.l1_bytes // 2 // (p.rows * p.itemsize * lanes)), ceil(p.columns / lanes))


def plan(p: Problem, target: CpuTarget) -> StreamPlan:
    """Columns in long runs, one for each core at least, so that the busiest core has the least to do, computing on nothing included."""
    parallel = p.work.is_worth_threads(target)
    lanes, cores = target.lanes(p.itemsize), target.num_cores if parallel else 1
    columns, copy = ceil(p.columns / lanes), target.costs.copy

    def cost(run: int, width: int) -> float:
        return ceil(ceil(columns / run) / cores) * (run + copy) * WIDTHS[width]

    choice = [(run, width) for run in range(1, _most(p, target) + 1) for width in WIDTHS if run % width == 0]
    run, width = min(choice, key=lambda c: (cost(*c), -c[0]))
    return StreamPlan(run, width, HELD // width, lanes, p.rows > 1, parallel)


def apply(sch: Schedule, plan: StreamPlan) -> None:
    """Within a run some rows at a time, some neighbouring vectors of each.

    The elements that those rows are multiplied with are copied side by side, and the accumulators that are worked on together
    lie together: addresses a multiple of 4096 bytes apart would hinder each other.
    """
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    block = sch.func.blocks[acc]
    rows = [int_of(it.extent) for it in block.spatial][:-1]
    factors = [b.name for b, i in loaded(block) if not any(_columns(block) in free_vars(e) for e in i)]
    epilogue = keep_local(sch, acc)
    outer, inner = tile_write_back(sch, epilogue, rows, plan.run, plan.lanes)
    site = fuse_all(sch, outer)
    assert site is not None
    sch.compute_at(acc, site)
    reduce = reduce_loops(sch, acc)[0]
    *own, last = [v for v in sch.get_loops(acc)[1:] if v is not reduce]
    across, vector, lane = sch.split(last, [None, plan.width, plan.lanes])
    beside, row = sch.split(reduce, [None, plan.held])
    sch.reorder(beside, across, *own, row, vector, lane)
    cleared = sch.decompose_reduction(acc, beside)
    sch.vectorize(sch.split(sch.get_loops(cleared)[-1], [None, plan.lanes])[1])
    for loop in (row, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
    if plan.beside:
        sch.transform_layout(acc, 0, _side_by_side(len(rows) + 1, plan.width * plan.lanes))
        for name in factors:
            pack_operand(sch, acc, name, beside, plan.lanes)
    sch.pragma(across, "prefetch", 1)
    unroll_and_vectorize(sch, inner[-2:])
    if plan.parallel:
        sch.parallel(site)


def _side_by_side(axes: int, width: int) -> IndexMap:
    """(rows..., column) -> (group of columns, rows..., column in the group)."""
    *rows, column = [Var(f"i{n}") for n in range(axes)]
    return IndexMap((*rows, column), (column // width, *rows, column % width))
