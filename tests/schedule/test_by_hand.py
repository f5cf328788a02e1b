"""Refusals that only kernels built by hand, or long schedules, can meet."""

import numpy as np
import pytest
from harness import check, expect, filled
from kernels import add, matmul, matmul_bias, product

import tcomp
from tcomp import te
from tcomp.analysis.regions import is_dense
from tcomp.dtype import float32
from tcomp.errors import ScheduleError
from tcomp.ir import Block, Buffer, For, IterVar, Load, PrimFunc, Select, Store, Var, const
from tcomp.ir.interp import run
from tcomp.ir.node import with_fields
from tcomp.ir.stmt import seq
from tcomp.schedule import Schedule
from tcomp.schedule import primitives as module
from tcomp.schedule.primitives import Primitive


def chain(n: int = 5, m: int = 6) -> PrimFunc:
    """B, C, D: each an elementwise stage over the one before."""
    a = te.placeholder((n, m), name="A")
    b = te.compute((n, m), lambda i, j: a[i, j] * 2.0, name="B")
    c = te.compute((n, m), lambda i, j: b[i, j] + 1.0, name="C")
    return te.create_prim_func([a, te.compute((n, m), lambda i, j: c[i, j] * 3.0, name="D")])


def test_a_block_may_not_move_before_what_it_reads() -> None:
    func = chain()
    sch = Schedule(func)
    i, j = sch.get_loops("D")
    sch.compute_at("C", j)
    sch.compute_at("B", j)
    with pytest.raises(ScheduleError, match="block B, which makes what it reads, runs later in that loop"):
        sch.compute_at("C", i)
    sch.compute_at("B", i)
    sch.compute_at("C", i)
    check(sch, func)


def test_a_block_may_not_move_behind_what_reads_it() -> None:
    func = chain()
    sch = Schedule(func)
    i, j = sch.get_loops("B")
    sch.reverse_compute_at("C", j)
    sch.reverse_compute_at("D", j)
    with pytest.raises(ScheduleError, match="block D reads its result before that place"):
        sch.reverse_compute_at("C", i)
    sch.reverse_compute_at("D", i)
    sch.reverse_compute_at("C", i)
    check(sch, func)


def test_every_step_is_checked_for_races_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a primitive's own check overlooks: a parallel loop that now carries a dependence is refused."""

    def careless(func: PrimFunc) -> tuple[PrimFunc, None]:
        """Every iteration writes the first element."""
        b = func.blocks["B"]
        store = with_fields(b.body, indices=(const(0),))
        return module.base.replace(func, b, with_fields(b, body=store)), None

    monkeypatch.setitem(module.ALL, "annotate_less", Primitive("annotate_less", lambda func: None, careless))
    sch = Schedule(add())
    assert sch.why_not("annotate_less") is None
    sch.parallel(sch.get_loops("B")[0])
    refused = sch.why_not("annotate_less")
    assert refused is not None and "loop i is parallel, and then block B at i=0 writes" in refused.why


def one_block(body, extent: int = 8, binding=lambda i: i, extra: tuple[Buffer, ...] = ()) -> PrimFunc:
    """for i: block B over A and B, with a binding of one's own."""
    a, b = Buffer("A", (const(extent),), float32), Buffer("B", (const(extent),), float32)
    i, v = Var("i"), Var("v")
    block = Block("B", (IterVar(v, const(extent), "spatial", binding(i)),), body(a, b, v))
    return PrimFunc("by_hand", (a, b), For(i, const(extent), block), 1, extra)


def test_blockize_needs_a_range_from_zero() -> None:
    func = one_block(lambda a, b, v: Store(b, (v,), a[v] + 1.0), binding=lambda i: 7 - i)
    expect(func, "does not run over a range that is known", lambda s: s.blockize(s.get_loops("B")[0]))


def in_place() -> PrimFunc:
    """T[i] = T[i] + 1, in place, with no other writer; then B = 2 T."""
    t = Buffer("T", (const(8),), float32)
    func = one_block(lambda a, b, v: Store(b, (v,), t[v] * 2.0), extra=(t,))
    i, v = Var("i"), Var("v")
    update = Block("T", (IterVar(v, const(8), "spatial", i),), Store(t, (v,), Load(t, (v,)) + 1.0))
    return with_fields(func, body=seq([For(i, const(8), update), func.body]))


