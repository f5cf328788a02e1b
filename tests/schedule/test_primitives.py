"""What each primitive does, and what it must refuse. Every accepted schedule is run against the unscheduled kernel."""

from collections.abc import Callable

import numpy as np
import pytest
from harness import check, expect
from kernels import matmul, own_reduction, product, row_sum, symbolic_sum

import tcomp
from tcomp import te
from tcomp.dtype import float32
from tcomp.errors import ScheduleError
from tcomp.ir import Block, Buffer, Const, For, IterVar, PrimFunc, Select, Store, Var, const
from tcomp.ir.interp import run
from tcomp.ir.node import substitute, with_fields
from tcomp.ir.printer import text
from tcomp.ir.stmt import seq
from tcomp.ir.verify import verify
from tcomp.schedule import Schedule, Trace


def stencil(n: int = 20) -> PrimFunc:
    a = te.placeholder((n + 2,), name="A")
    b = te.compute((n + 2,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((n,), lambda i: b[i] + b[i + 1] + b[i + 2], name="S")], "stencil")


def scan_like() -> PrimFunc:
    """Two blocks under one loop, the second reading what the first wrote one iteration earlier."""
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="B")
    return te.create_prim_func([a, b, te.compute((8,), lambda i: b[te.maximum(i - 1, 0)] * 2.0, name="C")], "shifted")


