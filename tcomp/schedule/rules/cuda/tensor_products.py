"""The default schedule of a GPU for products of 16-bit floats: tiles that warps multiply by matrix instructions.

A block of threads computes a tile of the result, each of its warps a part of it, in tiles of 16 x 16 that its lanes hold together. Slices of both
operands pass through shared memory as in `products`; the sums go through shared memory, too, where each thread finds the elements that it writes
(NVIDIA, CUTLASS: Fast Linear Algebra in CUDA C++, 2017). Extents that tiles do not divide are padded with zeros on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import consumers, writes
from ....errors import ScheduleError
from ....ir.expr import Buffer, Var
from ....ir.index_map import IndexMap
from ....ir.matrix_intrin import OPERANDS, SIDE, load_name, product_name
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars
from ....ir.stmt import Block, Store
from ....target import CudaTarget
from ....target.cuda import WARP
from ...library import fuse_all, inline_elementwise, is_output, loaded
from ...schedule import Schedule
from ..plan import decision
from .common import GRID, WIDEST, grid_of, inline_cheap, spread
from .products import L2_BYTES, bring, product_blocks, roles_of

NAME = "tensor_product"
PADDING = 8
"""Elements by which rows in shared memory are longer, so that eight of them begin in banks of their own; a multiple of 16 bytes."""
INDICES = ("threadIdx.z", "threadIdx.y", "threadIdx.x")
"""Warps along rows, warps along columns, the lanes of a warp."""
WARPS = 8
"""That keep an SM busy."""
OTHER_REGISTERS, MOST_REGISTERS = 48, 255
"""Of a thread: for addresses and the like; at all."""
ROUNDING = 512
"""Bytes of shared memory that lie between buffers, at most."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel's first product.

    Attributes:
        kind: dtype of the operands. rows, columns: of the result. depth: of the reduction. batch: products side by side.
    """

    kind: str
    rows: int
    columns: int
    depth: int
    batch: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    names = product_blocks(func)
    return bool(names) and all(_fits(func.blocks[n], target) for n in names)


def _fits(b: Block, target: CudaTarget) -> bool:
    """Whether a block adds up products that matrix instructions take, along one axis, and large enough."""
    roles = roles_of(b)
    if roles is None or len(b.reduce) != 1:
        return False
    (k,) = b.reduce
    kinds = {x.dtype for x in roles.operands}
    extents = {it.var: as_int(it.extent, 0) for it in b.iters}
    ends = [set(_ends(b, x)) == {own[-1], k.var} for x, own in zip(roles.operands, (roles.rows, roles.columns))]
    is_plain = all(ends) and isinstance(b.body, Store) and all(isinstance(i, Var) for i in b.body.indices)
    return (
        len(kinds) == 1
        and kinds <= OPERANDS.keys()
        and {d.name for d in kinds} <= set(target.tensor_cores)
        and writes(b)[0].dtype.name == "float32"
        and is_plain
        and min(extents[roles.rows[-1]], extents[roles.columns[-1]], extents[k.var]) >= SIDE
    )


def _ends(b: Block, buffer: Buffer) -> Sequence[object]:
    """The last two indices of an operand."""
    (indices,) = {i for x, i in loaded(b) if x is buffer}
    return indices[-2:]


def problem_of(func: PrimFunc) -> Problem:
    b = func.blocks[product_blocks(func)[0]]
    roles = roles_of(b)
    assert roles is not None
    extents = {it.var: as_int(it.extent, 1 << 10) for it in b.iters}
    row, column, k = roles.rows[-1], roles.columns[-1], b.reduce[0].var
    batch = prod(extents[it.var] for it in b.spatial if it.var not in (row, column))
    return Problem(roles.operands[0].dtype.name, extents[row], extents[column], extents[k], batch)


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How a product is tiled. A block of threads computes (row_warps * rows * 16) x (column_warps * columns * 16) elements."""

    row_warps: int = decision("warps of a block along the rows", lambda p, t: (1, 2, 4))
    column_warps: int = decision("warps of a block along the columns", lambda p, t: (1, 2, 4))
    rows: int = decision("tiles of 16 rows of a warp", lambda p, t: (1, 2, 4))
    columns: int = decision("tiles of 16 columns of a warp", lambda p, t: (1, 2, 4))
    depth: int = decision("steps of the reduction in shared memory at once", lambda p, t: (16, 32, 64))
    lanes: int = decision("neighbours that a thread brings to shared memory at once", lambda p, t: (1, 2, 4, 8))
    threads: int = decision("threads of a block in the stages besides products", lambda p, t: (64, 128, 256, 512))
    buffers: int = decision("slices in shared memory: 2 to load one while the other is in use", lambda p, t: (1, 2))


