"""Random steps for the fuzzer: for each primitive arguments as its check takes them, legal ones and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..analysis.regions import loops_around, reads, writes
from ..ir.expr import Const, Select, Var
from ..ir.index_map import IndexMap
from ..ir.primfunc import PrimFunc
from ..ir.query import as_int
from ..ir.stmt import Block, For, Seq, walk_statements
from ..ir.tensor_intrin import tensor_intrins
from ..schedule.primitives import ALL, BlockRef
from ..schedule.schedule import Schedule

SCOPES = ("global", "local")
FACTORS = (2, 3, 4, 5, 8, 16)


@dataclass(frozen=True, slots=True)
class Choice:
    """A primitive and numbers that pick its arguments among what there is when it runs; so any subset of steps runs."""

    method: str
    numbers: tuple[int, ...]


class _Picker:
    """What a choice picks from."""

    def __init__(self, sch: Schedule, numbers: tuple[int, ...]) -> None:
        self.func: PrimFunc = sch.func
        self.loops, self.blocks = list(sch.func.loops), list(sch.func.blocks)
        self.n = numbers
        self.buffers = (*sch.func.buffers, *sch.func.allocs)

    @property
    def block(self) -> BlockRef:
        return BlockRef(self.blocks[self.n[0] % len(self.blocks)])

    @property
    def loop(self) -> Var:
        return self.loops[self.n[1] % len(self.loops)]

    @property
    def buffer(self) -> Any:
        return self.buffers[self.n[1] % len(self.buffers)]

    @property
    def scope(self) -> str:
        return SCOPES[self.n[2] % 2]

    @property
    def place(self) -> Var | BlockRef:
        return self.loop if self.loops and self.n[3] % 2 else self.block

    def written(self) -> Any:
        """A buffer that the block writes, mostly."""
        mine = [s.buffer for s in walk_statements(self.func.blocks[self.block.name]) if hasattr(s, "indices")]
        return mine[0] if mine and self.n[3] % 4 else self.buffer

    def index_map(self, ndim: int) -> IndexMap:
        """A permutation, a split, a fusion, a shift; rarely one that is no bijection."""
        params = tuple(Var(f"i{d}") for d in range(ndim))
        if not params:
            return IndexMap((), ())
        at, factor = self.n[2] % ndim, FACTORS[self.n[3] % 4]
        x, rest = params[at], [p for d, p in enumerate(params) if d != at]
        kinds: list[Callable[[], tuple[Any, ...]]] = [
            lambda: (x // factor, *rest, x % factor),
            lambda: (*rest, x),
            lambda: (*params[:at], x * factor + (rest[0] if rest else 0), *rest[1:]),
            lambda: (*params[:at], x + 1, *params[at + 1 :]),
            lambda: (*params[:at], x // 2, *params[at + 1 :]),
        ]
        exprs = kinds[self.n[4] % len(kinds)]()
        return IndexMap(params, tuple(exprs))


Step = tuple[str, tuple[Any, ...]]
Recipe = Callable[[Schedule, _Picker], Iterator[Step]]
"""Yields steps; each is proposed, and the generator goes on with the schedule as it then stands."""


def _loops(sch: Schedule, block: str) -> list[Var]:
    return [s.var for s in loops_around(sch.func, sch.func.blocks[block])] if block in sch.func.blocks else []


def _recipe_tensorize(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """Loops as a dot-product instruction wants them."""
    loops = _loops(sch, p.block.name)
    if len(loops) < 2:
        return
    narrow = any(b.dtype.bits == 8 for b in sch.func.inputs)
    j, k = loops[-2:]
    yield "split", (k, (None, 4 if narrow else 2))
    yield "split", (j, (None, 16))
    loops = _loops(sch, p.block.name)
    if len(loops) >= 4:
        yield "reorder", (loops[-2], loops[-3], loops[-1])
        if p.n[3] % 2:
            yield "decompose_reduction", (p.block, loops[0])
        yield "tensorize", (_loops(sch, p.block.name)[-2], tensor_intrins()[0 if narrow else 1])


def _recipe_rolling(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """A producer at a loop that moves a window over it."""
    names = list(sch.func.blocks)
    made = {b.name: reads(b) for b in sch.func.blocks.values()}
    pairs = [(x, y) for x in names for y in names if x != y and set(writes(sch.func.blocks[x])) & set(made[y])]
    if not pairs:
        return
    producer, user = pairs[p.n[0] % len(pairs)]
    if _loops(sch, user) and p.n[2] % 2:
        yield "split", (_loops(sch, user)[0], (None, 2))
    loops = _loops(sch, user)
    if loops:
        yield "compute_at", (BlockRef(producer), loops[p.n[1] % min(len(loops), 2)])
        yield "rolling_buffer", (BlockRef(producer), writes(sch.func.blocks[producer])[0])


def _recipe_double(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """A copy for each iteration of a loop, then for the next one."""
    loops, sources = _loops(sch, p.block.name), reads(sch.func.blocks[p.block.name])
    if loops and sources:
        loop, before = loops[p.n[1] % len(loops)], set(sch.func.blocks)
        yield "read_at", (loop, p.block, sources[p.n[2] % len(sources)], p.scope)
        for name in set(sch.func.blocks) - before:
            yield "double_buffer", (BlockRef(name), loop)


def _recipe_inplace(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """An update apart from its init, on a copy."""
    loops = _loops(sch, p.block.name)
    if loops:
        yield "decompose_reduction", (p.block, loops[0])
        yield "cache_inplace", (p.block, p.written(), p.scope)


def _recipe_epilogue(sch: Schedule, p: _Picker) -> Iterator[Step]:
    for name in list(sch.func.blocks):
        if p.block.name in sch.func.blocks and name in sch.func.blocks:
            yield "fuse_reduction_epilogue", (p.block, BlockRef(name))


def _recipe_padding(sch: Schedule, p: _Picker) -> Iterator[Step]:
    for name, b in list(sch.func.blocks.items()):
        loops = _loops(sch, name)
        if isinstance(getattr(b.body, "value", None), Select) and loops:
            yield "decompose_padding", (BlockRef(name), loops[p.n[1] % len(loops) if p.n[2] % 2 else 0])


def _recipe_tile(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """What one does to a product: a tile of its result in registers, vectors, threads."""
    name = p.block.name
    before = set(sch.func.blocks)
    yield "cache_write", (p.block, p.written(), "local")
    write = next(iter(set(sch.func.blocks) - before), name)
    loops = _loops(sch, write)
    if len(loops) < 2:
        return
    yield "split", (loops[0], (None, FACTORS[p.n[2] % 4]))
    yield "split", (loops[1], (None, FACTORS[p.n[3] % 4]))
    loops = _loops(sch, write)
    if len(loops) < 4:
        return
    yield "reorder", (loops[0], loops[2], loops[1], loops[3])
    yield "compute_at", (p.block, loops[2])
    inner = _loops(sch, name)
    if len(inner) >= 5:
        yield "reorder", (inner[-1], inner[-3], inner[-2])
        yield "decompose_reduction", (p.block, inner[-1])
        yield "vectorize", (inner[-2],)
        yield "unroll", (inner[-3],)
    yield "parallel", (loops[0],)
    yield "vectorize", (loops[3],)


def _recipe_straight(sch: Schedule, p: _Picker) -> Iterator[Step]:
    """Sums that begin and are read in code without loops, and grow in loops between, of threads or not, or in copies of their body."""
    name = p.block.name
    around, before = _loops(sch, name), set(sch.func.blocks)
    if not around:
        return
    yield "decompose_reduction", (p.block, around[0 if p.n[4] % 2 else p.n[1] % len(around)])
    inits = set(sch.func.blocks) - before
    users = [b.name for b in sch.func.blocks.values() if set(reads(b)) & set(writes(sch.func.blocks[name]))]
    for block in (*inits, *users, *([name] if p.n[2] % 2 else [])):
        if block != name or p.n[2] % 4 == 1:
            for loop in _loops(sch, block):
                yield "unroll", (loop,)
        else:
            yield "unroll", (_loops(sch, block)[-1],)
    if p.n[3] % 2 and _loops(sch, name):
        yield "parallel", (_loops(sch, name)[0],)


RECIPES: dict[str, Recipe] = {
    "recipe_tensorize": _recipe_tensorize,
    "recipe_rolling": _recipe_rolling,
    "recipe_double": _recipe_double,
    "recipe_inplace": _recipe_inplace,
    "recipe_epilogue": _recipe_epilogue,
    "recipe_padding": _recipe_padding,
    "recipe_tile": _recipe_tile,
}
"""Several steps that random choice would hardly ever put together."""
LATER_RECIPES: dict[str, Recipe] = {"recipe_straight": _recipe_straight}
"""Others, which a draw of its own chooses: the cases of the seeds that were found before them stay as they are."""

WEIGHTS = {
    "split": 5, "reorder": 4, "fuse": 2, "vectorize": 3, "parallel": 2, "compute_at": 4, "rfactor": 3, "compute_inline": 2,
    "reverse_compute_at": 2, "cache_read": 2, "cache_write": 2, "decompose_reduction": 2, "merge": 2, "transform_layout": 2,
    "rolling_buffer": 2, "double_buffer": 2, "read_at": 2, "write_at": 2, "blockize": 2, "tensorize": 2, "bind": 2,
}  # fmt: skip
"""How often a primitive is proposed; others once."""

METHODS = tuple(name for name in (*ALL, *RECIPES) for _ in range(WEIGHTS.get(name, 1)))


def _split(p: _Picker) -> tuple[Any, ...]:
    factor = FACTORS[p.n[2] % 6]
    factors = ((None, factor), (factor, None), (None, 2, factor))[p.n[3] % 3]
    return (p.loop, factors, True) if p.n[4] % 8 == 7 else (p.loop, factors)


def _fuse(p: _Picker) -> tuple[Any, ...]:
    inner = p.func.loops[p.loop].body
    return (p.loop, inner.var) if isinstance(inner, For) else (p.loop, p.loops[p.n[2] % len(p.loops)])


def _reorder(p: _Picker) -> tuple[Any, ...]:
    picked = {p.loop: None, p.loops[p.n[2] % len(p.loops)]: None, p.loops[p.n[3] % len(p.loops)]: None}
    return tuple(picked)


def _merge(p: _Picker) -> tuple[Any, ...]:
    pairs = [
        (a.var, b.var)
        for s in walk_statements(p.func.body)
        if isinstance(s, Seq)
        for a, b in zip(s.stmts, s.stmts[1:])
        if isinstance(a, For) and isinstance(b, For)
    ]
    return pairs[p.n[2] % len(pairs)] if pairs and p.n[3] % 8 else (p.loop, p.loops[p.n[2] % len(p.loops)])


def _partition(p: _Picker) -> tuple[Any, ...]:
    size = (1, 2, 3, 4, 8)[p.n[2] % 5]
    return p.loop, ((size, None), (None, size), (1, None, size))[p.n[3] % 3]


def _bind(p: _Picker) -> tuple[Any, ...]:
    return p.loop, ("blockIdx.x", "threadIdx.x", "threadIdx.y", "vthread.x")[p.n[2] % 4]


def _padding(p: _Picker) -> tuple[Any, ...]:
    iters = p.func.blocks[p.block.name].iters
    return p.block, tuple((1, 2, 3, 4)[p.n[(d % 4) + 1] % 4] for d in range(len(iters)))


def _order(p: _Picker) -> tuple[Any, ...]:
    count = len(p.func.blocks[p.block.name].iters)
    turn = p.n[1] % (count + 1)
    return p.block, tuple((d + turn) % max(count, 1) for d in range(count)) if p.n[2] % 8 else (0, 0)


def _own_map(p: _Picker) -> IndexMap:
    return p.index_map(len(p.func.blocks[p.block.name].iters))


def _reindex_map(p: _Picker) -> IndexMap:
    """Of a block's iterators, some of which are dropped."""
    b: Block = p.func.blocks[p.block.name]
    params = tuple(it.var for it in b.iters)
    kept = [it.var for d, it in enumerate(b.iters) if it.kind == "spatial" or (p.n[3] >> d) % 2]
    turn = p.n[4] % (len(kept) + 1)
    return IndexMap(params, (*kept[turn:], *kept[:turn]))


