"""The default schedule of products and other reductions whose last output axis is contiguous in memory.

Matrix products, convolutions over NHWC images, pooling, sums over leading axes: each output tile stays in vector registers
while the reduction runs, and what follows (bias, activation, residual) happens in its write-back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from ....analysis.regions import consumers, writes
from ....dtype import DType
from ....ir.arith import linear, loop_range, simplify
from ....ir.expr import Const, Expr, FloorDiv, FloorMod, Var
from ....ir.index_map import IndexMap
from ....ir.primfunc import PrimFunc
from ....ir.query import free_vars
from ....ir.stmt import Block
from ....ir.tensor_intrin import dot_shape, tensor_intrin, tensor_intrins
from ....target import Target
from ...library import (
    accumulate_dots,
    accumulate_tile,
    fuse_all,
    inline_elementwise,
    is_output,
    loaded,
    pack_operand,
    points,
    reduce_loops,
    spatial_loops,
    steps_along,
    tile_write_back,
    unroll_and_vectorize,
    vectorize_innermost,
    vectorize_run,
)
from ...schedule import Schedule
from .common import is_worth_threads, keep_local, reductions
from .tiles import FAR_BYTES, Tile, choose_tile, rows_within

NAME = "tiled reduction"

MIN_ROW_TILES = 4
"""Tiles of rows that a packed panel must serve to be worth its copy."""
PREFETCH = 400
"""Cycles that an element of the weights may be on its way."""
SHORT, WIDE = 32, 10
"""Sums of fewer elements than SHORT are bound by their results, which tiles of few rows and up to WIDE vectors write in order."""
UNROLL = 4
"""Steps of the innermost reduction between two tests of its loop."""


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
        if panel_width(indices, last) is not None:
            continue
        for position, index in enumerate(reversed(indices)):
            if last in free_vars(index) and (position > 0 or linear(index).terms.get(last) != 1):
                return False
    return True


def panel_width(indices: tuple[Expr, ...], last: Var) -> int | None:
    """The width of the panels of a packed operand, read as [last // width, ..., last % width]; None of another one."""
    if not indices or not isinstance(indices[0], FloorDiv) or indices[0].a is not last:
        return None
    panel, inner = indices[0], [i for i in indices[1:] if last in free_vars(i)]
    if len(inner) != 1 or not isinstance(inner[0], FloorMod) or inner[0].a is not last:
        return None
    # the columns of a panel lie side by side, or groups of rows of each do
    own = next(n for n, i in enumerate(indices) if i is inner[0])
    if len(indices) - own > 2 or (len(indices) - own == 2 and not isinstance(indices[-1], FloorMod)):
        return None
    return int(panel.b.value) if isinstance(panel.b, Const) and panel.b == inner[0].b else None


def dot_instruction(target: Target, a: DType, b: DType) -> tuple[str, int] | None:
    """The instruction that sums up several products of two operands in each lane of a vector, and how many; None of none."""
    for name in tensor_intrins():
        intrin = tensor_intrin(name)
        assert intrin is not None
        shape = dot_shape(intrin)
        if shape is not None and shape[2:] == (a, b) and target.has(intrin.feature):
            lanes, group = shape[:2]
            return (name, group) if lanes == target.lanes(a.accumulator.itemsize) else None
    return None


def group_for(target: Target, a: DType, b: DType) -> int:
    """Products that are summed up at once: those of an instruction, else one."""
    found = dot_instruction(target, a, b)
    return 1 if found is None else found[1]


def _epilogue_fits(func: PrimFunc, block: Block) -> bool:
    """Whether what follows the reduction is one elementwise block over the same axes (or nothing)."""
    if is_output(func, block):
        return True
    users = consumers(func, writes(block)[0])
    if len(users) != 1 or not is_output(func, users[0]) or len(writes(users[0])) != 1:
        return len(users) == 1 and not users[0].is_reduction and len(func.outputs) == 1
    axes = len(_spatial(block)) - (1 if _groups(func, block) else 0)
    return len(users[0].iters) == axes and len(func.outputs) == 1


def _groups(func: PrimFunc, block: Block) -> int:
    """How many groups of channels the first axis of a reduction counts, which what follows puts side by side; 0 where it does
    not read them so."""
    users, (buffer,) = consumers(func, writes(block)[0]), writes(block)
    if not users or len(users[0].iters) != len(buffer.shape) - 1:
        return 0
    iters, groups = users[0].iters, buffer.shape[0]
    *outer, channel = [it.var for it in iters]
    env = {it.var: loop_range(it.extent) for it in iters}

    def plain(indices: Sequence[Expr]) -> list[Expr]:
        return [simplify(i, env) for i in indices]

    extent = iters[-1].extent
    if not isinstance(groups, Const) or not isinstance(extent, Const) or extent.value % groups.value:
        return 0
    per_group = extent.value // groups.value
    wanted = plain([channel // per_group, *outer, channel % per_group])
    read = [plain(indices) for b, indices in loaded(users[0]) if b is buffer]
    return int(groups.value) if groups.value > 1 and all(indices == wanted for indices in read) else 0


def width_for(target: Target, extents: Sequence[int], weight: tuple[int, ...], dtype: DType) -> int:
    """Columns of a panel of a constant weight: those of the register tile that `apply` will choose.

    Where several rows of tiles read a panel, it must stay in the second cache meanwhile, with some room for the rest.

    Args:
        extents: of the result, columns last; weight: extents of the weight, columns last.
    """
    lanes, itemsize = target.lanes(dtype.accumulator.itemsize), dtype.itemsize
    columns = ceil(extents[-1] / lanes)
    most = 8 if prod(extents[:-1]) <= 8 else target.l2_bytes_per_core * 4 // 5 // (prod(weight[:-1]) * lanes * itemsize)
    depth, nbytes = prod(weight[:-1]), prod(weight) * itemsize
    widest = WIDE if depth < SHORT else 8
    choice = range(1, max(1, min(widest, columns, most)) + 1)
    tile = choose_tile(
        [*extents[:-1], columns * lanes], lanes, target, choice, rows_within(weight[-2] * itemsize, target), depth,
        is_far(nbytes, target),
    )  # fmt: skip
    return tile.vectors * lanes


def is_far(nbytes: int, target: Target) -> bool:
    """Whether weights of that size come from beyond the second cache."""
    return nbytes > target.l2_bytes_per_core // 2


def width_inside(target: Target, extents: Sequence[int], weight: tuple[int, ...], dtype: DType) -> int:
    """Columns of the panels into which a kernel packs an operand that varies; 0 where that does not pay.

    It pays where the copy serves at least MIN_ROW_TILES tiles of rows, and there are columns of tiles for all cores.
    """
    width = width_for(target, extents, weight, dtype)
    rows = target.num_registers * target.lanes(dtype.accumulator.itemsize) // width
    enough = extents[0] >= MIN_ROW_TILES * min(rows, extents[0]) and ceil(extents[1] / width) >= target.num_cores
    return width if enough and extents[0] > rows else 0


def apply(sch: Schedule, target: Target) -> None:
    """Tile the write-back for the register file; compute the reduction per tile, unrolled over the tile's rows.

    Tile sizes come from `choose_tile`; a packed weight has fixed the columns already. A padded input is copied, with its
    border, for the rows at hand; all of it at once where the weights do not fit the second cache, so that they pass once.
    """
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    block = sch.func.blocks[acc]
    groups = _groups(sch.func, block)
    extents = [it.extent.value for it in block.iters if it.kind == "spatial"][1 if groups else 0 :]
    lanes = target.lanes(max(b.dtype.itemsize for b in writes(block)))
    width = _packed_width(block)
    columns = range(1, 9) if width is None or width % lanes else (width // lanes,)
    length = prod(it.extent.value for it in block.iters if it.kind == "reduce")
    far = is_far(_weight_bytes(block) // max(groups, 1), target)
    tile = choose_tile(extents, lanes, target, columns, _max_rows(sch, acc, target), length, far)
    padded = [b.name for b in sch.func.blocks.values() if not b.is_reduction and not is_output(sch.func, b)]
    epilogue = keep_local(sch, acc)
    packing = [name for name in padded if width and name != epilogue and _fills_panels(sch, acc, name)]
    padded = [name for name in padded if name != epilogue and name not in packing]
    first = _groups_outside(sch, epilogue, groups) if groups else []
    outer, inner = tile_write_back(sch, epilogue, tile.rows, tile.vectors, tile.lanes, len(first))
    outer = [*first, *outer]
    at_once = bool(padded) and far
    panel = None if (padded and not at_once) or width else _panel_to_pack(sch, acc, tile, extents, target)
    fits = _weight_bytes(block) <= target.l1_bytes // 2
    whole_rows = fits or (not far and prod(extents) * target.vector_bytes // lanes > target.l2_bytes_per_core // 2)
    packed_here = panel is not None or (bool(packing) and not whole_rows)
    site, depth = _place_outer(sch, outer, bool(padded) and not at_once, packed_here, whole_rows, target)
    sch.compute_at(acc, site)
    if panel is not None:
        pack_operand(sch, acc, panel, outer[-1], tile.lanes)
    for name in packing:  # once for all, before everything else, where whole rows are written
        if packed_here:
            sch.compute_at(name, sch.get_loops(acc)[0])
        elif not fits and is_worth_threads(sch.func, target.num_cores):
            sch.parallel(sch.get_loops(name)[0])
        vectorize_innermost(sch, name, tile.lanes, 1)
    for name in padded:
        if at_once:
            row = fuse_all(sch, sch.get_loops(name)[:-1])
            if row is not None and is_worth_threads(sch.func, target.num_cores):
                sch.parallel(row)
        else:
            sch.compute_at(name, sch.get_loops(acc)[0])
        vectorize_run(sch, name, tile.lanes, 1)
    dot = _dot_of(sch, acc, target)
    if dot is not None and _fills_lanes(sch, acc, depth, tile.vectors * tile.lanes):
        accumulate_dots(sch, acc, depth, tile.vectors, tile.lanes, *dot)
        unroll_and_vectorize(sch, inner)
        return
    reduce = accumulate_tile(sch, acc, depth, tile.vectors, tile.lanes)
    unroll_and_vectorize(sch, inner)
    if reduce:
        _unroll_steps(sch, reduce[-1], _ahead(tile, target) if far and width else 0)


def _unroll_steps(sch: Schedule, loop: Var, ahead: int) -> None:
    """Unroll some steps of the innermost reduction, where that comes out even; ask for its operands so many iterations ahead."""
    steps = sch.get_extent(loop)
    if not isinstance(steps, int) or steps <= UNROLL or steps % UNROLL:
        return
    outer, step = sch.split(loop, [None, UNROLL])
    sch.unroll(step)
    if ahead:
        sch.pragma(outer, "prefetch", ahead)


def _ahead(tile: Tile, target: Target) -> int:
    """How many iterations ahead far weights are asked for; 0 where they are read without pause, which the hardware foresees."""
    cycles = prod(tile.rows) * tile.vectors / target.fma_ports
    waits = tile.vectors * target.vector_bytes / FAR_BYTES
    return ceil(PREFETCH / (UNROLL * cycles)) if cycles >= waits / 2 else 0


def _groups_outside(sch: Schedule, write: str, groups: int) -> list[Var]:
    """Give a write-back an axis over the groups of its channels, outermost."""
    iters = sch.func.blocks[write].iters
    *others, channel = [Var(it.var.name) for it in iters]
    per_group = iters[-1].extent.value // groups
    split = IndexMap((*others, channel), (channel // per_group, *others, channel % per_group))
    return sch.transform_block_layout(write, split)[:1]


def _dot_of(sch: Schedule, acc: str, target: Target) -> tuple[str, int] | None:
    """The dot product instruction for a product whose weight is packed in groups for one."""
    block = sch.func.blocks[acc]
    last = _spatial(block)[-1]
    operands = loaded(block)
    packed = [b for b, i in operands if panel_width(i, last) and last not in free_vars(i[-1])]
    others = [b for b, _ in operands if b not in packed]
    if len(packed) != 1 or len(others) != 1:
        return None
    return dot_instruction(target, others[0].dtype, packed[0].dtype)


def _fills_lanes(sch: Schedule, acc: str, depth: int, count: int) -> bool:
    """Whether the innermost spatial loop of a tile has as many iterations as its vectors have lanes: not so where what follows reads
    a single column."""
    reducing = set(reduce_loops(sch, acc))
    inner = [v for v in sch.get_loops(acc)[depth:] if v not in reducing]
    return bool(inner) and sch.get_extent(inner[-1]) == count


def _fills_panels(sch: Schedule, acc: str, name: str) -> bool:
    """Whether a block makes the panels that the reduction reads."""
    block = sch.func.blocks[acc]
    last = _spatial(block)[-1]
    made = writes(sch.func.blocks[name])
    return any(buffer in made and panel_width(indices, last) for buffer, indices in loaded(block))


def _max_rows(sch: Schedule, acc: str, target: Target) -> int:
    """The most rows of a tile, so that the lines of the operand which is read row by row stay in the first cache."""
    loops = spatial_loops(sch, acc)
    if len(loops) < 2:
        return 64
    fixed = [b for b, step in steps_along(sch, acc, loops[-1]).items() if step == 0]
    steps = steps_along(sch, acc, loops[-2])
    return min((rows_within((steps[b] or 1) * b.dtype.itemsize, target) for b in fixed), default=64)


def _packed_width(block: Block) -> int | None:
    last = _spatial(block)[-1]
    return next((w for _, i in loaded(block) if (w := panel_width(i, last)) is not None), None)


def _weight_bytes(block: Block) -> int:
    """Bytes of the operands that vary along the last axis."""
    last = _spatial(block)[-1]
    weights = {b for b, indices in loaded(block) if any(last in free_vars(i) for i in indices)}
    return sum(prod(getattr(e, "value", 0) for e in b.shape) * b.dtype.itemsize for b in weights)


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


def _place_outer(
    sch: Schedule, outer: list[Var], padded: bool, packed: bool, whole_rows: bool, target: Target
) -> tuple[Var, int]:
    """Order and parallelize the loops over tiles; returns the innermost, and how many there are now.

    Args:
        padded: the padded input is copied for each row; packed: an operand is packed for each column of tiles; whole_rows: the
            rows of the result are written whole, one after another, while what varies along the last axis stays in cache.
    """
    is_big = is_worth_threads(sch.func, target.num_cores)
    if padded and len(outer) > 2:
        rows = fuse_all(sch, outer[:-2])
        assert rows is not None
        if is_big:
            sch.parallel(rows)
        return outer[-1], 3
    if len(outer) > 1 and (packed or not whole_rows):
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
