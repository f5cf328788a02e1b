"""The default schedule of a GPU for products and convolutions: tiles of the result in registers, of the operands in shared memory.

A block of threads computes a tile of the result, each thread some of its rows and columns. Slices of both operands, some steps of the
reduction deep, pass through shared memory, where many threads read each element (V. Volkov, J. Demmel, Benchmarking GPUs to tune dense
linear algebra, SC 2008; G. Tan et al., Fast implementation of DGEMM on Fermi GPU, SC 2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import consumers, producers, writes
from ....errors import ScheduleError
from ....ir.expr import Add, Buffer, Mul, Var
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars
from ....ir.stmt import Block, Store
from ....target import CudaTarget
from ....target.cuda import STATIC_SHARED, WARP
from ...library import fuse_all, inline_elementwise, is_output, loaded
from ...primitives import BlockRef
from ...schedule import Schedule
from ..plan import decision
from .common import GRID, grid_of, spread

NAME = "tiled_product"
ACCESS_BYTES = 16
"""Of the widest access to memory."""
PADDING = 4
"""Elements by which rows of a slice are longer, so that they begin in banks of their own."""
L2_BYTES = 40
"""That an SM gets from the L2 cache in a cycle, about, where all read."""
WARPS = 8
"""That keep an SM busy."""
SMALLEST = 8
"""Rows and columns from which sharing operands pays."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: those of its reductions that are products, in the order of the blocks.

    Attributes:
        itemsize: bytes of an element of the operands.
        rows, columns: the extents of the result along the axes that one operand has, the last of the result among the columns.
        depth: of the innermost axis of the reduction.
        batch: products side by side.
    """

    itemsize: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    depth: int
    batch: int


@dataclass(frozen=True, slots=True)
class _Roles:
    """Which spatial iterators of a product one operand has, the other one, or both."""

    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    batch: tuple[Var, ...]
    operands: tuple[Buffer, Buffer]


def _roles(b: Block) -> _Roles | None:
    """Those of a block that sums up products of two operands; None of others."""
    s = b.body
    if not b.reduce or not isinstance(s, Store) or not isinstance(s.value, Add) or not b.spatial:
        return None
    found = dict.fromkeys(loaded(b))
    names = list(dict.fromkeys(buffer for buffer, _ in found))
    if len(found) != 2 or len(names) != 2 or not any(isinstance(x, Mul) for x in (s.value.a, s.value.b)):
        return None
    used = [{v for i in indices for v in free_vars(i)} for _, indices in found]
    last = next((it.var for it in reversed(b.spatial) if (it.var in used[0]) != (it.var in used[1])), None)
    if last is None or any(it.var not in used[0] and it.var not in used[1] for it in b.iters):
        return None
    second = 1 if last in used[1] else 0
    of = [tuple(it.var for it in b.spatial if it.var in used[i] and it.var not in used[1 - i]) for i in (0, 1)]
    both = tuple(it.var for it in b.spatial if it.var in used[0] and it.var in used[1])
    operands = (names[1 - second], names[second])
    return _Roles(of[1 - second], of[second], both, operands) if of[1 - second] else None


def _products(func: PrimFunc) -> list[str]:
    """The blocks that are worth tiles."""
    found = []
    for b in func.blocks.values():
        roles = _roles(b)
        if roles is not None and as_int(b.reduce[-1].extent, SMALLEST) > 1:
            extents = {it.var: as_int(it.extent, SMALLEST) for it in b.iters}
            if min(prod(extents[v] for v in side) for side in (roles.rows, roles.columns)) >= SMALLEST:
                found.append(b.name)
    return found


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    return bool(_products(func))


def problem_of(func: PrimFunc) -> Problem:
    """The facts of the kernel's first product."""
    b = func.blocks[_products(func)[0]]
    roles = _roles(b)
    assert roles is not None
    extents = {it.var: as_int(it.extent, 1 << 10) for it in b.iters}
    return Problem(
        max(x.dtype.itemsize for x in roles.operands),
        tuple(extents[v] for v in roles.rows),
        tuple(extents[v] for v in roles.columns),
        extents[b.reduce[-1].var],
        prod(extents[v] for v in roles.batch),
    )


@dataclass(frozen=True, slots=True)
class ProductPlan:
    """How a product is tiled. A block computes (row_threads * rows) x (column_threads * columns) elements of the result."""

    row_threads: int = decision("threads of a block along the rows", lambda p, t: (4, 8, 16))
    column_threads: int = decision("threads of a block along the columns", lambda p, t: (8, 16, 32))
    rows: int = decision("rows of a thread", lambda p, t: (1, 2, 4, 8))
    columns: int = decision("columns of a thread", lambda p, t: (1, 2, 4, 8))
    depth: int = decision("steps of the reduction in shared memory at once", lambda p, t: (4, 8, 16, 32))
    lanes: int = decision("neighbours that a thread brings to shared memory at once", lambda p, t: (1, 2, 4))
    threads: int = decision("threads of a block in the stages besides products", lambda p, t: (64, 128, 256, 512))