def _split(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.split(i, [2, 3])
    s.split(j, [None, 4])
    s.split(k, [2, None, 2])


def _fuse(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    f = s.fuse(i, j)
    a, b = s.split(f, [None, 7])
    s.fuse(a, b, k)


def _reorder(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.reorder(k, j, i)


def _tile(s: Schedule) -> None:
    i, j, _ = s.get_loops("C")
    i0, j0, i1, j1 = s.tile(i, j, 4, 4)
    assert [v.name for v in s.get_loops("C")[:4]] == [v.name for v in (i0, j0, i1, j1)]


def _kinds(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.reorder(i, k, j)
    s.parallel(i)
    s.unroll(k)
    s.vectorize(j)
    s.annotate(i, "note", "rows")
    s.annotate("C", "weight", 2)


def _inline(s: Schedule) -> None:
    c = s.cache_read("D", "C", "global")
    s.compute_inline(c)


def _compute_at(s: Schedule) -> None:
    i, j = s.get_loops("D")
    _, j0, _, _ = s.tile(i, j, 4, 4)
    s.compute_at("C", j0)


def _reverse_compute_at(s: Schedule) -> None:
    i, j, _ = s.get_loops("C")
    _, j0, _, _ = s.tile(i, j, 4, 4)
    s.reverse_compute_at("D", j0)


def _caches(s: Schedule) -> None:
    packed = s.cache_read("C", "B", "local")
    i, j, _ = s.get_loops("C")
    s.reorder(j, i)
    s.compute_at(packed, j)
    back = s.cache_write("D", 0, "local")
    s.set_scope("C", 0, "local")
    assert back.name in s.func.blocks


def _decompose(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    k0, _ = s.split(k, [None, 2])
    s.reorder(i, k0, j)
    assert s.decompose_reduction("C", k0).name == "C_init"


@pytest.mark.parametrize(
    "steps", [_split, _fuse, _reorder, _tile, _kinds, _inline, _compute_at, _reverse_compute_at, _caches, _decompose]
)
def test_primitives_keep_the_meaning(steps: Callable[[Schedule], None]) -> None:
    func = matmul()
    sch = Schedule(func)
    steps(sch)
    check(sch, func)


def test_split_guards_the_tail_only_where_it_must() -> None:
    sch = Schedule(matmul())
    i, j, _ = sch.get_loops("C")
    sch.split(i, [None, 3])
    assert "where" not in text(sch.func)
    sch.split(j, [None, 4])
    assert "where j_0 * 4 + j_1 < 10" in text(sch.func)


def test_compute_at_takes_the_region_that_is_needed() -> None:
    func = stencil()
    sch = Schedule(func)
    (i,) = sch.get_loops("S")
    i0, _ = sch.split(i, [None, 4])
    sch.compute_at("B", i0)
    assert sch.get_extent(sch.get_loops("B")[-1]) == 6  # a tile of 4 and its halo
    check(sch, func)


def test_loops_survive_and_consumed_handles_name_the_step() -> None:
    sch = Schedule(matmul())
    i, j, k = sch.get_loops("C")
    i0, i1 = sch.split(i, [None, 2])
    sch.reorder(k, j)
    assert sch.get_loops("C") == [i0, i1, k, j]
    with pytest.raises(ScheduleError, match=r"consumed by: i_0, i_1 = sch.split\(i, \[None, 2\]\)"):
        sch.parallel(i)
    sch.compute_inline(sch.cache_read("D", "C"))
    with pytest.raises(ScheduleError, match="consumed by"):
        sch.get_loops("C_global")


REFUSED = [
    ("one factor can be inferred", matmul, lambda s: s.split(s.get_loops("C")[0], [None, None])),
    ("at least two factors", matmul, lambda s: s.split(s.get_loops("C")[0], [6])),
    ("cover 4 iterations, not 6", matmul, lambda s: s.split(s.get_loops("C")[0], [2, 2])),
    ("positive integers", matmul, lambda s: s.split(s.get_loops("C")[0], [None, 0])),
    ("at least two loops", matmul, lambda s: s.fuse(s.get_loops("C")[0])),
    ("not directly and alone inside", matmul, lambda s: s.fuse(s.get_loops("C")[1], s.get_loops("C")[0])),
    ("not directly and alone inside", matmul, lambda s: s.fuse(s.get_loops("C")[0], s.get_loops("C")[2])),
    ("two different loops", matmul, lambda s: s.reorder(s.get_loops("C")[0], s.get_loops("C")[0])),
    ("not perfectly nested", matmul, lambda s: s.reorder(s.get_loops("D")[0], s.get_loops("C")[0])),
    ("carries a reduction", matmul, lambda s: s.parallel(s.get_loops("C")[2])),
    ("carries a reduction", matmul, lambda s: s.vectorize(s.get_loops("C")[2])),
    ("carries a reduction", matmul, lambda s: s.parallel(s.fuse(*s.get_loops("C")))),
    ("is nested with it", matmul, lambda s: (s.vectorize(s.get_loops("D")[1]), s.vectorize(s.get_loops("D")[0]))),
    ("inside a vectorized loop", lambda: matmul(m=8), lambda s: (s.vectorize(s.get_loops("D")[0]), s.parallel(s.get_loops("D")[1]))),
    ("more than 1024", lambda: stencil(2000), lambda s: s.vectorize(s.get_loops("S")[0])),
    ("more than 4096", lambda: stencil(5000), lambda s: s.unroll(s.get_loops("S")[0])),
    ("is an identifier", matmul, lambda s: s.annotate("C", "no key", 1)),
    ("bool, number or string", matmul, lambda s: s.annotate("C", "key", [1])),
    ("it is a reduction", matmul, lambda s: s.compute_inline("C")),
    ("an output of the function", matmul, lambda s: s.compute_inline("D")),
    ("an output of the function", product, lambda s: s.compute_at("C", s.get_loops("C")[0])),
    ("an output of the function", product, lambda s: s.compute_at("C", s.get_loops("C")[2])),
    ("outside the loop", scan_like, lambda s: (s.cache_read("C", "B"), s.compute_at("B_global", s.get_loops("B")[0]))),
    ("is vectorized", matmul, lambda s: (s.vectorize(s.get_loops("D")[1]), s.compute_at("C", s.get_loops("D")[1]))),
    ("still reducing", matmul, lambda s: s.reverse_compute_at("D", s.get_loops("C")[2])),
    ("different parts of axis", stencil, lambda s: s.reverse_compute_at("S", s.get_loops("B")[0])),
    ("no block under the loop produces", matmul, lambda s: s.reverse_compute_at("C", s.get_loops("D")[0])),
    ("leaves gaps", lambda: matmul(n=8), lambda s: _gap(s)),
    ("does not read it", matmul, lambda s: s.cache_read("C", "D")),
    ("has no buffer", matmul, lambda s: s.cache_read("C", "nothing")),
    ("no scope", matmul, lambda s: s.cache_read("C", "A", "texture")),
    ("in the same loop nest", matmul, lambda s: (s.compute_at("C", s.get_loops("D")[0]), s.cache_read("D", "C"))),
    ("does not write it", matmul, lambda s: s.cache_write("C", "A")),
    ("writes it as well", matmul, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.cache_write("C"))),
    ("in the same loop nest", matmul, lambda s: (s.compute_at("C", s.get_loops("D")[0]), s.cache_write("C"))),
    ("parameter of the function", matmul, lambda s: s.set_scope("C", "A", "local")),
    ("no reduction", matmul, lambda s: s.decompose_reduction("D", s.get_loops("D")[0])),
    ("already a block of its own", matmul, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.decompose_reduction("C", s.get_loops("C")[2]))),
    ("not around the block", matmul, lambda s: s.decompose_reduction("C", s.get_loops("D")[0])),
    ("already runs over the reduce axis", matmul, lambda s: _decompose_inside(s)),
    ("spatial and reduce axes", matmul, lambda s: s.decompose_reduction("C", s.fuse(*s.get_loops("C")))),
    ("no block", matmul, lambda s: s.compute_inline("Z")),
    ("is no loop", matmul, lambda s: s.parallel("i")),
]  # fmt: skip


def _gap(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    i0, i1 = s.split(i, [2, 4])
    s.reorder(i1, i0, j, k)
    s.reverse_compute_at("D", i1)


def _decompose_inside(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.reorder(k, i, j)
    s.decompose_reduction("C", i)


@pytest.mark.parametrize(("reason", "func", "step"), REFUSED, ids=[f"{i}-{r[0][:30]}" for i, r in enumerate(REFUSED)])
def test_refusals(reason: str, func: Callable[[], PrimFunc], step: Callable) -> None:
    expect(func(), reason, step)


def test_a_fused_reduction_may_not_be_reordered() -> None:
    """The accumulators are cleared where k is 0, which another order would not visit first."""
    sch = Schedule(matmul())
    _, j, k = sch.get_loops("C")
    outer, inner = sch.split(sch.fuse(j, k), [None, 5])
    with pytest.raises(ScheduleError, match="spatial and reduce axes"):
        sch.reorder(inner, outer)


def test_reorder_may_not_exchange_producer_and_consumer() -> None:
    """for i: for j: {B[i, j] = ...; C[i, j] reads B[i - 1, j + 1]}: exchanging i and j would read before the write."""
    a = te.placeholder((6, 6), name="A")
    b = te.compute((6, 6), lambda i, j: a[i, j] + 1.0, name="B")
    c = te.compute((6, 6), lambda i, j: b[te.maximum(i - 1, 0), te.minimum(j + 1, 5)], name="C")
    func = te.create_prim_func([a, b, c], "skewed")
    # build the nest by hand: no primitive fuses these loops
    first, second = func.body.stmts
    i, j = Var("i"), Var("j")
    inner = [substitute(x.body.body, {x.var: i, x.body.var: j}) for x in (first, second)]
    nest = with_fields(func, body=For(i, first.extent, For(j, first.extent, seq(inner))))
    sch = Schedule(nest)
    with pytest.raises(ScheduleError, match="exchanges them"):
        sch.reorder(j, i)
    with pytest.raises(ScheduleError, match="same element of B"):
        sch.parallel(i)


def test_error_shows_nest_schedule_and_place() -> None:
    sch = Schedule(matmul())
    i, _, k = sch.get_loops("C")
    sch.split(i, [None, 2])
    with pytest.raises(ScheduleError) as error:
        sch.parallel(k)
    message = str(error.value)
    assert "cannot parallelize loop k of block C: it carries a reduction" in message
    assert "# <- reduction axis of C" in message
    assert "schedule so far: i_0, i_1 = sch.split(i, [None, 2])" in message
    assert "test_primitives.py:" in message and "try:" in message


def test_tile_is_all_or_nothing() -> None:
    sch = Schedule(matmul())
    i, _, k = sch.get_loops("C")
    before = sch.func
    with pytest.raises(ScheduleError):
        sch.tile(i, k, 2, 0)
    assert sch.func is before and len(sch.trace.steps) == 1


def test_trace_of_another_version_is_refused() -> None:
    with pytest.raises(ScheduleError, match="version"):
        Trace.from_json('{"version": 99, "steps": []}')
    with pytest.raises(ScheduleError, match="not a schedule trace"):
        Trace.from_json("{]")


def test_trace_replays_on_another_shape() -> None:
    sch = Schedule(matmul())
    _tile(sch)
    other = matmul(9, 21, 5)
    check(sch.trace.replay(Schedule(other)), other)


def by_hand(body_of: Callable) -> PrimFunc:
    """for i in range(8): two blocks under one loop, over an intermediate buffer T."""
    a, b, t = (Buffer(n, (const(s),), float32) for n, s in (("A", 8), ("B", 8), ("T", 9)))
    i = Var("i")
    return PrimFunc("by_hand", (a, b), For(i, const(8), seq(body_of(i, a, b, t))), 1, (t,))


def running_sum() -> PrimFunc:
    """T[0] accumulates along the loop, and each partial sum is used: the iterations are not independent."""

    def blocks(i: Var, a: Buffer, b: Buffer, t: Buffer) -> list:
        k, v = Var("vk"), Var("v")
        update = Block(
            "T",
            (IterVar(k, const(8), "reduce", i),),
            Store(t, (const(0),), t[0] + a[k]),
            Store(t, (const(0),), Const(0.0, float32)),
        )
        return [update, Block("B", (IterVar(v, const(8), "spatial", i),), Store(b, (v,), t[0]))]

    return by_hand(blocks)


def shifted() -> PrimFunc:
    """Each iteration reads what the one before it wrote."""

    def blocks(i: Var, a: Buffer, b: Buffer, t: Buffer) -> list:
        v, w = Var("v"), Var("w")
        write = Block("T", (IterVar(v, const(8), "spatial", i),), Store(t, (v + 1,), a[v] * 2.0))
        return [
            write,
            Block("B", (IterVar(w, const(8), "spatial", i),), Store(b, (w,), Select(w < 1, Const(0.0, float32), t[w]))),
        ]

    return by_hand(blocks)


def gaps() -> PrimFunc:
    """Each iteration writes the even or the odd elements of four, and reads an odd one: in turn its own, or an older one."""

    def blocks(i: Var, a: Buffer, b: Buffer, t: Buffer) -> list:
        v, w, j, u = Var("v"), Var("w"), Var("j"), Var("u")
        point = (IterVar(v, const(8), "spatial", i), IterVar(u, const(2), "spatial", j))
        write = For(j, const(2), Block("T", point, Store(t, (v % 2 + u * 2,), a[v] * 2.0)))
        late = Select(w < 1, Const(0.0, float32), t[const(1)])
        return [write, Block("B", (IterVar(w, const(8), "spatial", i),), Store(b, (w,), late))]

    return by_hand(blocks)


def last_odd(x: np.ndarray) -> np.ndarray:
    return np.array([0.0 if i == 0 else 2 * x[i - (i + 1) % 2] for i in range(len(x))])


def doubled_and_late(x: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], 2 * x[:-1]])


@pytest.mark.parametrize(("func", "want"), [(running_sum, np.cumsum), (shifted, doubled_and_late), (gaps, last_odd)])
def test_values_that_flow_between_iterations_are_kept(func: Callable, want: Callable) -> None:
    x = np.arange(1, 9, dtype="float32")
    sch = Schedule(func())
    for kind in ("parallel", "vectorize"):
        with pytest.raises(ScheduleError, match="same element of T"):
            getattr(sch, kind)(sch.get_loops("B")[0])
    assert np.array_equal(run(sch.func, [x])[0], want(x))
    assert np.array_equal(tcomp.compile(sch)(x), want(x))


def test_lanes_may_not_share_a_reduction_even_where_one_is_active() -> None:
    sch = Schedule(matmul(r=2))
    k0, k1, k2 = sch.split(sch.get_loops("C")[2], [None, 2, 2])
    with pytest.raises(ScheduleError, match="runs over a reduce axis"):
        sch.vectorize(k1)


def test_a_repeated_block_may_not_lose_its_init() -> None:
    """The maximum is computed again in every iteration of j, which must clear the accumulator each time."""
    a = te.placeholder((4, 6), name="A")
    k = te.reduce_axis(6, "k")
    top = te.compute((4,), lambda i: te.max(a[i, k], axis=k), name="top")
    func = te.create_prim_func([a, te.compute((4, 6), lambda i, j: a[i, j] - top[i], name="out")])
    sch = Schedule(func)
    _, j = sch.get_loops("out")
    sch.compute_at("top", j)
    with pytest.raises(ScheduleError, match="repeats the block"):
        sch.decompose_reduction("top", j)
    with pytest.raises(ScheduleError, match="repeats the whole reduction"):
        _reorder_own_nest()
    sch.decompose_reduction("top", sch.get_loops("top")[2])
    check(sch, func)


def _reorder_own_nest() -> None:
    """A reduction inside a loop that it does not depend on, alone in its nest."""
    a, b, i, k, vk = Buffer("A", (const(6),), float32), Buffer("B", (const(1),), float32), Var("i"), Var("k"), Var("vk")
    update = Block(
        "B",
        (IterVar(vk, const(6), "reduce", k),),
        Store(b, (const(0),), b[0] + a[vk]),
        Store(b, (const(0),), Const(0.0, float32)),
    )
    Schedule(PrimFunc("f", (a, b), For(i, const(3), For(k, const(6), update)))).reorder(k, i)


@pytest.mark.parametrize("extents", [(1, 1, 1), (7, 5, 9), (64, 33, 17)])
def test_schedules_of_symbolic_extents_run_for_any_size(extents: tuple) -> None:
    n, m, r = te.var("n"), te.var("m"), te.var("r")
    a, b = te.placeholder((n, r), name="A"), te.placeholder((r, m), name="B")
    k = te.reduce_axis(r, "k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    sch = Schedule(te.create_prim_func([a, b, c], "symbolic"))
    write = sch.cache_write("C", 0, "local")
    i, j = sch.get_loops(write)
    i0, j0, i1, j1 = sch.tile(i, j, 4, 8)
    sch.compute_at("C", j0)
    *_, ci, cj, ck = sch.get_loops("C")
    sch.reorder(ck, ci, cj)
    sch.decompose_reduction("C", ck)
    sch.vectorize(cj)
    sch.unroll(ci)
    sch.vectorize(j1)
    sch.parallel(i0)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-3, 4, s).astype("float32") for s in ((extents[0], extents[2]), (extents[2], extents[1])))
    assert np.array_equal(tcomp.compile(sch)(x, y), x @ y)


@pytest.mark.parametrize("op", [te.sum, te.max, te.min, te.prod])
@pytest.mark.parametrize("m", [3, 16, 37])
def test_rfactor_then_vectorize(op: Callable, m: int) -> None:
    func = row_sum(m, op=op)
    sch = Schedule(func)
    k0, k1 = sch.split(sch.get_loops("S")[1], [None, 16])
    partial = sch.rfactor("S", k1)
    sch.reorder(k0, k1)
    sch.vectorize(k1)
    check(sch, func)
    i, _ = sch.get_loops("S")
    sch.compute_at(partial, i)
    sch.parallel(i)
    verify(sch.func)
    x = np.random.default_rng(0).integers(1, 3, (5, m)).astype("float32")
    for got in (run(sch.func, [x])[0], tcomp.compile(sch)(x)):
        assert np.array_equal(got, run(func, [x])[0])


def test_rfactor_of_an_outer_loop_gives_independent_parts() -> None:
    """Both levels of a split reduction can be factored; the outer part may run in parallel."""
    func = product()
    sch = Schedule(func)
    k0, _ = sch.split(sch.get_loops("C")[2], [3, None])
    part = sch.rfactor("C", k0)
    i, j, *_ = sch.get_loops(part)
    sch.reorder(k0, i, j)
    sch.parallel(k0)
    check(sch, func)


RFACTOR_REFUSED = [
    ("no reduction", matmul, lambda s: s.rfactor("D", s.get_loops("D")[0])),
    ("init is a block of its own", matmul, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.rfactor("C", s.get_loops("C")[2]))),
    ("not of the form", lambda: own_reduction(lambda a, b: a * 2.0, 0.0), lambda s: s.rfactor("R", s.get_loops("R")[1])),
    ("not commutative", lambda: own_reduction(lambda a, b: a * 0.5 + b, 0.0), lambda s: s.rfactor("R", s.get_loops("R")[1])),
    ("reduce axes alone", matmul, lambda s: s.rfactor("C", s.get_loops("C")[0])),
    ("reduce axes alone", matmul, lambda s: s.rfactor("C", s.fuse(*s.get_loops("C")))),
    ("not around the block alone", matmul, lambda s: s.rfactor("C", s.get_loops("D")[0])),
    ("is symbolic", symbolic_sum, lambda s: s.rfactor("S", s.get_loops("S")[1])),
    ("is unrolled", matmul, lambda s: (s.unroll(s.get_loops("C")[2]), s.rfactor("C", s.get_loops("C")[2]))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "func", "step"), RFACTOR_REFUSED, ids=[r[0] for r in RFACTOR_REFUSED])
def test_rfactor_refusals(reason: str, func: Callable, step: Callable) -> None:
    expect(func(), reason, step)