def plan(p: Problem, target: CudaTarget) -> TensorPlan:
    """The tile that takes the least time by `cost`."""
    depth = 32 if p.depth >= 32 else SIDE
    buffers = 2 if p.depth > depth else 1
    found = [
        TensorPlan(r, c, rows, columns, depth, WIDEST // 2, 256, buffers)
        for r in (1, 2, 4)
        for c in (1, 2, 4)
        for rows in (1, 2, 4)
        for columns in (1, 2, 4)
    ]
    return min(found, key=lambda plan: cost(p, plan, target))


def cost(p: Problem, plan: TensorPlan, target: CudaTarget) -> float:
    """Cycles of 16 steps of the reduction in all tiles: of the matrix instructions, of the tiles that warps load from shared memory, and of what the
    L2 cache hands an SM meanwhile. An SM that has few warps to choose from waits; infinite where a block takes too much shared memory, or a thread too
    many registers."""
    rows, columns = plan.row_warps * plan.rows * SIDE, plan.column_warps * plan.columns * SIDE
    slices = plan.buffers * (rows * (plan.depth + PADDING) + plan.depth * (columns + PADDING)) * 2
    nbytes = slices + 4 * rows * (columns + PADDING)
    if nbytes > target.block_shared - ROUNDING:
        return float("inf")
    tiles = ceil(p.rows / rows) * ceil(p.columns / columns) * p.batch
    warps = plan.row_warps * plan.column_warps
    in_tiles = 8 * (
        plan.rows * plan.columns + plan.rows + plan.columns
    )  # 32 lanes hold a tile of sums, or of operands twice
    on_the_way = (plan.buffers - 1) * (rows + columns) * plan.depth * 2 // (4 * warps * WARP)
    registers = in_tiles + on_the_way + OTHER_REGISTERS
    if registers > min(MOST_REGISTERS, target.registers // (warps * WARP)):
        return float("inf")
    products = warps * plan.rows * plan.columns * SIDE**3 / target.tensor_lanes
    shared = warps * (plan.rows + plan.columns) * SIDE * SIDE * 2 / 128  # bytes that shared memory gives in a cycle
    far = (rows + columns) * SIDE * 2 / L2_BYTES
    per_sm = ceil(tiles / target.sms)
    blocks = min(target.sm_shared // nbytes, target.registers // (registers * warps * WARP))
    resident = min(per_sm, blocks) * warps
    return per_sm * max(products, shared, far) / min(1.0, resident / WARPS)


def apply(sch: Schedule, plan: TensorPlan) -> None:
    """Each product a launch of its own, with what follows element by element; the other stages spread over threads."""
    inline_elementwise(sch)
    names = product_blocks(sch.func)
    inline_cheap(sch, [b for b in sch.func.blocks if b not in names])
    done: set[str] = set()
    for name in names:
        done |= _tile(sch, name, plan)
    for name in list(sch.func.blocks):
        if name not in done:
            done |= spread(sch, name, plan.threads, plan.lanes // 2)


def _tile(sch: Schedule, name: str, plan: TensorPlan) -> set[str]:
    """Tile a product; the names of the blocks of its launch."""
    roles = roles_of(sch.func.blocks[name])
    assert roles is not None
    row, column, k = roles.rows[-1], roles.columns[-1], sch.func.blocks[name].reduce[0].var
    ends = [_ends(sch.func.blocks[name], x) for x in roles.operands]
    turned = {"a": ends[0][0] is k, "b": ends[1][1] is k}
    sides = {row: plan.row_warps * plan.rows * SIDE, column: plan.column_warps * plan.columns * SIDE}
    _pad(sch, name, {**sides, k: plan.depth})
    write = _stage_result(sch, name)
    sums = sch.cache_write(name, 0, "warp").name
    shared = [sch.cache_read(name, x, "shared").name for x in _operands(sch, name)]
    for copy in (sums, *shared):
        _pad_rows(sch, copy)
    tiles = [sch.cache_read(name, writes(sch.func.blocks[copy])[0], "warp").name for copy in shared]
    blocks, inner = _grid(sch, write, [sides.get(it.var) for it in sch.func.blocks[name].spatial])
    sch.compute_at(sums, blocks[-1])
    sch.compute_at(name, blocks[-1])
    _in_tiles(sch, name)
    steps, near, init = _product(sch, name, blocks, plan)
    counts = dict(zip(INDICES, (plan.row_warps, plan.column_warps, WARP)))
    for copy, tile, operand in zip(shared, tiles, "ab"):
        _fragment(sch, tile, near, operand, turned[operand])
        bring(sch, copy, loaded(sch.func.blocks[copy])[0][0], steps, plan.lanes, counts)
    sch.tensorize(sch.get_loops(name)[-3], product_name(turned["a"], turned["b"], roles.operands[0].dtype))
    _sums(sch, sums, blocks, plan)
    lanes = 4 if as_int(sch.func.blocks[write].spatial[-1].extent, 1) % 4 == 0 else 1
    _write(sch, write, inner, counts, lanes)
    if plan.buffers > 1:
        sch.pragma(steps, "double_buffer", 1)
    for v, index in zip(reversed(blocks), GRID):
        sch.bind(v, index)
    return {name, write, sums, init, *shared, *tiles}


def _pad(sch: Schedule, name: str, sides: Mapping[Var, int]) -> None:
    """Let tiles divide the extents of a product; the copy that takes the padding off again goes into what follows it."""
    b = sch.func.blocks[name]
    if all(as_int(it.extent, 1) % sides.get(it.var, 1) == 0 for it in b.iters):
        return
    *_, back = sch.pad_einsum(name, [sides.get(it.var, 1) for it in b.iters])
    users = consumers(sch.func, writes(sch.func.blocks[back.name])[0])
    if len(users) == 1 and not users[0].is_reduction and sch.why_not("compute_inline", back) is None:
        sch.compute_inline(back)


def _stage_result(sch: Schedule, name: str) -> str:
    """Keep a product's result in shared memory; the block that takes it from there, with what follows element by element where that is possible."""
    b = sch.func.blocks[name]
    made = writes(b)[0]
    if not is_output(sch.func, b):
        users = consumers(sch.func, made)
        if len(users) == 1 and not users[0].is_reduction:
            own = [it.var for it in users[0].spatial]
            if len(own) == len(b.spatial) and all(list(i) == own for x, i in loaded(users[0]) if x is made):
                sch.set_scope(name, 0, "shared")
                return users[0].name
    return sch.cache_write(name, 0, "shared").name


def _operands(sch: Schedule, name: str) -> tuple[Buffer, Buffer]:
    roles = roles_of(sch.func.blocks[name])
    if roles is None:
        raise ScheduleError(f"block {name} is no product of two operands any more")
    return roles.operands


def _in_tiles(sch: Schedule, name: str) -> None:
    """Let what a block writes lie in memory tile by tile."""
    axes = writes(sch.func.blocks[name])[0].ndim
    params = tuple(Var(f"i{d}") for d in range(axes))
    *lead, r, c = params
    sch.transform_layout(name, 0, IndexMap(params, (*lead, r // SIDE, c // SIDE, r % SIDE, c % SIDE)))


def _grid(sch: Schedule, name: str, sides: Sequence[int | None]) -> tuple[list[Var], list[Var]]:
    """Split the loops of a block into those over tiles, which are a grid, and those inside."""
    loops = sch.get_loops(name)
    if len(loops) != len(sides):
        raise ScheduleError("cannot tile the result", why=f"{len(loops)} loops for {len(sides)} axes")
    pairs = [sch.split(v, [None, side]) if side else [v] for v, side in zip(loops, sides)]
    outer, inner = [p[0] for p in pairs], [p[1] for p in pairs if len(p) > 1]
    sch.reorder(*outer, *inner)
    return grid_of(sch, outer), inner


def _moving(sch: Schedule, name: str, around: Sequence[Var], it: Var) -> Var:
    """The loop that moves an iterator of a block inside of others."""
    binding = next(x.binding for x in sch.func.blocks[name].iters if x.var is it)
    found = next((v for v in sch.get_loops(name) if v not in around and v in free_vars(binding)), None)
    if found is None:
        raise ScheduleError(f"block {name} has no loop to split along {it.name}")
    return found


def _warps(sch: Schedule, name: str, around: Sequence[Var], plan: TensorPlan) -> list[list[Var]]:
    """Split a block's last two axes into warps, which are bound, the tiles of each, and what is in a tile: [[warps], [tiles], [elements]]."""
    parts = ((plan.row_warps, plan.rows, SIDE), (plan.column_warps, plan.columns, SIDE))
    last = [it.var for it in sch.func.blocks[name].spatial[-2:]]
    loops = [_moving(sch, name, around, it) for it in last]
    split = [sch.split(v, list(part)) for v, part in zip(loops, parts)]
    return [list(level) for level in zip(*split)]


def _product(sch: Schedule, name: str, blocks: Sequence[Var], plan: TensorPlan) -> tuple[Var, Var, str]:
    """Order the loops of a product; those over slices and over the tiles in one, and the block that begins the sums."""
    reduce = _moving(sch, name, blocks, sch.func.blocks[name].reduce[0].var)
    warps, tiles, elements = _warps(sch, name, blocks, plan)
    steps, near, k = sch.split(reduce, [None, plan.depth // SIDE, SIDE])
    sch.reorder(steps, *warps, near, *tiles, *elements, k)
    for v, index in zip(warps, INDICES):
        sch.bind(v, index)
    for v in (near, *tiles):
        sch.unroll(v)
    init = sch.decompose_reduction(name, steps).name
    sch.tensorize(sch.get_loops(init)[-2], "wmma_fill")
    return steps, near, init


def _fragment(sch: Schedule, tile: str, near: Var, operand: str, is_turned: bool) -> None:
    """Bring an operand's tiles from shared memory, those of one step at a time."""
    sch.compute_at(tile, near)
    _in_tiles(sch, tile)
    loops = sch.get_loops(tile)
    last = sch.func.blocks[tile].spatial[-2:]
    around = loops[: loops.index(near) + 1]
    split = [sch.split(_moving(sch, tile, around, it.var), [None, SIDE]) for it in last]
    outer, inner = ([p[level] for p in split] for level in (0, 1))
    sch.reorder(*outer, *inner)
    for v in outer:
        sch.unroll(v)
    d = writes(sch.func.blocks[tile])[0].dtype
    sch.tensorize(inner[0], load_name(operand, is_turned, d))


def _sums(sch: Schedule, name: str, blocks: Sequence[Var], plan: TensorPlan) -> None:
    """Let the warps write their sums to shared memory."""
    warps, tiles, elements = _warps(sch, name, blocks, plan)
    sch.reorder(*warps, *tiles, *elements)
    for v, index in zip(warps, INDICES):
        sch.bind(v, index)
    for v in tiles:
        sch.unroll(v)
    sch.tensorize(elements[0], "wmma_store")


def _pad_rows(sch: Schedule, name: str) -> None:
    axes = writes(sch.func.blocks[name])[0].ndim
    sch.storage_align(name, 0, axes - 2, 2 * PADDING, PADDING)


def _write(sch: Schedule, name: str, inner: Sequence[Var], counts: Mapping[str, int], lanes: int) -> None:
    """Spread the elements of a tile of the result over all threads."""
    whole = fuse_all(sch, inner)
    assert whole is not None
    _, *threads, near = sch.split(whole, [None, *counts.values(), lanes])
    for v, index in zip(threads, counts):
        sch.bind(v, index)
    if lanes > 1:
        sch.vectorize(near)