THREADS = ((16, 16), (8, 16), (8, 32), (4, 16), (4, 32), (8, 8))
"""Threads of a block along rows and columns to choose from."""
OWN = (1, 2, 4, 8)
"""Rows and columns of a thread."""


def plan(p: Problem, target: CudaTarget) -> ProductPlan:
    """The tile that takes the least time by `cost`: large ones read less, of small ones there are enough for all SMs."""
    lanes = max(ACCESS_BYTES // p.itemsize, 1)
    depth = 16 if p.depth >= 16 else 8 if p.depth >= 8 else 4
    found = [ProductPlan(*threads, r, c, depth, lanes, 256) for threads in THREADS for r in OWN for c in OWN]
    return min(found, key=lambda plan: cost(p, plan, target))


def cost(p: Problem, plan: ProductPlan, target: CudaTarget) -> float:
    """Cycles of one step of the reduction in all tiles: multiply-adds and loads from shared memory of an SM, and what the L2 cache gives it
    meanwhile. An SM that has few warps to choose from waits; infinite where a tile takes more than its share of shared memory."""
    rows, columns = plan.row_threads * plan.rows, plan.column_threads * plan.columns
    if (rows + columns) * (plan.depth + PADDING) * p.itemsize > min(target.block_shared // 2, STATIC_SHARED):
        return float("inf")
    others = p.batch * prod(p.columns[:-1])
    along = p.rows[-1] if p.rows[-1] >= SMALLEST else prod(p.rows)
    tiles = ceil(along / rows) * (prod(p.rows) // along) * ceil(p.columns[-1] / columns) * others
    warps = plan.row_threads * plan.column_threads / WARP
    fma = warps * plan.rows * plan.columns * WARP / target.fma_lanes
    shared = warps * (plan.columns + 0.5 * plan.rows)
    far = (rows + columns) * p.itemsize / L2_BYTES
    per_sm = ceil(tiles / target.sms)
    resident = min(per_sm * warps, target.threads / 2 / WARP)
    return per_sm * max(fma + shared / 2, far) / min(1.0, resident / WARPS)


def apply(sch: Schedule, plan: ProductPlan) -> None:
    """Each product a launch of its own, with what follows element by element; the other stages spread over threads."""
    inline_elementwise(sch)
    done: set[str] = set()
    for name in _products(sch.func):
        done |= _tile(sch, name, plan)
    for name in [b for b in sch.func.blocks if b not in done]:
        spread(sch, name, plan.threads)


def _tile(sch: Schedule, name: str, plan: ProductPlan) -> set[str]:
    """Tile a product; the names of the blocks of its launch."""
    product = sch.func.blocks[name]
    roles = _roles(product)
    assert roles is not None
    tiles = _tiles({it.var: as_int(it.extent, 1 << 10) for it in product.spatial}, roles, plan)
    write = _write_back(sch, name)
    outer, inner = _split_into(sch, sch.get_loops(write), tiles)
    sch.reorder(*outer, *inner)
    blocks = grid_of(sch, outer)
    site = blocks[-1]
    sch.compute_at(name, site)
    own = _split_tile(sch, name, blocks, tiles)
    block = sch.func.blocks[name]
    reduce = [v for it in block.reduce for v in sch.get_loops(name) if v in free_vars(it.binding)]
    steps, step = sch.split(reduce[-1], [None, plan.depth])
    slices = [*reduce[:-1], steps]
    threads = [v for v, index in own.items() if index]
    sch.reorder(*slices, *threads, step, *(v for v in own if v not in threads))
    sch.unroll(step)
    for loops in (own, inner):
        for v, index in loops.items():
            sch.bind(v, index) if index else sch.unroll(v)
    init = sch.decompose_reduction(name, slices[0])
    counts = {index: extent for index in INDICES for tile in tiles for extent, i in tile if i == index}
    copies = [_bring(sch, name, b, steps, plan, counts, is_rows) for b, is_rows in zip(roles.operands, (True, False))]
    for v, index in zip(reversed(blocks), GRID):
        sch.bind(v, index)
    return {name, write, init.name, *copies}


def _write_back(sch: Schedule, name: str) -> str:
    """Keep a product's result in registers; the block that writes it back, with what follows element by element if that has the same
    axes."""
    block = sch.func.blocks[name]
    if not is_output(sch.func, block):
        users = consumers(sch.func, writes(block)[0])
        if len(users) == 1 and not users[0].is_reduction:
            extents = [[it.extent for it in b.spatial] for b in (block, users[0])]
            own = tuple(it.var for it in users[0].spatial)
            reads = [i for buffer, i in loaded(users[0]) if buffer is writes(block)[0]]
            if extents[0] == extents[1] and all(i == own for i in reads):
                sch.set_scope(name, 0, "local")
                return users[0].name
    return sch.cache_write(name, 0, "local").name


INDICES = ("threadIdx.z", "threadIdx.y", "threadIdx.x")
Tile = Sequence[tuple[int, str]]
"""The parts into which an axis is split, outermost first: (extent, the index that it is bound to, or "" for registers)."""


def _tiles(extents: Mapping[Var, int], roles: _Roles, plan: ProductPlan) -> list[Tile]:
    """How each axis of the result is split inside of a tile. Where rows are short, as those of small images, the axis before them gives
    threads, too."""
    row, column = roles.rows[-1], roles.columns[-1]
    groups, near = (plan.columns // 4, 4) if plan.columns > 4 else (1, plan.columns)
    along = plan.row_threads
    while along > 1 and (along // 2) * plan.rows >= extents[row]:
        along //= 2
    found: dict[Var, Tile] = {
        column: [(groups, ""), (plan.column_threads, "threadIdx.x"), (near, "")],
        row: [(along, "threadIdx.y"), (plan.rows, "")],
    }
    if along < plan.row_threads and len(roles.rows) > 1:
        found[roles.rows[-2]] = [(1, ""), (plan.row_threads // along, "threadIdx.z")]
    return [found.get(v, ()) for v in extents]


def _split_into(sch: Schedule, loops: Sequence[Var], tiles: Sequence[Tile]) -> tuple[list[Var], dict[Var, str]]:
    """Split loops, one an axis, into tiles: the loops over tiles, and those inside with the indices that they are to be bound to."""
    if len(loops) != len(tiles):
        raise ScheduleError("cannot tile the result", why=f"{len(loops)} loops for {len(tiles)} axes")
    outer: list[Var] = []
    inner: list[tuple[Var, str]] = []
    for loop, tile in zip(loops, tiles):
        first, *made = sch.split(loop, [None, *(extent for extent, _ in tile)]) if tile else [loop]
        outer.append(first)
        inner += zip(made, (index for _, index in tile))
    return outer, _in_order(inner)


def _split_tile(sch: Schedule, name: str, blocks: Sequence[Var], tiles: Sequence[Tile]) -> dict[Var, str]:
    """Split the loops of a product inside of a tile in the same way."""
    own: list[tuple[Var, str]] = []
    for it, tile in zip(sch.func.blocks[name].spatial, tiles):
        loop = next((v for v in sch.get_loops(name) if v not in blocks and v in free_vars(it.binding)), None)
        if tile and loop is None:
            raise ScheduleError(f"block {name} has no loop to split along {it.var.name}")
        if tile and loop is not None:
            own += zip(sch.split(loop, [extent for extent, _ in tile]), (index for _, index in tile))
    return _in_order(own)


def _in_order(parts: Sequence[tuple[Var, str]]) -> dict[Var, str]:
    """Loops bound to threads first, z before y before x; then those over registers."""
    return dict(sorted(parts, key=lambda p: INDICES.index(p[1]) if p[1] else len(INDICES)))


def _bring(
    sch: Schedule, name: str, buffer: Buffer, steps: Var, plan: ProductPlan, counts: Mapping[str, int], is_rows: bool
) -> str:
    """Copy the part of an operand that a step of the reduction reads to shared memory, by all threads."""
    made = [b.name for b in producers(sch.func, buffer) if not b.is_reduction]
    copy = sch.cache_read(name, buffer, "shared").name
    sch.compute_at(copy, steps)
    for b in made:  # such as the border around an image
        if sch.why_not("compute_inline", BlockRef(b)) is None:
            sch.compute_inline(b)
    loops = sch.get_loops(copy)
    inner = loops[loops.index(steps) + 1 :]
    last = sch.get_extent(inner[-1]) if inner else 0
    lanes = plan.lanes if isinstance(last, int) and last % plan.lanes == 0 else 1
    whole = fuse_all(sch, inner)
    if whole is None:
        raise ScheduleError(f"block {copy} has nothing to bring")
    _, *parts = sch.split(whole, [None, *counts.values(), lanes])
    for v, index in zip(parts, counts):
        sch.bind(v, index)
    if lanes > 1:
        sch.vectorize(parts[-1])
    axes = len(sch.func.blocks[copy].spatial)
    if is_rows and axes > 1:  # rows begin in banks of their own
        sch.storage_align(copy, 0, axes - 2, 2 * PADDING, PADDING)
    return copy
