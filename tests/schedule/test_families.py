"""Each newer primitive: what it does, on kernels that are then run, and what it must refuse."""

from collections.abc import Callable

import pytest
from harness import check, expect
from kernels import (
    add,
    argmax,
    blur,
    gathered,
    matmul,
    matmul_bias,
    matmul_relu_scale,
    padded,
    product,
    quantized,
    row_sum,
    strided,
    symbolic_sum,
)

from tcomp import te
from tcomp.ir import For, PrimFunc, Select, Var, const
from tcomp.ir.node import with_fields
from tcomp.ir.printer import text
from tcomp.ir.stmt import replace_statements
from tcomp.schedule import Schedule

# kernels that only some refusals need


def window(n: int = 12) -> PrimFunc:
    """A stencil over a stencil, in two dimensions."""
    a = te.placeholder((n + 2, n + 2), name="A")
    b = te.compute((n + 2, n), lambda y, x: a[y, x] + a[y, x + 1] + a[y, x + 2], name="B")
    return te.create_prim_func([a, te.compute((n, n), lambda y, x: b[y, x] + b[y + 1, x] + b[y + 2, x], name="S")])


def sums(n: int = 6, m: int = 8) -> PrimFunc:
    """A sum over what an elementwise stage makes."""
    a = te.placeholder((n, m), name="A")
    d = te.compute((n, m), lambda i, j: a[i, j] * 2.0, name="D")
    k = te.reduce_axis(m, "k")
    return te.create_prim_func([a, te.compute((n,), lambda i: te.sum(d[i, k], axis=k), name="S")])


def symbolic_add() -> PrimFunc:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    return te.create_prim_func([a, te.compute((n,), lambda i: a[i] + 1.0, name="B")])


def symbolic_product() -> PrimFunc:
    n, m, r = te.var("n"), te.var("m"), te.var("r")
    a, b = te.placeholder((n, r), name="A"), te.placeholder((r, m), name="B")
    k = te.reduce_axis(r, "k")
    return te.create_prim_func([a, b, te.compute((n, m), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")])


def two_readers() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((6,), lambda i: b[i] + 1.0, name="C")
    return te.create_prim_func([a, c, te.compute((6,), lambda i: b[i] + 2.0, name="D")])


def part_read() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((4,), lambda i: b[i] + 1.0, name="C")])


def part_read_whole() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[i] + 1.0, name="C")])


def late_operand() -> PrimFunc:
    """D reads B and, later made, C."""
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((6,), lambda i: a[i] * 3.0, name="C")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[i] + c[i], name="D"), c])


def squared() -> PrimFunc:
    """A sum of squares of differences: no product of elements."""
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    return te.create_prim_func([a, te.compute((5,), lambda i: te.sum((a[i, k] - 1.0) * a[i, k], axis=k), name="S")])


def scaled_sum() -> PrimFunc:
    a, s = te.placeholder((5, 6), name="A"), te.placeholder((5,), name="s")
    k = te.reduce_axis(6, "k")
    return te.create_prim_func([a, s, te.compute((5,), lambda i: te.sum(a[i, k] * s[i], axis=k), name="S")])


def condition_of_two() -> PrimFunc:
    a = te.placeholder((6, 6), name="A")
    p = te.compute((8, 8), lambda i, j: Select(i + j < 6, a[te.minimum(i, 5), te.minimum(j, 5)], const(0.0)), name="P")
    return te.create_prim_func([a, te.compute((6, 6), lambda i, j: p[i, j] + p[i + 2, j + 2], name="S")])


def all_padding() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    p = te.compute((6,), lambda i: Select(i >= 6, a[i], const(0.0)), name="P")
    return te.create_prim_func([a, te.compute((6,), lambda i: p[i] + 1.0, name="S")])


def pads_with_values() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    p = te.compute((6,), lambda i: Select(i >= 2, a[i], a[0]), name="P")
    return te.create_prim_func([a, te.compute((6,), lambda i: p[i] + 1.0, name="S")])


def guarded_read() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    return te.create_prim_func([a, te.compute((8,), lambda i: Select(i < 6, a[i], const(0.0)), name="B")])


def twice() -> PrimFunc:
    a = te.placeholder((7,), name="A")
    return te.create_prim_func([a, te.compute((6,), lambda i: a[i] + a[i + 1], name="B")])


def looked_up() -> PrimFunc:
    index = te.placeholder((5,), "int64", "I")
    a = te.placeholder((9,), name="A")
    return te.create_prim_func([index, a, te.compute((5,), lambda i: a[index[i] % 9], name="B")])


def maximum_epilogue() -> PrimFunc:
    a, b = te.placeholder((5, 6), name="A"), te.placeholder((5,), name="b")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.max(a[i, k], axis=k), name="C")
    return te.create_prim_func([a, b, te.compute((5,), lambda i: c[i] + b[i], name="D")])


def self_added() -> PrimFunc:
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    return te.create_prim_func([a, te.compute((5,), lambda i: c[i] + c[i] * 2.0, name="D")])


def part_added() -> PrimFunc:
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    return te.create_prim_func([a, te.compute((4,), lambda i: c[i] + 1.0, name="D")])


def shifted_added() -> PrimFunc:
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    return te.create_prim_func([a, te.compute((4,), lambda i: c[i + 1] + 1.0, name="D")])


def late_addend() -> PrimFunc:
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    e = te.compute((5,), lambda i: a[i, 0] * 2.0, name="E")
    return te.create_prim_func([a, te.compute((5,), lambda i: c[i] + e[i], name="D"), e])


def two_users_of_sum() -> PrimFunc:
    a = te.placeholder((5, 6), name="A")
    k = te.reduce_axis(6, "k")
    c = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="C")
    d = te.compute((5,), lambda i: c[i] + 1.0, name="D")
    return te.create_prim_func([a, d, te.compute((5,), lambda i: c[i] + 2.0, name="E")])