def unread() -> PrimFunc:
    """T is computed, and nobody reads it."""
    t = Buffer("T", (const(8),), float32)
    func = one_block(lambda a, b, v: Store(b, (v,), a[v] * 2.0), extra=(t,))
    i, v = Var("i"), Var("v")
    made = Block("T", (IterVar(v, const(8), "spatial", i),), Store(t, (v,), func.inputs[0][v]))
    return with_fields(func, body=seq([For(i, const(8), made), func.body]))


def test_inlining_needs_a_value_and_a_reader() -> None:
    expect(in_place(), "reads the buffer T that it writes", lambda s: s.compute_inline("T"))
    expect(in_place(), "other blocks read T too", lambda s: s.reverse_compute_inline("B"))
    expect(unread(), "nothing reads T", lambda s: s.compute_inline("T"))
    expect(unread(), "nothing reads T", lambda s: s.compute_at("T", s.get_loops("B")[0]))


def sum_and_window() -> PrimFunc:
    """D[i] = C[i] + (B[i] + B[i + 2]): a sum, and a window over another stage."""
    a, x = te.placeholder((10,), name="A"), te.placeholder((8, 5), name="X")
    b = te.compute((10,), lambda i: a[i] * 2.0, name="B")
    k = te.reduce_axis(5, "k")
    c = te.compute((8,), lambda i: te.sum(x[i, k], axis=k), name="C")
    return te.create_prim_func([a, x, te.compute((8,), lambda i: (b[i] + b[i + 2]) + c[i], name="D")])


def test_an_epilogue_over_a_ring_stays_where_it_is() -> None:
    func = sum_and_window()
    sch = Schedule(func)
    sch.compute_at("B", sch.get_loops("D")[0])
    sch.rolling_buffer("B")
    with pytest.raises(ScheduleError, match="overwritten as the loops go on"):
        sch.fuse_reduction_epilogue("C", "D")
    check(sch, func)
    again = Schedule(func)
    again.fuse_reduction_epilogue("C", "D")
    check(again, func)
    assert list(again.func.blocks) == ["B", "C"]


def test_a_reduction_into_a_padded_buffer_keeps_its_epilogue() -> None:
    """The block that fills the padding runs between the two, and would overwrite the sums."""
    a, bias = te.placeholder((5, 6), name="A"), te.placeholder((5,), name="b")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    d = te.compute((5,), lambda i: c[i] + bias[i], name="D")
    func = te.create_prim_func([a, bias, te.compute((5,), lambda i: d[i] * 2.0, name="E")])
    sch = Schedule(func)
    sch.transform_layout("D", 0, lambda i: (i + 2,), 0)
    with pytest.raises(ScheduleError, match="D has other writers"):
        sch.fuse_reduction_epilogue("C", "D")
    check(sch, func)


def test_a_parallel_loop_stays_independent_in_another_order() -> None:
    """U[i, j] reads what T wrote at (i - 1, j - 1): the inner loop is independent, as an outer one it would not be."""
    a, u, t = (Buffer(n, (const(s), const(s)), float32) for n, s in (("A", 6), ("U", 6), ("T", 7)))
    i, j, v, w, x, y = (Var(n) for n in ("i", "j", "v", "w", "x", "y"))
    iters = lambda p, q: (IterVar(p, const(6), "spatial", i), IterVar(q, const(6), "spatial", j))
    blocks = [
        Block("T", iters(v, w), Store(t, (v + 1, w + 1), a[v, w] * 2.0)),
        Block("U", iters(x, y), Store(u, (x, y), t[x, y] + 1.0)),
    ]
    sch = Schedule(PrimFunc("skewed", (a, u), For(i, const(6), For(j, const(6), seq(blocks))), 1, (t,)))
    sch.copy().reorder(j, i)
    sch.parallel(j)
    with pytest.raises(ScheduleError, match="j is parallel, and in the new order block T at j=0 writes"):
        sch.reorder(j, i)


def test_padding_along_a_diagonal_stays() -> None:
    """One loop runs over both iterators: no range of it is the padding of one of them."""
    a, b = Buffer("A", (const(6),), float32), Buffer("B", (const(8),), float32)
    p = Buffer("P", (const(8), const(8)), float32)
    i, j, v, w, x = (Var(n) for n in ("i", "j", "v", "w", "x"))
    iters = (IterVar(v, const(8), "spatial", i), IterVar(w, const(8), "spatial", i))
    fill = Block("P", iters, Store(p, (v, w), Select(v < 6, a[v], const(0.0))))
    use = Block("B", (IterVar(x, const(8), "spatial", j),), Store(b, (x,), p[x, x]))
    func = PrimFunc("diagonal", (a, b), seq([For(i, const(8), fill), For(j, const(8), use)]), 1, (p,))
    expect(func, "loop i has other uses", lambda s: s.decompose_padding("P", s.get_loops("P")[0]))


