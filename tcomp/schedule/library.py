"""Scheduling functions that are put together from primitives, for users and for the default rules.

Each is a few lines over Schedule's public methods: read one, copy it, change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul

from ..analysis.regions import accesses, consumers, loop_env, loops_around, resolve, writes
from ..errors import ScheduleError
from ..ir.arith import dims_env, linear, simplify
from ..ir.expr import Add, Buffer, Call, Expr, Max, Min, Var, const
from ..ir.node import walk
from ..ir.primfunc import PrimFunc
from ..ir.query import as_int, free_vars, is_const
from ..ir.stmt import Block, Store
from ..ir.tensor_intrin import across
from .primitives import BlockRef
from .schedule import Schedule

_COSTLY = {
    "exp",
    "exp2",
    "log",
    "log1p",
    "tanh",
    "erf",
    "gelu",
    "pow",
    "sigmoid",
    "sin",
    "cos",
    "atan",
    "fmod",
    "philox",
}


def name_of(block: BlockRef | str) -> str:
    """A block's name, of its handle or of itself."""
    return block if isinstance(block, str) else block.name


# loops


def fuse_all(sch: Schedule, loops: Sequence[Var]) -> Var | None:
    """One loop of several nested ones; None of none."""
    if not loops:
        return None
    return loops[0] if len(loops) == 1 else sch.fuse(*loops)


def parallel_outer(sch: Schedule, block: BlockRef | str, count: int = 1) -> Var | None:
    """Fuse the outermost loops of a block and run them in parallel; returns the loop, None where there is none."""
    loop = fuse_all(sch, sch.get_loops(block)[:count])
    if loop is not None:
        sch.parallel(loop)
    return loop


def tile_2d(sch: Schedule, block: BlockRef | str, i_factor: int, j_factor: int) -> tuple[Var, Var, Var, Var]:
    """Tile the last two spatial loops of a block: returns (i outer, j outer, i inner, j inner).

    Raises:
        ScheduleError: the block has fewer than two spatial loops, or they are not nested directly.
    """
    spatial = spatial_loops(sch, block)
    if len(spatial) < 2:
        raise ScheduleError(f"cannot tile block {name_of(block)}", why=f"it has {len(spatial)} spatial loops, not two")
    return sch.tile(spatial[-2], spatial[-1], i_factor, j_factor)


def vectorize_innermost(sch: Schedule, block: BlockRef | str, lanes: int, depth: int = 0) -> Var | None:
    """Vectorize the innermost loop of a block, split to the vector width where it is longer.

    Args:
        depth: loops, counted from outside, that stay as they are.

    Returns:
        The vectorized loop; None where there is none, or it has one iteration.
    """
    loops = sch.get_loops(block)[depth:]
    if not loops:
        return None
    extent = sch.get_extent(loops[-1])
    if isinstance(extent, int) and extent < 2:
        return None
    inner = loops[-1] if isinstance(extent, int) and extent <= lanes else sch.split(loops[-1], [None, lanes])[1]
    sch.vectorize(inner)
    return inner


def vectorize_run(sch: Schedule, block: BlockRef | str, lanes: int, depth: int = 0) -> Var | None:
    """`vectorize_innermost` along the innermost two loops as one, where the innermost is shorter than a vector: three channels of a
    pixel and those of its neighbours lie side by side."""
    loops = sch.get_loops(block)[depth:]
    extent = sch.get_extent(loops[-1]) if loops else None
    if len(loops) > 1 and isinstance(extent, int) and extent < lanes and sch.why_not("fuse", *loops[-2:]) is None:
        sch.fuse(*loops[-2:])
    return vectorize_innermost(sch, block, lanes, depth)


def unroll_and_vectorize(sch: Schedule, loops: Sequence[Var]) -> None:
    """Unroll all loops but the last, which is vectorized: a tile of vectors."""
    for loop in loops[:-1]:
        sch.unroll(loop)
    if loops:
        sch.vectorize(loops[-1])


