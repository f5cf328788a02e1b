"""The default schedule of products and other reductions whose last output axis is contiguous in memory.

Matrix products, convolutions over NHWC images, pooling, sums over leading axes: each output tile stays in vector registers
while the reduction runs, and what follows (bias, activation, residual) happens in its write-back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from ....analysis.regions import consumers, writes
from ....dtype import DType
from ....ir.arith import divisors, linear, loop_range, simplify
from ....ir.expr import Const, Expr, Var
from ....ir.index_map import IndexMap
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars, int_of
from ....ir.stmt import Block
from ....ir.tensor_intrin import dot_shape, tensor_intrin
from ....target import CpuTarget
from ...library import (
    accumulate_dots,
    accumulate_tile,
    domain_size,
    fuse_all,
    inline_elementwise,
    is_output,
    loaded,
    pack_operand,
    spatial_loops,
    steps_along,
    tile_write_back,
    unroll_and_vectorize,
    vectorize_innermost,
    vectorize_run,
)
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from .common import Work, keep_local, reductions
from .panels import dot_dtypes, dot_instruction, fills_panels, packed_operand, panels_of
from .tiles import Tile, choose_tile, rows_of_all_tiles, rows_within, spread, tile_cycles

NAME = "tiled reduction"

MIN_ROW_TILES = 4
"""Tiles of rows that a panel must serve to be worth its copy, or for its weights to be there in time by being fetched bit by bit meanwhile."""
SHORT, WIDE, USUAL = 32, 10, 8
"""Sums of fewer elements than SHORT are bound by their results, which tiles of few rows and up to WIDE vectors write in order;
others have at most USUAL vectors."""
FEW_ROWS = 8
"""Rows of the result up to which a panel is read once, so that it need not stay in L2."""
PACKED_ROWS, PACKED_BYTES = 128, 1024
"""An operand of at least so many rows, each so long, spans more pages than the first translation buffer holds."""
MOST_UNROLLED = 320
"""Multiply-adds that the innermost loops may have, those of tiles at the edges included."""
UNROLL = 4
"""Steps of the innermost reduction between two tests of its loop."""


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    names = reductions(func)
    if len(names) != 1:
        return False
    block = func.blocks[names[0]]
    return (
        domain_size(block) is not None
        and len(writes(block)) == 1
        and _vectorizes(block)
        and _epilogue_fits(func, block)
    )


def _spatial(block: Block) -> list[Var]:
    return [it.var for it in block.spatial]


def _vectorizes(block: Block) -> bool:
    """Whether neighbours along the last spatial axis are neighbours in every operand, or share the element."""
    spatial = _spatial(block)
    if not spatial:
        return False
    last = spatial[-1]
    extent = next(it.extent for it in block.iters if it.var is last)
    if not isinstance(extent, Const) or extent.value < 4:
        return False
    packed = packed_operand(block)
    for buffer, indices in loaded(block):
        if buffer is packed:
            continue
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


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a product or another reduction.

    Attributes:
        extents: of the result, columns last; without the axis over groups, where there is one.
        depth: elements that are summed up for each result; last_depth: extent of the innermost of their axes.
        itemsize: bytes of an accumulator.
        weight_bytes: of the operands that vary along the columns, in all groups; groups: 0 where there is no axis over them.
        row_bytes: for each operand that does not, how far apart two rows are that follow each other in the result.
        panel: columns of a panel of a packed weight; 0 where it lies as a matrix does, None where the plan may choose.
        makes_panels: a block of the kernel packs them.
        is_padded: other blocks make an operand, with its border.
        packable: (name, rows, bytes of a row) of operands that could be copied panel by panel.
        dtypes: of the two operands of a product, the packed one last; whole_columns: what follows reads each column at its place.
        work: of the kernel.
    """

    extents: tuple[int, ...]
    depth: int
    itemsize: int
    weight_bytes: int
    work: Work
    last_depth: int = 1
    groups: int = 0
    row_bytes: tuple[int, ...] = ()
    panel: int | None = 0
    makes_panels: bool = False
    is_padded: bool = False
    packable: tuple[tuple[str, int, int], ...] = ()
    dtypes: tuple[DType, DType] | None = None
    whole_columns: bool = True


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies, elementwise stages inlined."""
    acc = reductions(func)[0]
    block, sch = func.blocks[acc], Schedule(func)
    made = [b.name for b in func.blocks.values() if not b.is_reduction and not is_output(func, b)]
    follows = [] if is_output(func, block) else [consumers(func, writes(block)[0])[0]]
    panels, groups, last = panels_of(block), _groups(func, block), _spatial(block)[-1]
    packing = [name for name in made if panels and fills_panels(func, acc, name)]
    padded = [n for n in made if n not in packing and n not in [b.name for b in follows]]
    columns = next(int_of(it.extent) for it in block.iters if it.var is last)
    reduced = [int_of(it.extent) for it in block.reduce]
    result = writes(block)[0]
    own = [b.iters[-1].var for b in follows if b.iters]
    read = [(i, v) for b, v in zip(follows, own) for buffer, i in loaded(b) if buffer is result]
    return Problem(
        extents=tuple(int_of(it.extent) for it in block.spatial)[1 if groups else 0 :],
        depth=prod(reduced),
        itemsize=max(b.dtype.itemsize for b in writes(block)),
        weight_bytes=_weight_bytes(block),
        work=Work.of(func),
        last_depth=reduced[-1] if reduced else 1,
        groups=groups,
        row_bytes=_row_bytes(sch, acc),
        panel=0 if panels is None else panels.width,
        makes_panels=bool(packing),
        is_padded=bool(padded),
        packable=tuple(
            (buffer.name, prod(as_int(e, 0) for e in buffer.shape[:-1]), columns * buffer.dtype.itemsize)
            for buffer, indices in loaded(block)
            if indices and indices[-1] is last
        ),
        dtypes=dot_dtypes(block),
        whole_columns=all(_follows_last(i, v) for i, v in read),
    )


def _follows_last(indices: Sequence[Expr], v: Var) -> bool:
    """Whether the last index goes along with a variable."""
    return bool(indices) and v in free_vars(indices[-1])


Order = Literal["rows first", "columns first", "panel by panel", "image rows"]


WhenPacked = Literal["", "panel by panel", "beforehand", "beforehand, in parallel"]


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a reduction is tiled."""

    rows: tuple[int, ...] = decision(
        "rows of a register tile along each axis before the last", lambda p, t: _legal_rows(p, t)
    )
    vectors: int = decision("vectors of a register tile along the last axis", lambda p, t: _vectors(p, t))
    lanes: int = decision("elements of a vector", lambda p, t: _lanes(p, t))
    order: Order = decision("order of the loops over tiles", lambda p, t: _orders(p))
    parallel: bool = decision("run the outermost loop on all cores", yes_or_no)
    copy: Literal["", "row by row", "at once"] = decision(
        "when a padded operand is copied with its border",
        lambda p, t: ("row by row", "at once") if p.is_padded else ("",),
    )
    pack: str = decision(
        "the operand copied into contiguous panels meanwhile", lambda p, t: ("", *(name for name, _, _ in p.packable))
    )
    panels: WhenPacked = decision(
        "when the kernel packs an operand that varies",
        lambda p, t: ("panel by panel", "beforehand", "beforehand, in parallel") if p.makes_panels else ("",),
    )
    dot: str = decision("the instruction that sums up products", lambda p, t: ("", *_dots(p, t)))
    unroll: int = decision("steps of the innermost reduction at a time", lambda p, t: divisors(p.last_depth, 16))
    prefetch: int = decision(
        "iterations ahead for which weights are fetched; 0 for none",
        lambda p, t: range(1 + ceil(t.costs.prefetch_cycles / UNROLL)),
    )
    row_block: int = decision(
        "row tiles of a cache block, which passes all panels before the next block does; 0 for no blocking (columns first only)",
        lambda p, t: range(prod(p.extents[:-1]) + 1),
    )
    next_panel: int = decision(
        "tiles of rows that a panel passes, each of which fetches its share of the next panel; 0 for none",
        lambda p, t: range(prod(p.extents[:-1]) + 1),
    )


