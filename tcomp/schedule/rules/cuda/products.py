"""The default schedule of a GPU for products and convolutions: tiles of the result in registers, of the operands in shared memory.

A block of threads computes a tile of the result, each thread some of its rows and columns. Slices of both operands, some steps of the
reduction deep, pass through shared memory, where many threads read each element (V. Volkov, J. Demmel, Benchmarking GPUs to tune dense
linear algebra, SC 2008; G. Tan et al., Fast implementation of DGEMM on Fermi GPU, SC 2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import producers
from ....errors import ScheduleError
from ....ir.expr import Add, Buffer, Mul, Var
from ....ir.index_map import IndexMap
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars
from ....ir.stmt import Block, Store
from ....target import CudaTarget
from ....target.cuda import STATIC_SHARED, WARP
from ...library import fuse_all, inline_elementwise, loaded
from ...primitives import BlockRef
from ...schedule import Schedule
from ..plan import decision
from .common import GRID, WIDEST, grid_of, inline_cheap, spread, write_back

NAME = "tiled_product"
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
class Roles:
    """Which spatial iterators of a product one operand has, the other one, or both."""

    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    batch: tuple[Var, ...]
    operands: tuple[Buffer, Buffer]


def roles_of(b: Block) -> Roles | None:
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
    return Roles(of[1 - second], of[second], both, operands) if of[1 - second] else None


def product_blocks(func: PrimFunc) -> list[str]:
    """The blocks that are worth tiles."""
    found = []
    for b in func.blocks.values():
        roles = roles_of(b)
        if roles is not None and as_int(b.reduce[-1].extent, SMALLEST) > 1:
            extents = {it.var: as_int(it.extent, SMALLEST) for it in b.iters}
            if min(prod(extents[v] for v in side) for side in (roles.rows, roles.columns)) >= SMALLEST:
                found.append(b.name)
    return found


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    return bool(product_blocks(func))


def problem_of(func: PrimFunc) -> Problem:
    """The facts of the kernel's first product."""
    b = func.blocks[product_blocks(func)[0]]
    roles = roles_of(b)
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
    buffers: int = decision("slices in shared memory: 2 to load one while the other is in use", lambda p, t: (1, 2))


THREADS = ((16, 16), (8, 16), (8, 32), (4, 16), (4, 32), (8, 8))
"""Threads of a block along rows and columns to choose from."""
OWN = (1, 2, 4, 8)
"""Rows and columns of a thread."""