def multi_level_tile(
    sch: Schedule, block: BlockRef | str, factors: Sequence[Sequence[int | None]], structure: str
) -> list[list[Var]]:
    """Split every axis of a block into several levels, and order the levels.

    Args:
        factors: for each loop of the block, outermost first, its factors (one may be None): as many as the structure has
            levels of its kind.
        structure: the order of the levels, such as "SSRSRS": S for the spatial loops, R for those over reduce axes.

    Returns:
        The loops of each level, outermost level first.

    Raises:
        ScheduleError: the number of factors does not fit the structure, or a step is refused.
    """
    loops = sch.get_loops(block)
    reduce = set(loops) - set(spatial_loops(sch, block))
    if len(factors) != len(loops):
        raise ScheduleError("cannot tile in levels", why=f"{len(factors)} lists of factors for {len(loops)} loops")
    parts: dict[str, list[list[Var]]] = {"S": [], "R": []}
    for loop, fs in zip(loops, factors):
        kind = "R" if loop in reduce else "S"
        if len(fs) != structure.count(kind):
            why = (
                f"loop {loop.name} has {len(fs)} factors, the structure {structure} has {structure.count(kind)} levels"
            )
            raise ScheduleError("cannot tile in levels", why=why)
        parts[kind].append(sch.split(loop, list(fs)) if len(fs) > 1 else [loop])
    levels, seen = [], {"S": 0, "R": 0}
    for kind in structure:
        levels.append([axis[seen[kind]] for axis in parts[kind]])
        seen[kind] += 1
    sch.reorder(*(v for level in levels for v in level))
    return levels


def spatial_loops(sch: Schedule, block: BlockRef | str) -> list[Var]:
    """The loops that run over no reduce axis of a block, outermost first."""
    known = sch.func.blocks[name_of(block)]
    reduce = {v for it in known.reduce for v in free_vars(it.binding)}
    return [v for v in sch.get_loops(block) if v not in reduce]


def reduce_loops(sch: Schedule, block: BlockRef | str) -> list[Var]:
    """The loops over reduce axes of a block, outermost first."""
    spatial = set(spatial_loops(sch, block))
    return [v for v in sch.get_loops(block) if v not in spatial]


# placement


def is_output(func: PrimFunc, block: Block) -> bool:
    """Whether a block writes an output of the kernel."""
    return any(b in func.outputs for b in writes(block))


def is_costly(block: Block) -> bool:
    """Whether the block calls a function worth computing once."""
    return any(isinstance(e, Call) and e.op in _COSTLY for e in walk(block.body))


def inline_elementwise(sch: Schedule) -> None:
    """Inline every elementwise block where that computes nothing twice.

    Into other elementwise blocks always; into a reduction where that reads each element once.
    """
    for name in list(sch.func.blocks):
        block = sch.func.blocks[name]
        if (
            block.is_reduction
            or is_output(sch.func, block)
            or sch.why_not("compute_inline", BlockRef(name)) is not None
        ):
            continue
        users = [c for b in writes(block) for c in consumers(sch.func, b)]
        into_reduction = [c for c in users if c.is_reduction]
        if into_reduction and (len(users) > 1 or not _as_many_points(into_reduction[0], block)):
            continue
        if len(users) > 1 and is_costly(block):
            continue
        sch.compute_inline(name)


def _as_many_points(a: Block, b: Block) -> bool:
    """Whether two blocks run equally often, whatever symbolic extents are."""
    counts = [reduce(mul, (it.extent for it in block.iters), const(1)) for block in (a, b)]
    return is_const(simplify(counts[0] - counts[1]), 0)


def domain_size(block: Block) -> int | None:
    """Number of points of a block's domain; None where an extent is symbolic."""
    total = 1
    for it in block.iters:
        extent = as_int(it.extent)
        if extent is None:
            return None
        total *= extent
    return total


def overlap_tiles(sch: Schedule, block: BlockRef | str, i_factor: int, j_factor: int) -> tuple[Var, Var, Var, Var]:
    """Tile a stencil, and compute what each tile reads right before it, its border included.

    Border elements are computed again in the neighbouring tile: more arithmetic, less memory. Returns the loops of
    `tile_2d`.
    """
    loops = tile_2d(sch, block, i_factor, j_factor)
    pending = [r.name for r in sch.get_producers(block)]
    while pending:
        name = pending.pop(0)
        before = [r.name for r in sch.get_producers(name)]
        if sch.why_not("compute_at", BlockRef(name), loops[1]) is None:
            sch.compute_at(name, loops[1])
            pending += [n for n in before if n not in pending]
    return loops