def test_a_sum_that_starts_with_a_bias_adds_it_once() -> None:
    """Neither partial results nor cooperating threads may each begin with it."""
    func = matmul_bias()
    sch = Schedule(func)
    sch.fuse_reduction_epilogue("C", "D")
    k = sch.get_loops("C")[2]
    with pytest.raises(ScheduleError, match="carries a reduction"):
        sch.bind(k, "threadIdx.x")
    partial = sch.rfactor("C", sch.split(k, [None, 4])[1])
    sch.parallel(sch.get_loops(partial)[0])
    check(sch, func)


def test_padding_that_ends_nobody_knows_where_stays() -> None:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((m,), name="A")
    p = te.compute((n,), lambda i: Select(i < m, a[i], const(0.0)), name="P")
    func = te.create_prim_func([a, te.compute((n,), lambda i: p[i] + 1.0, name="B")])
    expect(
        func,
        "not certain where the padding of iterator vi ends",
        lambda s: s.decompose_padding("P", s.get_loops("P")[0]),
    )


@pytest.mark.parametrize("size", [1, 5, 6])
def test_padding_of_unknown_sizes_is_decomposed(size: int) -> None:
    n = te.var("n")
    a, b = te.placeholder((n, 4), name="A"), te.placeholder((4, 3), name="B")
    k = te.reduce_axis(4, "k")
    sch = Schedule(
        te.create_prim_func([a, b, te.compute((n, 3), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")])
    )
    for block in sch.pad_einsum("C", [3, 2, 1]):
        if sch.why_not("decompose_padding", block, sch.get_loops(block)[0]) is None:
            sch.decompose_padding(block, sch.get_loops(block)[0])
    assert "C_pad_pad" not in sch.func.blocks and "A_pad_pad" in sch.func.blocks
    rng = np.random.default_rng(0)
    x, y = filled(rng, (size, 4)), filled(rng, (4, 3))
    assert np.array_equal(tcomp.compile(sch)(x, y), x @ y)


def test_work_is_not_repeated_for_nothing() -> None:
    """T is computed three times over; its reader would be too."""
    t = Buffer("T", (const(8),), float32)
    func = one_block(lambda a, b, v: Store(b, (v,), t[v] * 2.0), extra=(t,))
    i, v = Var("i"), Var("v")
    made = Block("T", (IterVar(v, const(8), "spatial", i),), Store(t, (v,), func.inputs[0][v]))
    repeated = For(Var("x"), const(3), For(i, const(8), made))
    func = with_fields(func, body=seq([repeated, func.body]))
    expect(func, "loop x would do the same work again", lambda s: s.reverse_compute_at("B", s.get_loops("T")[1]))


def test_partial_results_need_conditions_of_one_kind() -> None:
    """A triangle: which elements are summed depends on the row."""
    a, b = Buffer("A", (const(6), const(6)), float32), Buffer("B", (const(6),), float32)
    i, k, v, w = (Var(n) for n in ("i", "k", "v", "w"))
    iters = (IterVar(v, const(6), "spatial", i), IterVar(w, const(6), "reduce", k))
    zero = Store(b, (v,), const(0.0))
    block = Block("B", iters, Store(b, (v,), b[v] + a[v, w]), zero, k <= i)
    func = PrimFunc("triangle", (a, b), For(i, const(6), For(k, const(6), block)))
    expect(func, "mixes reduce and spatial loops", lambda s: s.rfactor("B", k))


def test_a_block_with_two_results_stays() -> None:
    a = te.placeholder((6,), name="A")
    b, c = te.compute((6,), lambda i: (a[i] + 1.0, a[i] * 2.0), name="BC")
    func = te.create_prim_func([a, te.compute((6,), lambda i: b[i] + c[i], name="D")])
    expect(func, "it writes several buffers", lambda s: s.compute_at("BC", s.get_loops("D")[0]))


def test_reverse_inlining_needs_one_expression_and_a_place_of_its_own() -> None:
    a = te.placeholder((6,), name="A")
    b, c = te.compute((6,), lambda i: (a[i] + 1.0, a[i] * 2.0), name="BC")
    func = te.create_prim_func([a, c, te.compute((6,), lambda i: b[i] * 3.0, name="D")])
    expect(func, "body of block BC is more than one store", lambda s: s.reverse_compute_inline("D"))

    def fill_between(s: Schedule) -> None:
        """A block that fills the padding of C stands between B and C."""
        s.transform_layout("C", 0, lambda i, j: (i, j + 1), 0)
        s.reverse_compute_inline("C")

    expect(chain(), "block C_pad uses C before that", fill_between)
    func = chain()
    sch = Schedule(func)
    sch.reverse_compute_inline("C")
    check(sch, func)


def test_a_block_that_writes_elsewhere_stays() -> None:
    def move(s: Schedule) -> None:
        s.transform_layout("C", 0, lambda i, j: (j // 2, i, j % 2))
        s.compute_at("C", s.get_loops("D")[0])

    expect(matmul(), "does not write C at its own spatial iterators", move)


def test_kernels_of_the_other_tests_are_as_they_seem() -> None:
    for func in (product(), matmul()):
        check(Schedule(func), func)


def test_an_axis_of_one_split_wide_may_go_inside_the_reduction() -> None:
    a, b, k = te.placeholder((20, 12), name="A"), te.placeholder((12, 1), name="B"), te.reduce_axis(12, "k")
    func = te.create_prim_func([a, b, te.compute((20, 1), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")])
    sch = Schedule(func)
    i, j, r = sch.get_loops("C")
    sch.split(i, [None, 8])
    sch.reorder(r, sch.split(j, [None, 16])[1])
    check(sch, func)


@pytest.mark.parametrize("step", ["decompose_reduction", "rfactor"])
def test_a_bound_loop_keeps_its_thread(step: str) -> None:
    a, k = te.placeholder((6, 5, 16), name="A"), te.reduce_axis(16, "k")
    func = te.create_prim_func([a, te.compute((6, 5), lambda i, j: te.sum(a[i, j, k], axis=k), name="C")])
    sch = Schedule(func)
    i, j, r = sch.get_loops("C")
    sch.bind(i, "blockIdx.x")
    sch.bind(j, "threadIdx.x")
    if step == "rfactor":
        sch.rfactor("C", sch.split(r, [None, 4])[1])
    else:
        sch.decompose_reduction("C", j)
    assert all(s.thread for s in sch.func.loops.values() if s.kind == "bound")
    assert sum(s.thread == "threadIdx.x" for s in sch.func.loops.values()) == 2
    check(sch, func)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_the_first_fetch_of_two_buffers_needs_an_iteration(size: int) -> None:
    n = te.var("n")
    a, k = te.placeholder((n, 4), name="A"), te.reduce_axis(4, "k")
    func = te.create_prim_func([a, te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="C")])
    sch = Schedule(func)
    i = sch.get_loops("C")[0]
    sch.double_buffer(sch.read_at(i, "C", "A", "local"), i)
    x = filled(np.random.default_rng(0), (size, 4))
    assert np.array_equal(tcomp.compile(sch)(x), x.sum(1))
    assert np.array_equal(run(sch.func, [x], {func.dims[0]: size})[0], x.sum(1))


def test_what_a_loop_writes_with_gaps_is_not_written_back_as_a_whole() -> None:
    """Each iteration writes every fourth column: a copy of its own, written back from the first to the last, would have gaps."""
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((n, m), lambda i, j: a[i, j] + 1.0, name="C")]))
    i, j = sch.get_loops("C")
    outer, inner = sch.split(j, [None, 4])
    sch.reorder(inner, i, outer)
    with pytest.raises(ScheduleError, match="block C leaves gaps in C_local between iterations of that loop"):
        sch.write_at(inner, "C", "C", "local")


def test_density_is_asked_of_every_dimension() -> None:
    n, i, j = Var("n"), Var("i"), Var("j")
    inner = {i: (const(0), n - 1), j: (const(0), const(3))}
    assert is_dense((i, j), inner, {}) and is_dense((i * 4 + j,), inner, {})
    assert not is_dense((i, j * 2), inner, {}) and not is_dense((i * 3 + j,), inner, {})
    assert not is_dense((j, i * 2), inner, {}) and not is_dense((i + n * j,), inner, {})