def plan(p: Problem, target: CudaTarget) -> ProductPlan:
    """The tile that takes the least time by `cost`: large ones read less, of small ones there are enough for all SMs. A thread writes its columns
    at once, as many as an access holds where rows consist of so many."""
    lanes = max(WIDEST // p.itemsize, 1)
    depth = 16 if p.depth >= 16 else 8 if p.depth >= 8 else 4
    buffers = 2 if p.depth > depth else 1
    near = [c for c in OWN if c >= min(lanes, 4)] if p.columns[-1] % 4 == 0 and p.columns[-1] >= WARP else OWN
    found = [ProductPlan(*threads, r, c, depth, lanes, 256, buffers) for threads in THREADS for r in OWN for c in near]
    return min(found, key=lambda plan: cost(p, plan, target))


def cost(p: Problem, plan: ProductPlan, target: CudaTarget) -> float:
    """Cycles of one step of the reduction in all tiles: multiply-adds and loads from shared memory of an SM, and what the L2 cache gives it
    meanwhile. An SM that has few warps to choose from waits; infinite where a tile takes more than its share of shared memory."""
    rows, columns = plan.row_threads * plan.rows, plan.column_threads * plan.columns
    slices = plan.buffers * (rows + columns) * (plan.depth + PADDING) * p.itemsize
    if slices > min(target.block_shared // 2, STATIC_SHARED):
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
    products = product_blocks(sch.func)
    others = [b for b in sch.func.blocks if b not in products]  # whose operands' copies take such things along
    inline_cheap(sch, others)
    done: set[str] = set()
    for name in products:
        done |= tile(sch, name, plan)
    for name in list(sch.func.blocks):
        if name not in done:
            done |= spread(sch, name, plan.threads, plan.lanes)


def tile(sch: Schedule, name: str, plan: ProductPlan, around: Sequence[Var] = ()) -> set[str]:
    """Tile a product; the names of the blocks of its launch.

    Args:
        around: loops over blocks of threads that hold it already, and in which its tiles follow each other; none to make each tile a block.
    """
    product = sch.func.blocks[name]
    roles = roles_of(product)
    assert roles is not None
    write = write_back(sch, name)
    extents = [as_int(sch.get_extent(v), 1 << 10) for v in sch.get_loops(write)[len(around) :]]
    tiles = _tiles(dict(zip((it.var for it in product.spatial[-len(extents) :]), extents)), roles, plan)
    outer, inner = _split_into(sch, sch.get_loops(write)[len(around) :], tiles)
    sch.reorder(*outer, *inner)
    blocks = [*around, *outer] if around else grid_of(sch, outer)
    sch.compute_at(name, blocks[-1])
    own = _split_tile(sch, name, blocks, tiles)
    block = sch.func.blocks[name]
    reduce = [v for it in block.reduce for v in sch.get_loops(name) if v in free_vars(it.binding)]
    if not reduce:
        raise ScheduleError(f"block {name} has no loop over what it adds up")
    steps, step = sch.split(reduce[-1], [None, plan.depth])
    slices = [*reduce[:-1], steps]
    threads = [v for v, index in own.items() if index]
    sch.reorder(*slices, *threads, step, *(v for v in own if v not in threads))
    sch.unroll(step)
    for loops in (own, inner):
        for v, index in loops.items():
            sch.bind(v, index) if index else sch.unroll(v)
    for nest, loops in ((write, inner), (name, own)):
        _together(sch, nest, [v for v, index in loops.items() if not index])
    init = sch.decompose_reduction(name, slices[0])
    counts = {index: extent for index in INDICES for tile in tiles for extent, i in tile if i == index}
    copies = [
        _bring(sch, name, b, steps, plan, counts, is_rows)
        for b, is_rows in zip(roles.operands, (True, False))
        if not around or b in sch.func.params
    ]
    if plan.buffers > 1:
        sch.pragma(steps, "double_buffer", 1)
    for v, index in zip(reversed(blocks), GRID) if not around else ():
        sch.bind(v, index)
    return {name, write, init.name, *copies}


def _together(sch: Schedule, name: str, registers: Sequence[Var]) -> None:
    """Neighbours among the columns of a thread are loaded, computed and written at once."""
    last = sch.func.blocks[name].spatial[-1]
    near = [v for v in registers if v in free_vars(last.binding)]
    if near and sch.get_extent(near[-1]) != 1 and sch.get_loops(name)[-1] is near[-1]:
        sch.vectorize(near[-1])


INDICES = ("threadIdx.z", "threadIdx.y", "threadIdx.x")
Tile = Sequence[tuple[int, str]]
"""The parts into which an axis is split, outermost first: (extent, the index that it is bound to, or "" for registers)."""


def _tiles(extents: Mapping[Var, int], roles: Roles, plan: ProductPlan) -> list[Tile]:
    """How each axis of the result is split inside of a tile. Where rows are short, as those of small images, the axis before them gives
    threads, too."""
    row, column = roles.rows[-1], roles.columns[-1]
    if row not in extents or column not in extents:
        raise ScheduleError("cannot tile a product", why="its rows or columns have no loop")
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
    for it, tile in zip(sch.func.blocks[name].spatial[-len(tiles) :], tiles):
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
    """Copy the part of an operand that a step of the reduction reads to shared memory; columns along which threads lie side by side."""
    is_turned = not is_rows and is_transposed(sch.func.blocks[name], buffer)
    copy = sch.cache_read(name, buffer, "shared").name
    bring(sch, copy, buffer, steps, plan.lanes, counts)
    axes = len(sch.func.blocks[copy].spatial)
    if is_turned:  # threads side by side read what lies side by side
        params = tuple(Var(f"i{d}") for d in range(axes))
        sch.transform_layout(copy, 0, IndexMap(params, (*params[:-2], params[-1], params[-2])))
    if (is_rows or is_turned) and axes > 1:  # rows begin in banks of their own
        sch.storage_align(copy, 0, axes - 2, 2 * PADDING, PADDING)
    return copy


def bring(sch: Schedule, copy: str, buffer: Buffer, steps: Var, most: int, counts: Mapping[str, int]) -> None:
    """Let all threads make a copy of an operand in each step of a loop, and compute there what is cheap.

    Args:
        most: neighbours that a thread brings at once. counts: of threads along each index, z before y before x.
    """
    made = [b.name for b in producers(sch.func, buffer) if not b.is_reduction]
    sch.compute_at(copy, steps)
    for b in made:  # such as the border around an image
        if sch.why_not("compute_inline", BlockRef(b)) is None:
            sch.compute_inline(b)
    loops = sch.get_loops(copy)
    inner = loops[loops.index(steps) + 1 :]
    last = sch.get_extent(inner[-1]) if inner else 0
    row = as_int(buffer.shape[-1], 1)  # of which runs begin at multiples only if it is a multiple, too
    lanes = most if isinstance(last, int) and last % most == 0 and row % most == 0 else 1
    whole = fuse_all(sch, inner)
    if whole is None:
        raise ScheduleError(f"block {copy} has nothing to bring")
    _, *parts = sch.split(whole, [None, *counts.values(), lanes])
    for v, index in zip(parts, counts):
        sch.bind(v, index)
    if lanes > 1:
        sch.vectorize(parts[-1])


def is_transposed(block: Block, buffer: Buffer) -> bool:
    """Whether the reduction walks along an operand's neighbours, and the columns across them."""
    (indices,) = {i for b, i in loaded(block) if b is buffer}
    kinds = {it.var: it.kind for it in block.iters}
    ends = [x for x in indices[-2:] if isinstance(x, Var)]
    return [kinds.get(v) for v in ends] == ["spatial", "reduce"]