def _wider(p: _Picker) -> tuple[Any, ...]:
    buffer = p.written()
    return (
        p.block,
        buffer,
        {"float32": "float64", "int32": "int64", "uint8": "uint16"}.get(str(buffer.dtype), "float99"),
    )


def _tile(p: _Picker) -> tuple[Any, ...]:
    extent = as_int(p.func.loops[p.loop].extent, 1)
    inner = next(f for f in (8, 4, 3, 2, 1) if extent % f == 0)
    return p.loop, 2, 16, (extent // inner, inner) if p.n[2] % 4 else (2, 2)


_ARGUMENTS: dict[str, Callable[[_Picker], tuple[Any, ...]]] = {
    "split": _split,
    "fuse": _fuse,
    "reorder": _reorder,
    "merge": _merge,
    "loop_partition": _partition,
    "add_unit_loop": lambda p: (p.place,),
    "bind": _bind,
    "annotate": lambda p: (p.place, "note", p.n[2] % 3),
    "unannotate": lambda p: (p.place, "note"),
    "pragma": lambda p: (p.loop, ("auto_unroll_max_step", "prefetch", "prefetch_next")[p.n[2] % 3], p.n[3] % 9),
    "compute_inline": lambda p: (p.block,),
    "reverse_compute_inline": lambda p: (p.block,),
    "fuse_reduction_epilogue": lambda p: (p.block, BlockRef(p.blocks[p.n[1] % len(p.blocks)])),
    "cache_read": lambda p: (p.block, p.buffer, p.scope),
    "cache_write": lambda p: (p.block, p.buffer, p.scope),
    "cache_inplace": lambda p: (p.block, p.written(), p.scope),
    "set_scope": lambda p: (p.block, p.buffer, p.scope),
    "read_at": lambda p: (p.loop, p.block, p.buffers[p.n[3] % len(p.buffers)], p.scope),
    "write_at": lambda p: (p.loop, p.block, p.written(), p.scope),
    "reindex": lambda p: (p.block, p.buffer),
    "reindex_cache_read": lambda p: (p.block, p.buffer, p.scope, _reindex_map(p)),
    "reindex_cache_write": lambda p: (p.block, p.written(), p.scope, _reindex_map(p)),
    "cache_index": lambda p: (p.block, p.scope),
    "storage_align": lambda p: (p.block, p.buffer, p.n[2] % 2, FACTORS[p.n[3] % 6], p.n[4] % 3),
    "rolling_buffer": lambda p: (p.block, p.written()),
    "unsafe_set_dtype": _wider,
    "transform_layout": lambda p: (p.block, p.buffer, p.index_map(p.buffer.ndim), *([1] if p.n[0] % 3 == 0 else [])),
    "transform_block_layout": lambda p: (p.block, _own_map(p)),
    "reorder_block_iter_var": _order,
    "pad_einsum": _padding,
    "tensorize": lambda p: (p.loop, tensor_intrins()[p.n[2] % len(tensor_intrins())]),
    "sample_perfect_tile": _tile,
    "sample_partitioned_tile": lambda p: (*_tile(p)[:2], 1, 1, _tile(p)[3]),
    "sample_categorical": lambda p: ((2, 4, 8), (1.0, 1.0, 1.0), p.n[1] % 4),
    "sample_compute_location": lambda p: (p.block, p.n[1] % 4),
}
_BLOCK_AND_LOOP = (
    "compute_at",
    "reverse_compute_at",
    "decompose_reduction",
    "rfactor",
    "double_buffer",
    "decompose_padding",
)
_WITHOUT_LOOPS = {
    "compute_inline", "reverse_compute_inline", "fuse_reduction_epilogue", "cache_read", "cache_write", "cache_inplace",
    "set_scope", "reindex", "reindex_cache_read", "reindex_cache_write", "cache_index", "storage_align", "rolling_buffer",
    "unsafe_set_dtype", "transform_layout", "transform_block_layout", "reorder_block_iter_var", "pad_einsum",
    "sample_categorical", "sample_compute_location", "add_unit_loop", "annotate", "unannotate",
}  # fmt: skip


def proposals(sch: Schedule, choice: Choice) -> Iterator[Step]:
    """The steps of a choice: one, or those of a recipe."""
    recipe = RECIPES.get(choice.method) or LATER_RECIPES.get(choice.method)
    if recipe is not None:
        yield from recipe(sch, _Picker(sch, choice.numbers))
        return
    args = arguments(sch, choice)
    if args is not None:
        yield choice.method, args


def arguments(sch: Schedule, choice: Choice) -> tuple[Any, ...] | None:
    """The arguments of a step, as its check takes them; None where there is nothing to choose from."""
    picker = _Picker(sch, choice.numbers)
    if not picker.loops and choice.method not in _WITHOUT_LOOPS:
        return None
    if choice.method in _BLOCK_AND_LOOP:
        return picker.block, picker.loop
    pick = _ARGUMENTS.get(choice.method)
    return pick(picker) if pick is not None else (picker.loop,)


def too_big(func: PrimFunc) -> bool:
    """Whether unrolled copies would make the program needlessly long."""
    copies = 1
    for s in func.loops.values():
        if s.kind == "unrolled" and isinstance(s.extent, Const):
            copies *= s.extent.value
    return copies > 64