def pack_operand(sch: Schedule, block: BlockRef | str, buffer: Buffer | str | int, loop: Var, lanes: int) -> BlockRef:
    """Copy the part of an operand that an iteration of a loop reads into contiguous memory, in vectors."""
    copy = sch.read_at(loop, block, buffer, "global")
    vectorize_innermost(sch, copy, lanes, sch.get_loops(copy).index(loop) + 1)
    return copy


# reductions


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """What `register_tile` made.

    Attributes:
        write: the block that writes the tile back.
        outer: the loops over tiles, outermost first.
        reduce: the loops over reduce axes.
        inner: rows, vectors and lanes of the write-back.
        depth: loops around the tile in the reduction's nest.
    """

    write: str
    outer: list[Var]
    reduce: list[Var]
    inner: list[Var]
    depth: int


def tile_write_back(
    sch: Schedule, write: BlockRef | str, rows: Sequence[int], vectors: int, lanes: int, depth: int = 0
) -> tuple[list[Var], list[Var]]:
    """Split the loops of a write-back into tiles of rows and of vectors; returns the outer and the inner loops.

    Args:
        rows: rows of a tile along the last axes before the innermost.
        depth: loops, counted from outside, that stay as they are.
    """
    loops = sch.get_loops(write)[depth:]
    outer: list[Var] = []
    inner: list[Var] = []
    whole = [1] * (len(loops) - 1 - len(rows)) + list(rows)
    for loop, r in zip(loops[:-1], whole):
        if r == 1:
            outer.append(loop)
        else:
            o, i = sch.split(loop, [None, r])
            outer.append(o)
            inner.append(i)
    last, vector, lane = sch.split(loops[-1], [None, vectors, lanes])
    outer.append(last)
    inner += [vector, lane]
    sch.reorder(*outer, *inner)
    return outer, inner


def accumulate_tile(sch: Schedule, block: BlockRef | str, depth: int, vectors: int, lanes: int) -> list[Var]:
    """Order a tile's reduction: reduce axes outside, rows and vectors unrolled, lanes innermost; its init before it.

    Args:
        depth: loops around the tile.

    Returns:
        The loops over reduce axes.
    """
    loops = sch.get_loops(block)[depth:]
    reduce = [v for v in loops if v in set(reduce_loops(sch, block))]
    spatial = [v for v in loops if v not in reduce]
    if spatial and vectors > 1:
        spatial = [*spatial[:-1], *sch.split(spatial[-1], [vectors, lanes])]
    if reduce:
        sch.reorder(*reduce, *spatial)
        init = sch.decompose_reduction(block, reduce[0])
        unroll_and_vectorize(sch, sch.get_loops(init)[depth:])
    unroll_and_vectorize(sch, spatial)
    return reduce


def accumulate_dots(
    sch: Schedule, block: BlockRef | str, depth: int, vectors: int, lanes: int, intrin: str, group: int
) -> list[Var]:
    """Order a tile's reduction as `accumulate_tile` does, by an instruction that sums up `group` products in each lane.

    Returns:
        The loops over reduce axes, without the group.
    """
    loops = sch.get_loops(block)[depth:]
    reduce = [v for v in loops if v in set(reduce_loops(sch, block))]
    spatial = [v for v in loops if v not in reduce]
    if vectors > 1:
        spatial = [*spatial[:-1], *sch.split(spatial[-1], [vectors, lanes])]
    reduce[-1:] = sch.split(reduce[-1], [None, group])
    sch.reorder(*reduce[:-1], *spatial, reduce[-1])
    init = sch.decompose_reduction(block, reduce[0])
    unroll_and_vectorize(sch, sch.get_loops(init)[depth:])
    for loop in spatial[:-1]:
        sch.unroll(loop)
    sch.tensorize(spatial[-1], intrin)
    return reduce[:-1]