def two_outputs() -> PrimFunc:
    """One block with two stores."""
    a = te.placeholder((6,), name="A")
    b, c = te.compute((6,), lambda i: (a[i] + 1.0, a[i] * 2.0), name="BC")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[i] + c[i], name="D")])


# what they do


def _merge(s: Schedule) -> None:
    (x,), (y,) = s.get_loops("A2"), s.get_loops("A3")
    m = s.merge(x, y)
    assert s.get_loops("A2") == s.get_loops("A3") == [m]
    s.parallel(m)


def _merge_parallel(s: Schedule) -> None:
    loops = s.get_loops("A2") + s.get_loops("A3")
    for v in loops:
        s.parallel(v)
    merged = s.merge(*loops)
    assert s.func.loops[merged].kind == "parallel"


def _partition(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    a, b = s.loop_partition(i, [4, None])
    assert s.get_extent(a) == 4 and s.get_extent(b) == 2
    s.parallel(a)
    s.loop_partition(s.get_loops("D")[0], [None, 1, 2])


def _partition_reduction(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.reorder(k, i, j)
    first, rest = s.loop_partition(k, [2, None])
    assert s.func.blocks["C"].init is not None and s.func.blocks["C_1"].init is None
    s.vectorize(j)


def _unit(s: Schedule) -> None:
    u = s.add_unit_loop("C")
    s.parallel(s.add_unit_loop(s.get_loops("C")[0]))
    assert s.get_extent(u) == 1


def _split_exactly(s: Schedule) -> None:
    i, j, _ = s.get_loops("C")
    s.split(i, [2, None], disable_predication=True)
    assert s.func.blocks["C"].where is None


def _split_of_special_loops(s: Schedule) -> None:
    i, j = s.get_loops("D")
    s.parallel(i)
    s.vectorize(j)
    a, b = s.split(i, [None, 2])
    c, d = s.split(j, [None, 5])
    kinds = [s.func.loops[v].kind for v in (a, b, c, d)]
    assert kinds == ["parallel", "serial", "serial", "vectorized"]
    s.unroll(b)
    assert [s.func.loops[v].kind for v in s.split(b, [1, 2])] == ["unrolled", "unrolled"]


def _fuse_parallel(s: Schedule) -> None:
    i, j = s.get_loops("D")
    s.parallel(i)
    fused = s.fuse(i, j)
    assert s.func.loops[fused].kind == "parallel"


def _bind(s: Schedule) -> None:
    i, j = s.get_loops("D")
    s.bind(i, "blockIdx.x")
    a, b = s.split(j, [None, 5])
    s.bind(a, "vthread.x")
    s.bind(b, "threadIdx.x")
    assert "threadIdx.x: range(5)" in text(s.func)


def _cross_threads(s: Schedule) -> None:
    i, k = s.get_loops("S")
    _, inner = s.split(k, [None, 8])
    s.bind(i, "blockIdx.x")
    s.bind(inner, "threadIdx.x")


def _notes(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.annotate(i, "note", 1)
    s.unannotate(i, "note")
    s.pragma(k, "prefetch", 3)
    s.pragma(i, "auto_unroll_max_step", 16)
    assert "note" not in text(s.func)


def _inline_reverse(s: Schedule) -> None:
    s.reverse_compute_inline("E")
    assert list(s.func.blocks) == ["C", "D"]


def _epilogue(s: Schedule) -> None:
    s.fuse_reduction_epilogue("C", "D")
    assert list(s.func.blocks) == ["C"]
    i, j, k = s.get_loops("C")
    s.decompose_reduction("C", k)
    s.parallel(i)


def _reverse_reduction(s: Schedule) -> None:
    s.reverse_compute_at("S", s.get_loops("D")[0])
    s.parallel(s.get_loops("S")[0])


def _outward(s: Schedule) -> None:
    i, j = s.get_loops("D")
    s.compute_at("C", j)
    s.compute_at("C", i)
    assert s.get_loops("C")[0] is i and j not in s.get_loops("C")


def _inplace(s: Schedule) -> None:
    s.decompose_reduction("C", s.get_loops("C")[0])
    a, b = s.cache_inplace("C", "C", "local")
    assert [r.name for r in s.get_producers("C")] == [a.name] and s.get_consumers("C") == [b]


def _at(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    s.read_at(i, "C", "A", "local")
    s.read_at(j, "C", "B")
    s.write_at(i, "C", 0, "local")


def _reindex(s: Schedule) -> None:
    s.reindex("C", "X")
    s.reindex("C", "C")
    assert s.func.blocks["C"].body.value.b.a.buffer.name == "X_reindex"


def _reindex_maps(s: Schedule) -> None:
    s.reindex_cache_read("C", "B", "global", lambda i, j, k: (j // 4, k, j % 4))
    s.reindex_cache_write("C", "C", "local", "lambda i, j, k: (j, i)")
    assert [b.shape[0].value for b in s.func.allocs] == [3, 10]


def _index(s: Schedule) -> None:
    rows, columns = s.cache_index("R")
    assert s.get_producers("R") == [rows, columns]


def _align(s: Schedule) -> None:
    s.storage_align("C", 0, 0, 16, 3)
    s.storage_align("C", 0, 0, 32, 1)
    i, j, _ = s.get_loops("C")
    s.vectorize(s.split(j, [None, 4])[1])
    assert "stride of axis 0 = 1 mod 32" in text(s.func)


def _roll(s: Schedule) -> None:
    y, x = s.get_loops("S")
    s.compute_at("B", y)
    s.rolling_buffer("B")
    assert s.func.allocs[0].shape[0] == const(3)
    s.vectorize(x)
    s.vectorize(s.get_loops("B")[-1])


def _roll_tiles(s: Schedule) -> None:
    y, x = s.get_loops("S")
    y0, x0, y1, x1 = s.tile(y, x, 4, 4)
    s.reorder(x0, y0, y1, x1)
    s.compute_at("B", y0)
    s.rolling_buffer("B")
    assert s.func.allocs[0].shape[0] == const(6)
    s.parallel(x0)


def _double(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 3])
    s.reorder(k0, i, j, k1)
    copy = s.read_at(k0, "C", "B", "local")
    first = s.double_buffer(copy, k0)
    assert first.name in s.func.blocks and s.func.allocs[0].shape[0] == const(2)
    s.parallel(i)


def _layout(s: Schedule) -> None:
    assert s.transform_layout("C", 0, lambda i, j: (j // 4, i, j % 4)) is None
    fill = s.transform_layout("C", 0, lambda o, i, l: (i, o * 4 + l + 2), pad_value=7)
    assert fill is not None and fill.name == "C_pad"
    s.vectorize(s.get_loops("D")[1])


def _block_layout(s: Schedule) -> None:
    loops = s.transform_block_layout("C", lambda i, j, k: (j // 5, i * 5 + j % 5, k))
    assert [s.get_extent(v) for v in loops] == [2, 30, 7]
    s.parallel(loops[0])
    s.reorder_block_iter_var("C", [1, 2, 0])


def _pad(s: Schedule) -> None:
    blocks = s.pad_einsum("C", [4, 4, 4])
    assert [r.name for r in blocks] == ["A_pad", "B_pad", "C_pad"]
    s.vectorize(s.get_loops("C")[1])


def _pad_spatial(s: Schedule) -> None:
    assert [r.name for r in s.pad_einsum("S", [4, 1])] == ["A_pad", "s_pad", "S_pad"]


def _decompose_padding(s: Schedule) -> None:
    (i,) = s.get_loops("P")
    fill = s.decompose_padding("P", i)
    assert s.get_extent(i) == 6 and s.get_extent(s.get_loops(fill)[0]) == 8
    s.vectorize(i)


def _blockize(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    j0, j1 = s.split(j, [None, 5])
    k0, k1 = s.split(k, [None, 7])
    s.reorder(i, j0, k0, j1, k1)
    tile = s.blockize(j1)
    s.decompose_reduction(tile, k0)
    s.parallel(i)
    assert s.get_loops(tile) == [i, j0, k0] and s.get_child_blocks(i)[-1] == tile


def _sample(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    a, b = s.sample_perfect_tile(j, 2, 8)
    s.split(j, [a, b])
    c, d = s.sample_partitioned_tile(i, 2, 1, 3)
    assert c * d == 6 and d % 3 == 0
    s.split(i, [c, d])
    factor = s.sample_categorical([2, 4], [0.5, 0.5])
    s.split(k, [None, factor])
    at = s.sample_compute_location("C")
    if at is not None:
        s.compute_at("C", at)


def _tensorize(s: Schedule) -> None:
    s.tensorize(_dot_loops(s)[2], "avx512_vnni_u8i8")


def _wider(s: Schedule) -> None:
    s.unsafe_set_dtype("C", 0, "float64")


DONE = [
    (_merge, blur), (_merge_parallel, blur), (_partition, matmul), (_partition_reduction, product), (_unit, matmul),
    (_split_exactly, matmul), (_split_of_special_loops, matmul), (_fuse_parallel, matmul), (_bind, matmul),
    (_cross_threads, row_sum), (_notes, matmul), (_inline_reverse, matmul_relu_scale), (_epilogue, matmul_bias),
    (_reverse_reduction, sums), (_outward, matmul), (_inplace, product), (_at, product), (_reindex, strided),
    (_reindex_maps, product), (_index, gathered), (_align, matmul), (_roll, window), (_roll_tiles, window),
    (_double, product), (_layout, matmul), (_block_layout, product), (_pad, product), (_pad_spatial, scaled_sum),
    (_decompose_padding, padded), (_blockize, product), (_sample, matmul), (_tensorize, quantized), (_wider, matmul),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "func"), DONE, ids=[f.__name__[1:] for f, _ in DONE])
def test_primitives_keep_the_meaning(steps: Callable, func: Callable[[], PrimFunc]) -> None:
    made = func()
    sch = Schedule(made)
    steps(sch)
    check(sch, made, native=steps is not _tensorize)  # tests of its effect ask whether this CPU has the instruction


# what they refuse


def _rolled(s: Schedule) -> None:
    y, _ = s.get_loops("S")
    s.compute_at("B", y)
    s.rolling_buffer("B")


def _rfactor_beside_fused(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 2])
    s.fuse(j, k0)
    s.rfactor("C", k1)


def _rfactor_inside(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 2])
    s.reorder(k0, i, j, k1)
    s.read_at(k0, "C", "B")
    s.rfactor("C", k1)


def _rolled_in_lanes(s: Schedule) -> None:
    y, x = s.get_loops("S")
    s.reorder(x, y)
    s.compute_at("B", y)
    s.vectorize(x)
    s.rolling_buffer("B")


def _doubled_in_lanes(s: Schedule) -> None:
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 2])
    s.reorder(i, k0, j, k1)
    copy = s.read_at(k0, "C", "B")
    s.vectorize(i)
    s.double_buffer(copy, k0)


def _copy_of_a_copy(s: Schedule) -> None:
    i = s.get_loops("C")[0]
    copy = s.read_at(i, "C", "A")
    s.read_at(i, copy, "A")
    s.double_buffer(copy, i)


def _doubled(s: Schedule) -> tuple:
    i = s.get_loops("C")[0]
    copy = s.read_at(i, "C", "A", "local")
    s.double_buffer(copy, i)
    return copy, i


def _dot_loops(s: Schedule) -> tuple:
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 4])
    s.reorder(k0, j, k1)
    return i, k0, j, k1


VNNI = "avx512_vnni_u8i8"
P_I_J_K = "lambda i, j, k: (i, j, k)"
REFUSED = [
    # merge, loop_partition
    ("at least two loops", blur, lambda s: s.merge(s.get_loops("A2")[0])),
    ("directly behind one another", blur, lambda s: s.merge(s.get_loops("A3")[0], s.get_loops("A2")[0])),
    ("directly behind one another", product, lambda s: s.merge(*s.get_loops("C")[:2])),
    ("extents differ", blur, lambda s: s.merge(s.get_loops("A3")[0], s.get_loops("S")[0])),
    ("one is parallel", blur, lambda s: (s.parallel(s.get_loops("A2")[0]), s.merge(s.get_loops("A2")[0], s.get_loops("A3")[0]))),
    ("would change places", lambda: part_flip(), lambda s: s.merge(s.get_loops("B")[0], s.get_loops("C")[0])),
    ("merged loop would be parallel", lambda: part_late(), lambda s: (s.parallel(s.get_loops("B")[0]), s.parallel(s.get_loops("C")[0]), s.merge(s.get_loops("B")[0], s.get_loops("C")[0]))),
    ("no block 'Z'", add, lambda s: s.add_unit_loop("Z")),
    ("at least two parts", add, lambda s: s.loop_partition(s.get_loops("B")[0], [10])),
    ("only one size", add, lambda s: s.loop_partition(s.get_loops("B")[0], [None, None])),
    ("positive integers", add, lambda s: s.loop_partition(s.get_loops("B")[0], [0, None])),
    ("parts have 10 iterations, the loop 10", add, lambda s: s.loop_partition(s.get_loops("B")[0], [10, None])),
    ("parts have 9 iterations", add, lambda s: s.loop_partition(s.get_loops("B")[0], [4, 5])),
    ("known only when the kernel runs", symbolic_add, lambda s: s.loop_partition(s.get_loops("B")[0], [4, None])),
    ("bound to vthread.x", add, lambda s: (s.bind(s.get_loops("B")[0], "vthread.x"), s.loop_partition(s.get_loops("B")[0], [4, None]))),
    # split, fuse
    ("run past the end", add, lambda s: s.split(s.get_loops("B")[0], [None, 4], disable_predication=True)),
    ("bound to vthread.x", add, lambda s: (s.bind(s.get_loops("B")[0], "vthread.x"), s.split(s.get_loops("B")[0], [None, 2]))),
    ("loop j is vectorized", matmul, lambda s: (s.vectorize(s.get_loops("D")[1]), s.fuse(*s.get_loops("D")))),
    ("bound to vthread.x", matmul, lambda s: (s.bind(s.get_loops("D")[0], "vthread.x"), s.fuse(*s.get_loops("D")))),
    ("fused loop would be parallel", row_sum, lambda s: (s.parallel(s.get_loops("S")[0]), s.fuse(*s.get_loops("S")))),
    # kinds of loops
    ("bound to vthread.x", add, lambda s: (s.bind(s.get_loops("B")[0], "vthread.x"), s.parallel(s.get_loops("B")[0]))),
    ("bound to vthread.x", add, lambda s: (s.bind(s.get_loops("B")[0], "vthread.x"), s.unroll(s.get_loops("B")[0]))),
    ("tensorized: it brings its own", quantized, lambda s: (s.tensorize(_dot_loops(s)[2], VNNI), s.vectorize(s.get_loops("C_o")[0]))),
    ("is symbolic", symbolic_add, lambda s: s.vectorize(s.get_loops("B")[0])),
    ("is symbolic", symbolic_add, lambda s: s.unroll(s.get_loops("B")[0])),
    # bind
    ("no such index", add, lambda s: s.bind(s.get_loops("B")[0], "threadIdx.w")),
    ("already bound", add, lambda s: (s.bind(s.get_loops("B")[0], "vthread.x"), s.bind(s.get_loops("B")[0], "vthread.y"))),
    ("must be constant", symbolic_add, lambda s: s.bind(s.get_loops("B")[0], "threadIdx.x")),
    ("is threadIdx.x already", matmul, lambda s: (s.bind(s.get_loops("D")[0], "threadIdx.x"), s.bind(s.get_loops("D")[1], "threadIdx.x"))),
    ("inside the vectorized loop", matmul, lambda s: (s.vectorize(s.get_loops("D")[0]), s.bind(s.get_loops("D")[1], "threadIdx.x"))),
    ("of another extent", lambda: blur(8), lambda s: (_side_by_side(s), s.bind(s.get_loops("A2")[1], "threadIdx.x"), s.bind(s.get_loops("S")[1], "threadIdx.x"))),
    ("more than 1024", lambda: add(2000), lambda s: s.bind(s.get_loops("B")[0], "threadIdx.x")),
    ("carries a reduction", row_sum, lambda s: s.bind(s.get_loops("S")[1], "blockIdx.x")),
    ("carries a reduction", argmax, lambda s: s.bind(s.get_loops("arg")[1], "threadIdx.x")),
    ("carries a reduction", row_sum, lambda s: s.bind(s.fuse(*s.get_loops("S")), "threadIdx.x")),
    ("a parallel loop would run inside", lambda: matmul(m=8), lambda s: (s.vectorize(s.get_loops("D")[1]), s.parallel(s.get_loops("D")[0]), s.reorder(s.get_loops("D")[1], s.get_loops("D")[0]))),
    # notes
    ("its annotations are: none", add, lambda s: s.unannotate("B", "note")),
    ("its annotations are", quantized, lambda s: (s.tensorize(_dot_loops(s)[2], VNNI), s.unannotate("C_o", "tensor_intrin"))),
    ("no such pragma", add, lambda s: s.pragma(s.get_loops("B")[0], "ivdep", 1)),
    ("integer from 0 to", add, lambda s: s.pragma(s.get_loops("B")[0], "prefetch", -1)),
    ("none left when code is made", add, lambda s: (s.unroll(s.get_loops("B")[0]), s.pragma(s.get_loops("B")[0], "prefetch", 1))),
    # compute_inline and its likes
    ("more than one store", two_outputs, lambda s: s.compute_inline("BC")),
    ("not one elementwise store", matmul, lambda s: s.reverse_compute_inline("C")),
    ("no block of this function", add, lambda s: s.reverse_compute_inline("B")),
    ("2 blocks of this function", late_operand_inner := (lambda: _late_inner()), lambda s: s.reverse_compute_inline("D")),
    ("is a reduction", matmul, lambda s: s.reverse_compute_inline("D")),
    ("other blocks read B", two_readers, lambda s: s.reverse_compute_inline("D")),
    ("not read B at all of its own", lambda: _shifted_reader(), lambda s: s.reverse_compute_inline("C")),
    ("only a part of B", part_read, lambda s: s.reverse_compute_inline("C")),
    ("which is computed later", late_operand, lambda s: s.reverse_compute_inline("D")),
    ("is not a sum with its own init", maximum_epilogue, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("is not a sum with its own init", matmul_bias, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.fuse_reduction_epilogue("C", "D"))),
    ("an output of the function", product, lambda s: s.fuse_reduction_epilogue("C", "C")),
    ("does not add to C", matmul, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("does not add to C", self_added, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("other blocks read C", two_users_of_sum, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("only a part of axis", part_added, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("do not run over the same axes", shifted_added, lambda s: s.fuse_reduction_epilogue("C", "D")),
    ("computes later", late_addend, lambda s: s.fuse_reduction_epilogue("C", "D")),
    # placement
    ("produced outside the loop", part_read_whole, lambda s: s.reverse_compute_at("C", s.loop_partition(s.get_loops("B")[0], [2, None])[1])),
    ("does not read B at its own iterators", lambda: part_flip(), lambda s: s.reverse_compute_at("C", s.get_loops("B")[0])),
    ("loop j is vectorized", matmul, lambda s: (s.vectorize(s.get_loops("C")[1]), s.decompose_reduction("C", s.get_loops("C")[2]))),
    ("does not belong to one axis", product, lambda s: _rfactor_beside_fused(s)),
    ("around other blocks reduces too", lambda: product(6, 10, 8), lambda s: _rfactor_inside(s)),
    ("block C_init writes C as well", matmul, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.compute_at("C", s.get_loops("D")[0]))),
    ("runs inside, a vectorized loop", matmul, lambda s: (s.vectorize(s.get_loops("C")[1]), s.reverse_compute_at("D", s.get_loops("C")[1]))),
    ("also reads C, which is computed later", lambda: _late_inner(), lambda s: s.reverse_compute_at("D", s.get_loops("B")[0])),
    ("only a part of its reduce axis", sums, lambda s: s.reverse_compute_at("S", s.get_loops("D")[1])),
    ("writes S as well", sums, lambda s: (s.decompose_reduction("S", s.get_loops("S")[1]), s.reverse_compute_at("S", s.get_loops("D")[0]))),
    ("overwritten as the loops go on", window, lambda s: (_rolled(s), s.compute_at("B", s.get_loops("S")[1]))),
    ("overwritten as the loops go on", window, lambda s: (_rolled(s), s.reverse_compute_at("S", s.get_loops("B")[0]))),
    ("overwritten as the loops go on", lambda: _three_stages(), lambda s: (s.compute_at("B", s.get_loops("C")[0]), s.rolling_buffer("B"), s.reverse_compute_inline("D"))),
    # caching
    ("does not write it", product, lambda s: s.cache_inplace("C", "A")),
    ("uses C in the same loop nest", product, lambda s: (s.decompose_reduction("C", s.get_loops("C")[2]), s.cache_inplace("C", "C"))),
    ("no scope", product, lambda s: s.cache_inplace("C", "C", "texture")),
    ("does not read it", product, lambda s: s.read_at(s.get_loops("C")[0], "C", "C")),
    ("outside the loop", matmul, lambda s: s.read_at(s.get_loops("D")[0], "C", "A")),
    ("does not write it", product, lambda s: s.write_at(s.get_loops("C")[0], "C", "A")),
    ("still reducing", product, lambda s: s.write_at(s.get_loops("C")[2], "C", "C")),
    ("no scope", matmul, lambda s: s.set_scope("C", 0, "texture")),
    ("unknown dtype|float99", matmul, lambda s: s.unsafe_set_dtype("C", 0, "float99")),
    ("no narrower or wider form", matmul, lambda s: s.unsafe_set_dtype("C", 0, "bool")),
    ("parameter of the function", product, lambda s: s.unsafe_set_dtype("C", 0, "float64")),
    ("tensorized for int32", quantized, lambda s: (s.tensorize(_dot_loops(s)[2], VNNI), s.unsafe_set_dtype("C_o", 0, "int64"))),
    # reindexing
    ("does not use it", matmul, lambda s: s.reindex("D", "A")),
    ("several places of an iteration", twice, lambda s: s.reindex("B", "A")),
    ("takes 2 indices, the block has 3", product, lambda s: s.reindex_cache_read("C", "A", "global", lambda i, k: (i, k))),
    ("may not depend on a reduce iterator", product, lambda s: s.reindex_cache_write("C", "C", "global", P_I_J_K)),
    ("init reads b", matmul_bias, lambda s: (s.fuse_reduction_epilogue("C", "D"), s.reindex_cache_read("C", "b", "global", lambda i, j, k: (j, k)))),
    ("goes below 0", product, lambda s: s.reindex_cache_read("C", "A", "global", lambda i, j, k: (i - 1, k))),
    ("share one place", product, lambda s: s.reindex_cache_read("C", "A", "global", lambda i, j, k: (i,))),
    ("two iterations to one place", product, lambda s: s.reindex_cache_read("C", "A", "global", lambda i, j, k: (i, k, j // 2))),
    ("not certain that every index is inside", guarded_read, lambda s: s.reindex("B", "A")),
    ("not affine", looked_up, lambda s: s.reindex_cache_read("B", "A", "global", lambda i: (i // 2,))),
    ("does not write it", product, lambda s: s.reindex_cache_write("C", "A", "global", lambda i, j, k: (i, j))),
    ("does not read it", product, lambda s: s.reindex_cache_read("C", "C", "global", lambda i, j, k: (i, j))),
    ("no index map", product, lambda s: s.reindex_cache_read("C", "A", "global", "i + 1")),
    ("by // or %", product, lambda s: s.cache_index("C")),
    ("value from memory", looked_up, lambda s: s.cache_index("B")),
    ("no scope", gathered, lambda s: s.cache_index("R", "texture")),
    # storage
    ("parameter of the function", product, lambda s: s.storage_align("C", 0, 0, 16, 1)),
    ("no axis 2", matmul, lambda s: s.storage_align("C", 0, 2, 16, 1)),
    ("cannot be 16 modulo 16", matmul, lambda s: s.storage_align("C", 0, 0, 16, 16)),
    ("does not write it", window, lambda s: s.rolling_buffer("B", "A")),
    ("an output of the function", window, lambda s: s.rolling_buffer("S")),
    ("moves the region", window, lambda s: s.rolling_buffer("B")),
    ("inside that loop, and C_local_in writes it too", product, lambda s: s.decompose_reduction("C", s.merge(s.get_loops(s.cache_inplace("C", "C", "local")[0])[0], s.get_loops("C")[0]))),
    ("the init reads b_local, which", matmul_bias, lambda s: (s.fuse_reduction_epilogue("C", "D"), s.read_at(s.get_loops("C")[2], "C", "b", "local"), s.decompose_reduction("C", s.get_loops("C")[2]))),
    ("its iterations overlap", matmul, lambda s: (s.compute_at("C", s.split(s.split(s.get_loops("D")[1], [None, 5])[1], [16, None])[0]), s.decompose_reduction("C", s.get_loops("C")[0]))),
    ("vk does not begin at 0 there", lambda: _late_sum(), lambda s: s.decompose_reduction("C", s.get_loops("C")[1])),
    ("already a block of its own", product, lambda s: (a := s.loop_partition(s.get_loops("C")[2], [6, 1])) and s.decompose_reduction("C_1", a[1])),
    ("parts of the window are not made", window, lambda s: (s.compute_at("B", s.split(s.get_loops("S")[0], [None, 2])[0]), s.split(s.get_loops("B")[1], [None, 16]), s.rolling_buffer("B"))),
    ("do not overlap", window, lambda s: (s.compute_at("B", s.split(s.get_loops("S")[1], [None, 4])[0]), s.rolling_buffer("B"))),
    ("does not move along one axis", lambda: _diagonal(), lambda s: (s.compute_at("B", s.get_loops("S")[0]), s.rolling_buffer("B"))),
    ("use what the one before it made", window, lambda s: (s.compute_at("B", s.get_loops("S")[0]), s.parallel(s.get_loops("S")[0]), s.rolling_buffer("B"))),
    ("reads changes inside that loop", window, lambda s: (s.compute_at("B", s.get_loops("S")[0]), s.read_at(s.get_loops("B")[1], "B", "A"), s.rolling_buffer("B"))),
    ("computes parts of the window", lambda: _two_windows(), lambda s: (_merged_windows(s), s.rolling_buffer("B"))),
    ("not one elementwise store", matmul, lambda s: s.double_buffer("C", s.get_loops("C")[0])),
    ("an output of the function", add, lambda s: s.double_buffer("B", s.get_loops("B")[0])),
    ("no iteration comes before another", product, lambda s: (s.parallel(s.get_loops("C")[0]), s.double_buffer(s.read_at(s.get_loops("C")[0], "C", "A"), s.get_loops("C")[0]))),
    ("does not stand directly", product, lambda s: (s.cache_read("C", "A"), s.double_buffer("A_global", s.get_loops("C")[0]))),
    ("tells in which iteration", product, lambda s: s.double_buffer(s.read_at(s.get_loops("C")[1], "C", "A"), s.get_loops("C")[1])),
    ("overwritten as the loops go on", product, lambda s: s.double_buffer(*_doubled(s))),
    ("tensorized for the present ones", lambda: _quantized_relu(), lambda s: (s.tensorize(_dot_loops(s)[2], VNNI), s.storage_align("C_o", 0, 0, 16, 1))),
    ("lanes of loop x would share", window, lambda s: _rolled_in_lanes(s)),
    ("lanes would share B", window, lambda s: (_roll_tiles(s), s.vectorize(s.get_loops("S")[0]))),
    ("lanes of loop i would share", lambda: product(8), lambda s: _doubled_in_lanes(s)),
    ("is also used outside the loop", two_readers, lambda s: s.double_buffer("B", s.merge(s.get_loops("B")[0], s.get_loops("C")[0]))),
    ("changes what it reads, inside that loop", product, lambda s: _copy_of_a_copy(s)),
    ("what tensorize leaves", add, lambda s: s.annotate("B", "tensor_intrin", VNNI)),
    ("the same element of B", window, lambda s: (_rolled(s), s.parallel(s.split(s.get_loops("S")[0], [None, 4])[0]))),
    # layout
    ("parameter: its layout", product, lambda s: s.transform_layout("C", 0, lambda i, j: (j, i))),
    ("strides are aligned", matmul, lambda s: (s.storage_align("C", 0, 0, 16, 1), s.transform_layout("C", 0, lambda i, j: (j, i)))),
    ("padding value is a number", matmul, lambda s: s.transform_layout("C", 0, lambda i, j: (j, i), "zero")),
    ("int32 does not hold", lambda: _integers(), lambda s: s.transform_layout("B", 0, lambda i: (i + 1,), 0.5)),
    ("takes 1 indices, not 2", matmul, lambda s: s.transform_layout("C", 0, lambda i: (i,))),
    ("goes below 0", matmul, lambda s: s.transform_layout("C", 0, lambda i, j: (i - 1, j))),
    ("two indices to one", matmul, lambda s: s.transform_layout("C", 0, lambda i, j: (i + j,))),
    ("not affine", matmul, lambda s: s.transform_layout("C", 0, lambda i, j: (i * j, i, j + i * j))),
    ("not, one by one, its iterators", product, lambda s: (s.split(s.get_loops("C")[0], [None, 2]), s.transform_block_layout("C", P_I_J_K))),
    ("loop i is parallel", product, lambda s: (s.parallel(s.get_loops("C")[0]), s.transform_block_layout("C", P_I_J_K))),
    ("is symbolic", symbolic_product, lambda s: s.transform_block_layout("C", P_I_J_K)),
    ("takes 2 indices", product, lambda s: s.transform_block_layout("C", lambda i, j: (i, j))),
    ("mixes spatial and reduce", product, lambda s: s.transform_block_layout("C", lambda i, j, k: (i, j * 7 + k))),
    ("leaves gaps", product, lambda s: s.transform_block_layout("C", lambda i, j, k: (i * 2, j, k))),
    ("no one expression", product, lambda s: s.transform_block_layout("C", lambda i, j, k: (i, j % 2 * 5 + j // 2, k))),
    ("would not stay the first", product, lambda s: s.transform_block_layout("C", lambda i, j, k: (i, j, 6 - k))),
    ("no permutation", product, lambda s: s.reorder_block_iter_var("C", [0, 0, 1])),
    # padding
    ("one positive integer for each", product, lambda s: s.pad_einsum("C", [4, 4])),
    ("not, one by one, its iterators", product, lambda s: (s.split(s.get_loops("C")[0], [None, 2]), s.pad_einsum("C", [4, 4, 4]))),
    ("no sum of products", squared, lambda s: s.pad_einsum("S", [4, 4])),
    ("such multiples already", product, lambda s: s.pad_einsum("C", [3, 5, 7])),
    ("does not use X at its own", strided, lambda s: s.pad_einsum("C", [4, 1])),
    ("might hold an infinity", scaled_sum, lambda s: s.pad_einsum("S", [1, 4])),
    ("not, one by one", matmul, lambda s: (s.compute_at("C", s.get_loops("D")[0]), s.pad_einsum("C", [4, 4, 4]))),
    ("no store of a value or a constant", add, lambda s: s.decompose_padding("B", s.get_loops("B")[0])),
    ("is no constant", pads_with_values, lambda s: s.decompose_padding("P", s.get_loops("P")[0])),
    ("not around the block alone", padded, lambda s: s.decompose_padding("P", s.get_loops("S")[0])),
    ("no range of single iterators", condition_of_two, lambda s: s.decompose_padding("P", s.get_loops("P")[0])),
    ("runs over all of iterator", padded, lambda s: (s.split(s.get_loops("P")[0], [None, 4]), s.decompose_padding("P", s.get_loops("P")[0]))),
    ("all of it is padding", all_padding, lambda s: s.decompose_padding("P", s.get_loops("P")[0])),
    ("loop i is parallel", padded, lambda s: (s.parallel(s.get_loops("P")[0]), s.decompose_padding("P", s.get_loops("P")[0]))),
    # blockize, tensorize
    ("more than one block", matmul, lambda s: (s.compute_at("C", s.get_loops("D")[0]), s.blockize(s.get_loops("D")[0]))),
    ("is symbolic", symbolic_sum, lambda s: s.blockize(s.get_loops("S")[1])),
    ("loop j is vectorized", matmul, lambda s: (s.vectorize(s.get_loops("D")[1]), s.blockize(s.get_loops("D")[1]))),
    ("more than one store", argmax, lambda s: s.blockize(s.get_loops("arg")[1])),
    ("last tile is not whole", product, lambda s: s.blockize(s.split(s.get_loops("C")[2], [None, 4])[1])),
    ("spatial and reduce axes at once", product, lambda s: s.blockize(s.fuse(*s.get_loops("C")))),
    ("repeats the reduction", lambda: _repeated(), lambda s: s.blockize(s.get_loops("S")[0])),
    ("mixes loops inside and outside", lambda: gathered(12), lambda s: (s.transform_block_layout("R", lambda i: (i // 4, i % 4)), s.blockize(s.split(s.fuse(*s.get_loops("R")), [None, 3])[1]))),
    ("whole tiles of 3", product, lambda s: s.blockize(s.loop_partition(s.get_loops("C")[2], [3, None])[0])),
    ("no such intrinsic", quantized, lambda s: s.tensorize(s.get_loops("C")[1], "mma")),
    ("more than one block", matmul, lambda s: (s.compute_at("C", s.get_loops("D")[0]), s.tensorize(s.get_loops("D")[0], VNNI))),
    ("already", quantized, lambda s: s.tensorize(s.tensorize(_dot_loops(s)[2], VNNI), VNNI)),
    ("is vectorized", lambda: quantized(4), lambda s: (s.vectorize(_dot_loops(s)[0]), s.tensorize(s.get_loops("C")[2], VNNI))),
    ("another extent", quantized, lambda s: (s.split(s.get_loops("C")[2], [None, 2]), s.reorder(s.get_loops("C")[2], s.get_loops("C")[1]), s.tensorize(s.get_loops("C")[2], VNNI))),
    ("nested otherwise", quantized, lambda s: (s.split(s.get_loops("C")[2], [4, 2]), s.tensorize(s.get_loops("C")[1], VNNI))),
    ("is float32, the description's", lambda: product(2, 16, 8), lambda s: s.tensorize(_dot_loops(s)[2], VNNI)),
    ("tensorized for the present layout", lambda: _quantized_relu(), lambda s: (s.tensorize(_dot_loops(s)[2], VNNI), s.transform_layout("C_o", 0, lambda i, j: (j, i)))),
    # sampling
    ("at least two factors", add, lambda s: s.sample_perfect_tile(s.get_loops("B")[0], 1, 4, [10])),
    ("is symbolic", symbolic_add, lambda s: s.sample_perfect_tile(s.get_loops("B")[0], 2)),
    ("must multiply to 10", add, lambda s: s.sample_perfect_tile(s.get_loops("B")[0], 2, 16, [2, 4])),
    ("innermost factor is above 4", add, lambda s: s.sample_perfect_tile(s.get_loops("B")[0], 2, 4, [2, 5])),
    ("at least two factors", add, lambda s: s.sample_partitioned_tile(s.get_loops("B")[0], 1, 1, 1, [10])),
    ("3 does not divide 10", add, lambda s: s.sample_partitioned_tile(s.get_loops("B")[0], 2, 1, 3)),
    ("must multiply to 10", add, lambda s: s.sample_partitioned_tile(s.get_loops("B")[0], 2, 1, 5, [2, 4])),
    ("a multiple of 5", add, lambda s: s.sample_partitioned_tile(s.get_loops("B")[0], 2, 1, 5, [5, 2])),
    ("candidates are integers", add, lambda s: s.sample_categorical([1.5], [1.0])),
    ("one weight", add, lambda s: s.sample_categorical([1, 2], [1.0])),
    ("numbered 0 to 1", add, lambda s: s.sample_categorical([1, 2], [1.0, 1.0], 2)),
    ("there are 3 places", matmul, lambda s: s.sample_compute_location("C", 3)),
]  # fmt: skip


def part_flip() -> PrimFunc:
    """C reads B from its other end."""
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[5 - i] + 1.0, name="C")])


def part_late() -> PrimFunc:
    """C reads what B wrote an iteration earlier."""
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[te.maximum(i - 1, 0)] + 1.0, name="C")])


def _side_by_side(s: Schedule) -> None:
    """Two nests in one kernel: the stages of a tile, of 6 and of 4 elements."""
    x0, _ = s.split(s.get_loops("S")[0], [None, 4])
    s.compute_at("A2", x0)


def _late_inner() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((6,), lambda i: a[i] * 3.0, name="C")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[i] + c[i], name="D")])


def _shifted_reader() -> PrimFunc:
    a = te.placeholder((6,), name="A")
    b = te.compute((6,), lambda i: a[i] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((5,), lambda i: b[i + 1] + 1.0, name="C")])


def _three_stages() -> PrimFunc:
    a = te.placeholder((10,), name="A")
    b = te.compute((10,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((8,), lambda i: b[i] + b[i + 1] + b[i + 2], name="C")
    return te.create_prim_func([a, te.compute((8,), lambda i: c[i] * 2.0, name="D")])


def _late_sum() -> PrimFunc:
    """A sum whose block says that its reduce axis starts at 2: its init never runs."""
    a = te.placeholder((4, 6), name="A")
    k = te.reduce_axis(6, "k")
    func = te.create_prim_func([a, te.compute((4,), lambda i: te.sum(a[i, k], axis=k), name="C")])
    block = func.blocks["C"]
    loop = next(x for x in func.loops.values() if x.var.name == "k")
    late = with_fields(
        block, iters=tuple(with_fields(it, binding=it.binding + 2) if it.kind == "reduce" else it for it in block.iters)
    )
    shorter = with_fields(loop, extent=const(4), body=late)
    return with_fields(func, body=replace_statements(func.body, {loop: shorter}))


def _diagonal() -> PrimFunc:
    a = te.placeholder((9, 9), name="A")
    b = te.compute((9, 9), lambda i, j: a[i, j] * 2.0, name="B")
    return te.create_prim_func([a, te.compute((8,), lambda i: b[i, i] + b[i + 1, i + 1], name="S")])


def _two_windows() -> PrimFunc:
    a = te.placeholder((10,), name="A")
    b = te.compute((10,), lambda i: a[i] * 2.0, name="B")
    d = te.compute((10,), lambda i: a[i] * 3.0, name="D")
    return te.create_prim_func([a, te.compute((8,), lambda i: b[i] + b[i + 2] + d[i] + d[i + 2], name="S")])


def _merged_windows(s: Schedule) -> None:
    """Two blocks in one loop inside the one that moves their windows."""
    (i,) = s.get_loops("S")
    s.compute_at("B", i)
    s.compute_at("D", i)
    s.merge(s.get_loops("B")[1], s.get_loops("D")[1])


def _integers() -> PrimFunc:
    a = te.placeholder((6,), "int32", "A")
    b = te.compute((6,), lambda i: a[i] * 2, name="B")
    return te.create_prim_func([a, te.compute((6,), lambda i: b[i] + 1, name="C")])


def _repeated() -> PrimFunc:
    """A sum that is computed again in each iteration of a loop around it."""
    func = row_sum(6)
    return with_fields(func, body=For(Var("x"), const(3), func.body))


def _quantized_relu() -> PrimFunc:
    a, b = te.placeholder((2, 8), "uint8", "A"), te.placeholder((2, 16, 4), "int8", "B")
    k = te.reduce_axis(8, "k")
    wide = lambda x: te.cast(x, "int32")
    c = te.compute((2, 16), lambda i, j: te.sum(wide(a[i, k]) * wide(b[k // 4, j, k % 4]), axis=k), name="C")
    return te.create_prim_func([a, b, te.compute((2, 16), lambda i, j: te.maximum(c[i, j], 0), name="D")])


@pytest.mark.parametrize(("reason", "func", "step"), REFUSED, ids=[f"{i}-{r[0][:30]}" for i, r in enumerate(REFUSED)])
def test_refusals(reason: str, func: Callable[[], PrimFunc], step: Callable) -> None:
    expect(func(), reason, step)
