"""The default schedule of attention on a GPU (`tcomp.ops.attention` says what it computes): one launch, whose scores never leave the chip.

A block of threads has some queries. Their scores with all keys, and the weights, stay in shared memory, as far as there is room for them
(T. Dao et al., FlashAttention, NeurIPS 2022, whose pass over keys in slices, with sums that are mended later, this is not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....analysis.regions import writes
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int
from ....target import CudaTarget
from ....target.cuda import STATIC_SHARED
from ...library import fuse_all
from ...schedule import Schedule
from ..plan import decision
from ..roles import by_role, has_role, inline_into_output
from .common import GRID, WIDEST, grid_of
from .products import PADDING, ProductPlan, tile

NAME = "attention"

PRODUCT, SCORES, TOP, WEIGHTS, TOTAL, MIXED, RESULT = (
    "attention_product", "attention_scores", "attention_top", "attention_weights", "attention_total", "attention_mixed", "attention",
)  # fmt: skip
PACKED = "attention_keys"
"""Keys in panels, which are for CPUs."""
QUERIES = (32, 16, 8, 4, 2)
"""Of a block of threads: as many as there is room for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: its queries of one head, keys, features of keys and of values, bytes of a score and of an operand."""

    queries: int
    keys: int
    depth: int
    features: int
    itemsize: int
    operand_size: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    if not has_role(func, PRODUCT) or has_role(func, PACKED):
        return False
    p = problem_of(func)
    return min(p.keys, p.queries) > 1 and _shared(p, 2) <= target.block_shared


def problem_of(func: PrimFunc) -> Problem:
    def extents(role: str) -> Sequence[int]:
        return [as_int(e, 1 << 30) for e in writes(func.blocks[by_role(func, role)])[0].shape]

    depth = as_int(func.blocks[by_role(func, PRODUCT)].reduce[-1].extent, 1 << 30)
    size = writes(func.blocks[by_role(func, SCORES)])[0].dtype.itemsize
    *_, queries, features = extents(RESULT)
    return Problem(queries, extents(SCORES)[-1], depth, features, size, max(b.dtype.itemsize for b in func.inputs))


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How attention is shared out. A block has row_threads x rows queries."""

    row_threads: int = decision("threads of a block along the queries", lambda p, t: (1, 2, 4, 8, 16))
    rows: int = decision("queries of a thread", lambda p, t: (1, 2, 4))
    column_threads: int = decision("threads along keys and features", lambda p, t: (8, 16, 32))
    keys: int = decision("keys of a thread at once", lambda p, t: (1, 2, 4))
    features: int = decision("features of a thread at once", lambda p, t: (1, 2, 4))
    depth: int = decision("features, or keys, that pass through shared memory at once", lambda p, t: (4, 8, 16, 32))
    lanes: int = decision("neighbours that a thread moves at once", lambda p, t: (1, 2, 4))
    buffers: int = decision("slices in shared memory: 2 to load one while the other is in use", lambda p, t: (1, 2))


COLUMN_THREADS, DEPTH = 16, 16


def plan(p: Problem, target: CudaTarget) -> AttentionPlan:
    """As many queries as have room for their scores: each reads all keys and values once for all of them. Several blocks may share an SM, unless
    the keys are too many for that."""
    fit = lambda room: next((n for n in QUERIES if n <= p.queries and _shared(p, n) <= room), 0)
    queries = fit(min(target.block_shared, STATIC_SHARED)) or fit(target.block_shared)
    row_threads = min(queries, 16)
    features = next((n for n in (4, 2) if COLUMN_THREADS * n <= p.features), 1)
    lanes = max(WIDEST // p.operand_size, 1)
    return AttentionPlan(row_threads, queries // row_threads, COLUMN_THREADS, 4, features, DEPTH, min(lanes, 4), 2)


def _shared(p: Problem, queries: int) -> int:
    """Bytes of shared memory that so many queries take: scores and weights, slices of queries and keys, and of values."""
    slices = (queries + COLUMN_THREADS * 4) * (DEPTH + PADDING) + DEPTH * (COLUMN_THREADS * 4 + PADDING)
    return 2 * queries * (p.keys + 2 * PADDING + 1) * p.itemsize + 2 * slices * p.operand_size


def apply(sch: Schedule, plan: AttentionPlan) -> None:
    """Both products in tiles of registers, one after the other; between them the threads share each row's weights, their greatest score and
    their sum."""
    result = inline_into_output(sch, by_role(sch, RESULT))
    *outer, row, _ = sch.get_loops(result)
    group, _ = sch.split(row, [None, plan.row_threads * plan.rows])
    stack = fuse_all(sch, outer)
    around = grid_of(sch, [group] if stack is None else [stack, group])
    tile(sch, by_role(sch, MIXED), _product(plan, plan.features), around)
    for role in (TOTAL, WEIGHTS, TOP, SCORES):
        sch.compute_at(by_role(sch, role), around[-1])
    for role in (TOP, WEIGHTS, TOTAL):
        _share(sch, by_role(sch, role), len(around), plan)
    weights = by_role(sch, WEIGHTS)  # rows begin in banks of their own
    sch.storage_align(weights, 0, len(writes(sch.func.blocks[weights])[0].shape) - 2, 2 * PADDING, PADDING)
    tile(sch, by_role(sch, PRODUCT), _product(plan, plan.keys), around)
    for v, index in zip(reversed(around), GRID):
        sch.bind(v, index)


def _product(plan: AttentionPlan, columns: int) -> ProductPlan:
    threads = plan.row_threads * plan.column_threads
    return ProductPlan(
        plan.row_threads, plan.column_threads, plan.rows, columns, plan.depth, plan.lanes, threads, plan.buffers
    )


def _share(sch: Schedule, name: str, depth: int, plan: AttentionPlan) -> None:
    """Give the threads of a block its rows, and the elements of each row in turn."""
    *rows, element = sch.get_loops(name)[depth:]
    row = fuse_all(sch, rows)
    parts: list[Var] = []
    if row is not None:
        _, own = sch.split(row, [None, plan.row_threads])
        parts.append(own)
    _, lane = sch.split(element, [None, plan.column_threads])
    for v, index in zip([*parts, lane], ("threadIdx.y", "threadIdx.x") if parts else ("threadIdx.x",)):
        sch.bind(v, index)