def _legal_rows(p: Problem, target: CpuTarget) -> Sequence[tuple[int, ...]]:
    """Rows taken from the innermost axis first."""
    shapes = (spread(list(p.extents[:-1]) or [1], r) for r in range(1, target.num_registers - 2))
    return tuple(rows for rows in shapes if rows is not None)


def _lanes(p: Problem, target: CpuTarget) -> Sequence[int]:
    lanes = target.lanes(p.itemsize)
    return (lanes if p.panel is None else min(lanes, p.extents[-1]),)


def _orders(p: Problem) -> Sequence[Order]:
    """Rows of an image need an axis before the last two, and panels that are packed meanwhile need the columns outside."""
    plain: Sequence[Order] = ("rows first", "columns first", "panel by panel")
    return (*plain, "image rows") if not p.makes_panels and len(p.extents) + bool(p.groups) > 2 else plain


def _dots(p: Problem, target: CpuTarget) -> Sequence[str]:
    found = dot_instruction(target, *p.dtypes) if p.dtypes is not None else None
    return () if found is None else (found[0],)


def _vectors(p: Problem, target: CpuTarget) -> Sequence[int]:
    """Vectors of a register tile to choose from: what a packed panel holds. Where several rows of tiles read a panel that is yet
    to be packed, it must stay in L2 meanwhile, with some room for the rest."""
    lanes = target.lanes(p.itemsize)
    if p.panel is not None:
        return range(1, USUAL + 1) if not p.panel or p.panel % lanes else (p.panel // lanes,)
    columns, row = ceil(p.extents[-1] / lanes), p.weight_bytes // p.extents[-1]
    most = USUAL if prod(p.extents[:-1]) <= FEW_ROWS else target.l2_bytes_per_core * 4 // 5 // (row * lanes)
    return range(1, max(1, min(WIDE if p.depth < SHORT else USUAL, columns, most)) + 1)


def plan(p: Problem, target: CpuTarget) -> TilePlan:
    """Tile sizes come from `choose_tile`; a packed weight has fixed the columns already.

    A padded input is copied, with its border, for the rows at hand; all of it at once where the weights do not fit L2, so that
    they pass once. Whole rows of the result are written one after another where what varies along them stays in cache.
    """
    lanes = target.lanes(p.itemsize)
    extents, beyond_l2 = _tiled_extents(p, target), _is_beyond_l2(p, target)
    most = min((rows_within(b, target) for b in p.row_bytes), default=64)
    tile = choose_tile(extents, lanes, target, _vectors(p, target), most, p.depth, beyond_l2)
    parallel = p.work.is_worth_threads(target)
    at_once = p.is_padded and beyond_l2
    pack = "" if p.panel or (p.is_padded and not at_once) else _panel_to_pack(p, tile, target)
    fits = p.weight_bytes <= target.l1_bytes // 2
    result_bytes = prod(p.extents) * target.vector_bytes // lanes
    passing = max([result_bytes, *(prod(p.extents[:-1]) * b for b in p.row_bytes)])
    whole_rows = fits or (not beyond_l2 and passing > target.l2_bytes_per_core // 2)
    packed_here = bool(pack) or (p.makes_panels and not whole_rows)
    dot = _dots(p, target) if p.whole_columns and p.extents[-1] >= tile.vectors * tile.lanes else ()
    unroll = UNROLL if not dot and p.last_depth > UNROLL and p.last_depth % UNROLL == 0 else 1
    panels: WhenPacked = (
        "panel by panel" if packed_here else "beforehand" if fits or not parallel else "beforehand, in parallel"
    )
    order = _order(p, at_once, packed_here, whole_rows)
    row_tiles = prod(ceil(e / r) for e, r in zip(p.extents[:-1], tile.rows))
    block = _row_block(p, tile, target) if order == "columns first" and not p.groups else 0
    in_panels = bool(p.panel) and unroll > 1
    # Even a weight that L2 could hold comes from beyond it: in a whole model, others were read since.
    shared = (
        in_panels and p.weight_bytes > target.l1_bytes and order == "columns first" and not p.groups and row_tiles > 1
    )
    few = row_tiles < MIN_ROW_TILES  # they leave little time between a panel's first use and the next panel's
    return TilePlan(
        tile.rows, tile.vectors, tile.lanes, order=order, parallel=parallel,
        copy="" if not p.is_padded else "at once" if at_once else "row by row",
        pack=pack, panels=panels if p.makes_panels else "", dot=next(iter(dot), ""), unroll=unroll,
        prefetch=_ahead(tile, target) if in_panels and beyond_l2 and (few or not shared) else 0,
        row_block=block, next_panel=(block or row_tiles) if shared else 0,
    )  # fmt: skip


def cost(p: Problem, plan: TilePlan, target: CpuTarget) -> float:
    """How long a plan's tiles take, to compare plans by (see `tile_cycles`); infinite where they do not fit the registers, or unrolling would make
    code that takes long to compile and does not stay in the cache of instructions."""
    tile = Tile(plan.rows, plan.vectors, plan.lanes)
    if rows_of_all_tiles(p.extents[:-1], plan.rows) * plan.vectors * plan.unroll > MOST_UNROLLED:
        return float("inf")
    return tile_cycles(_tiled_extents(p, target), tile, target, p.depth, _is_beyond_l2(p, target))


def _tiled_extents(p: Problem, target: CpuTarget) -> list[int]:
    lanes = target.lanes(p.itemsize)
    return [*p.extents[:-1], p.extents[-1] if p.panel is not None else ceil(p.extents[-1] / lanes) * lanes]


def _is_beyond_l2(p: Problem, target: CpuTarget) -> bool:
    return p.weight_bytes // max(p.groups, 1) > target.l2_bytes_per_core // 2


def _order(p: Problem, at_once: bool, packed_here: bool, whole_rows: bool) -> Order:
    if p.is_padded and not at_once and len(p.extents) + bool(p.groups) > 2:
        return "image rows"
    return "panel by panel" if packed_here else "rows first" if whole_rows else "columns first"


def _row_block(p: Problem, tile: Tile, target: CpuTarget) -> int:
    """Row tiles of a cache block, whose rows of the other operand take a quarter of L2, beside two panels; 0 for no blocking.

    Unblocked, each panel reads all rows again; blocked, each block reads all panels again. So blocks pay where rows do not stay in L2, and
    one has more rows than a register tile has columns, with a margin of two. (Goto and van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008.)
    """
    l2, row_bytes = target.l2_bytes_per_core, max(sum(p.row_bytes), 1)
    rows, tiles = prod(p.extents[:-1]), prod(ceil(e / r) for e, r in zip(p.extents[:-1], tile.rows))
    panel = p.depth * tile.vectors * target.vector_bytes
    block_rows = min(l2 // 4, l2 * 3 // 4 - 2 * panel) // row_bytes
    most = block_rows // prod(tile.rows)
    is_resident = rows * row_bytes <= l2 // 2
    if not p.panel or is_resident or block_rows < 2 * tile.vectors * tile.lanes or not MIN_ROW_TILES <= most < tiles:
        return 0
    return ceil(tiles / ceil(tiles / most))


def _ahead(tile: Tile, target: CpuTarget) -> int:
    """How many iterations ahead far weights are asked for; 0 for a stream steady enough for the hardware prefetcher. An iteration takes as long as its
    multiply-adds, or as its weights take to arrive in order."""
    cycles = prod(tile.rows) * tile.vectors / target.fma_ports
    waits = tile.vectors * target.vector_bytes / target.costs.far_bytes
    return ceil(target.costs.prefetch_cycles / (UNROLL * max(cycles, waits, 1))) if cycles >= waits / 4 else 0


def _panel_to_pack(p: Problem, tile: Tile, target: CpuTarget) -> str:
    """The operand whose panel should be copied into contiguous memory for each column of tiles, if any.

    It pays where the operand's rows lie far apart, one tile's share of it spans more pages than the first translation
    buffer holds, the copy serves at least MIN_ROW_TILES rows of tiles, and there are columns of tiles for all cores.
    """
    columns = ceil(p.extents[-1] / (tile.vectors * tile.lanes))
    row_tiles = prod(ceil(e / r) for e, r in zip(p.extents[:-1], tile.rows))
    if columns < target.num_cores or row_tiles < MIN_ROW_TILES:
        return ""
    return next((n for n, rows, nbytes in p.packable if rows >= PACKED_ROWS and nbytes >= PACKED_BYTES), "")


def apply(sch: Schedule, plan: TilePlan) -> None:
    """Tile the write-back for the register file; compute the reduction per tile, unrolled over the tile's rows."""
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    groups = _groups(sch.func, sch.func.blocks[acc])
    made = [b.name for b in sch.func.blocks.values() if not b.is_reduction and not is_output(sch.func, b)]
    packing = [name for name in made if plan.panels and fills_panels(sch.func, acc, name)]
    epilogue = keep_local(sch, acc)
    padded = [name for name in made if name not in packing and name != epilogue]
    first = _groups_outside(sch, epilogue, groups) if groups else []
    outer, inner = tile_write_back(sch, epilogue, plan.rows, plan.vectors, plan.lanes, len(first))
    columns = outer[-1]
    site, depth = _place_outer(sch, [*first, *outer], plan)
    sch.compute_at(acc, site)
    if plan.pack:
        pack_operand(sch, acc, plan.pack, columns, plan.lanes)
    for name in packing:
        if plan.panels == "panel by panel":
            sch.compute_at(name, sch.get_loops(acc)[0])
        elif plan.panels == "beforehand, in parallel":
            sch.parallel(sch.get_loops(name)[0])
        vectorize_innermost(sch, name, plan.lanes, 1)
    for name in padded:
        _copy_padded(sch, name, acc, plan)
    if plan.dot:
        intrin = tensor_intrin(plan.dot)
        assert intrin is not None
        shape = dot_shape(intrin)
        assert shape is not None
        accumulate_dots(sch, acc, depth, plan.vectors, plan.lanes, plan.dot, shape[1])
        unroll_and_vectorize(sch, inner)
        return
    reduce = accumulate_tile(sch, acc, depth, plan.vectors, plan.lanes)
    unroll_and_vectorize(sch, inner)
    if plan.unroll > 1:
        steps, step = sch.split(reduce[-1], [None, plan.unroll])
        sch.unroll(step)
        if plan.prefetch:
            sch.pragma(steps, "prefetch", plan.prefetch)
        if plan.next_panel:
            sch.pragma(steps, "prefetch_next", plan.next_panel)


def _copy_padded(sch: Schedule, name: str, acc: str, plan: TilePlan) -> None:
    """Copy an operand with its border: for the rows at hand, or all of it beforehand."""
    if plan.copy == "at once":
        row = fuse_all(sch, sch.get_loops(name)[:-1])
        if row is not None and plan.parallel:
            sch.parallel(row)
    else:
        sch.compute_at(name, sch.get_loops(acc)[0])
    vectorize_run(sch, name, plan.lanes, 1)


def _place_outer(sch: Schedule, outer: list[Var], plan: TilePlan) -> tuple[Var, int]:
    """Order and parallelize the loops over tiles; returns the innermost, and how many there are now."""
    if plan.order == "image rows":
        rows = fuse_all(sch, outer[:-2])
        assert rows is not None
        if plan.parallel:
            sch.parallel(rows)
        return outer[-1], 3
    if len(outer) > 1 and plan.order != "rows first":
        # the last axis outermost: the operand that varies along it stays in cache while all rows pass
        sch.reorder(outer[-1], *outer[:-1])
        outer = [outer[-1], *outer[:-1]]
    if plan.order == "panel by panel":
        if plan.parallel:
            sch.parallel(outer[0])
        return outer[-1], len(outer)
    if plan.row_block and plan.order == "columns first" and len(outer) > 1:
        rows = fuse_all(sch, outer[1:])
        assert rows is not None
        parts, row = sch.split(rows, [None, plan.row_block])
        sch.reorder(parts, outer[0], row)
        outer = [parts, outer[0], row]
    site = fuse_all(sch, outer)
    assert site is not None
    if plan.parallel:
        sch.parallel(site)
    return site, 1


def _groups_outside(sch: Schedule, write: str, groups: int) -> list[Var]:
    """Give a write-back an axis over the groups of its channels, outermost."""
    iters = sch.func.blocks[write].iters
    *others, channel = [Var(it.var.name) for it in iters]
    per_group = int_of(iters[-1].extent) // groups
    split = IndexMap((*others, channel), (channel // per_group, *others, channel % per_group))
    return sch.transform_block_layout(write, split)[:1]


def _row_bytes(sch: Schedule, acc: str) -> tuple[int, ...]:
    """Bytes from a row to the next of the operands that are read row by row."""
    loops = spatial_loops(sch, acc)
    if len(loops) < 2:
        return ()
    fixed = [b for b, step in steps_along(sch, acc, loops[-1]).items() if step == 0]
    steps = steps_along(sch, acc, loops[-2])
    return tuple((steps[b] or 1) * b.dtype.itemsize for b in fixed)


def _weight_bytes(block: Block) -> int:
    """Bytes of the operands that vary along the last axis."""
    last = _spatial(block)[-1]
    weights = {b for b, indices in loaded(block) if any(last in free_vars(i) for i in indices)}
    return sum(prod(as_int(e, 0) for e in b.shape) * b.dtype.itemsize for b in weights)