def register_tile(
    sch: Schedule, block: BlockRef | str, rows: Sequence[int], vectors: int, lanes: int, last_outside: bool = True
) -> RegisterTile:
    """Keep a tile of a reduction's result in vector registers while the reduction runs.

    The block gets a copy of its output of the size of a tile; the tile is cleared, summed up and written back inside the
    loops over tiles. After unrolling every index into it is a constant, so that it never touches memory.

    Args:
        rows: rows of a tile along the last axes before the innermost; vectors: vectors of `lanes` elements along that.
        last_outside: run the loop over tiles along the last axis outermost, so that the operand that varies along it
            stays in cache while all rows pass.
    """
    name = name_of(block)
    write = sch.cache_write(name, 0, "local")
    outer, inner = tile_write_back(sch, write, rows, vectors, lanes)
    if last_outside and len(outer) > 1:
        outer = [outer[-1], *outer[:-1]]
        sch.reorder(*outer)
    sch.compute_at(name, outer[-1])
    reduce = accumulate_tile(sch, name, len(outer), vectors, lanes)
    unroll_and_vectorize(sch, inner)
    return RegisterTile(write.name, outer, reduce, inner, len(outer))


def rfactor_lanes(sch: Schedule, block: BlockRef | str, width: int) -> BlockRef:
    """Give a reduction along its innermost loop `width` partial results; returns the block that fills them."""
    _, inner = sch.split(sch.get_loops(block)[-1], [None, width])
    return sch.rfactor(block, inner)


def combine_lanes(sch: Schedule, block: BlockRef | str, lanes: int) -> tuple[BlockRef, BlockRef | None]:
    """Reduce partial results along the innermost loop: vectors into one vector, then its lanes by an instruction.

    The loop has a multiple of `lanes` iterations, as `rfactor_lanes` leaves it. Lanes stay a loop where no instruction
    combines them.

    Returns:
        The block as it is now, and the one that combines the vectors (None where there is just one).
    """
    final, vectors = BlockRef(name_of(block)), None
    loop = sch.get_loops(final)[-1]
    if sch.get_extent(loop) != lanes:
        _, loop = sch.split(loop, [None, lanes])
        vectors = sch.rfactor(final, loop)
        loop = sch.get_loops(final)[-1]
    store = sch.func.blocks[final.name].body
    if isinstance(store, Store) and isinstance(store.value, (Add, Max, Min)):
        intrin = across(type(store.value), store.buffer.dtype, lanes)
        if sch.why_not("tensorize", loop, intrin) is None:
            final = sch.tensorize(loop, intrin)
    return final, vectors


def vectorize_partial(sch: Schedule, block: BlockRef | str) -> None:
    """Run the partial results of `rfactor_lanes` in vectors, the rest of the reduction around them."""
    known = sch.func.blocks[name_of(block)]
    lane = known.spatial[-1].binding
    loops = [v for v in sch.get_loops(block) if v in set(reduce_loops(sch, block))]
    if not loops or lane not in sch.get_loops(block):
        return
    sch.reorder(*loops, lane)
    init = sch.decompose_reduction(block, loops[0])
    sch.vectorize(lane)
    sch.vectorize(sch.get_loops(init)[-1])


def loaded(block: Block) -> list[tuple[Buffer, tuple[Expr, ...]]]:
    """(buffer, indices) of what a block loads, its own accumulator left out."""
    own = set(writes(block))
    return [(a.buffer, a.indices) for a in accesses(block) if not a.is_write and a.buffer not in own]


def steps_along(sch: Schedule, block: BlockRef | str, loop: Var) -> dict[Buffer, int | None]:
    """How many elements apart the next iteration of a loop loads, for each operand; None where that varies."""
    func = sch.func
    known = func.blocks[name_of(block)]
    env = loop_env(loops_around(func, known)) | dims_env(func.dims)
    found: dict[Buffer, int | None] = {}
    for buffer, indices in loaded(known):
        at: Expr = const(0)
        for index, extent in zip(resolve(known, indices), buffer.shape):
            at = at * extent + index
        form = linear(simplify(at, env), env)
        plain = all(term is loop or loop not in free_vars(term) for term in form.terms)
        step = form.terms.get(loop, 0) if plain else None
        found[buffer] = step if found.get(buffer, step) == step else None
    return found


def transposed_loop(sch: Schedule, block: BlockRef | str) -> Var | None:
    """The loop along which an operand's elements are neighbours, where that is not the innermost one."""
    *others, last = sch.get_loops(block)
    along = steps_along(sch, block, last)
    for loop in reversed(others):
        steps = steps_along(sch, block, loop)
        extents = sch.get_extent(loop), sch.get_extent(last)
        if any(steps[b] == 1 and along[b] not in (0, 1) for b in steps) and all(
            isinstance(e, int) and e >= 4 for e in extents
        ):
            return loop
    return None
