"""What the primitives do to generated code, to kernels of unknown sizes, and to traces."""

import numpy as np
import pytest
from harness import check, filled
from kernels import add, gathered, matmul, quantized

import tcomp
from tcomp import te
from tcomp.codegen.lowering import lower
from tcomp.errors import ScheduleError
from tcomp.ir import Prefetch, Var
from tcomp.ir.arith import linear, simplify
from tcomp.ir.expr import const
from tcomp.ir.node import substitute, with_fields
from tcomp.ir.printer import text
from tcomp.ir.query import int_of
from tcomp.ir.stmt import walk_statements
from tcomp.schedule import Schedule, Trace
from tcomp.schedule.primitives.base import exchange_buffer
from tcomp.tools.fuzz import make_case, run_case

VNNI = "avx512_vnni_u8i8"


def dot_loops(s: Schedule) -> list[Var]:
    """The loops of a product as a dot-product instruction wants them."""
    i, j, k = s.get_loops("C")
    k0, k1 = s.split(k, [None, 4])
    s.reorder(k0, j, k1)
    return [i, k0, j, k1]


# what code generation does with them


@pytest.mark.parametrize("extents", [(1, 1), (5, 9), (33, 17)])
def test_symbolic_extents(extents: tuple[int, int]) -> None:
    """Partition, layout, padding and windows of kernels whose sizes are known only at run time."""
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="A")
    b = te.compute((n, m), lambda i, j: a[i, j] * 2.0, name="B")
    k = te.reduce_axis(m, "k")
    sch = Schedule(te.create_prim_func([a, te.compute((n,), lambda i: te.sum(b[i, k], axis=k), name="S")]))
    sch.transform_layout("B", 0, lambda i, j: (j, i))
    i, k1 = sch.get_loops("S")
    i0, i1 = sch.split(i, [None, 4])
    sch.compute_at("B", i0)
    sch.parallel(i0)
    x = filled(np.random.default_rng(0), extents)
    assert np.array_equal(tcomp.compile(sch)(x), 2 * x.sum(axis=1))


def test_a_split_of_known_multiples_needs_no_guard() -> None:
    n = te.var("n")
    a = te.placeholder((n * 16,), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((n * 16,), lambda i: a[i] + 1.0, name="B")]))
    sch.vectorize(sch.split(sch.get_loops("B")[0], [None, 16], disable_predication=True)[1])
    x = np.arange(48, dtype="float32")
    assert np.array_equal(tcomp.compile(sch)(x), x + 1)


@pytest.mark.parametrize("narrow", [True, False], ids=["vnni", "bf16"])
@pytest.mark.parametrize("apart", [True, False], ids=["init apart", "with init"])
def test_dot_product_instructions(narrow: bool, apart: bool) -> None:
    group, types = (4, ("uint8", "int8", "int32")) if narrow else (2, ("bfloat16", "bfloat16", "float32"))
    n, m, r = 3, 32, 6 * group
    a, b = te.placeholder((n, r), types[0], "A"), te.placeholder((r // group, m, group), types[1], "B")
    k = te.reduce_axis(r, "k")
    wide = lambda x: te.cast(x, types[2])
    c = te.compute((n, m), lambda i, j: te.sum(wide(a[i, k]) * wide(b[k // group, j, k % group]), axis=k), name="C")
    func = te.create_prim_func([a, b, c])
    sch = Schedule(func)
    i, j, k1 = sch.get_loops("C")
    k0, k2 = sch.split(k1, [None, group])
    j0, j1 = sch.split(j, [None, 16])
    sch.reorder(i, j0, k0, j1, k2)
    name = "avx512_vnni_u8i8" if narrow else "avx512_bf16_dot"
    if apart:
        sch.decompose_reduction("C", k0)
    sch.tensorize(j1, name)
    has = tcomp.Target.parse("cpu").has("avx512vnni" if narrow else "avx512bf16")
    check(sch, func, native=has)
    if has:
        exe = tcomp.compile(sch)
        assert ("vpdpbusd" if narrow else "vdpbf16ps") in exe.ir("asm")


def test_an_instruction_that_the_target_lacks_is_refused() -> None:
    func = quantized()
    sch = Schedule(func)
    sch.tensorize(dot_loops(sch)[2], VNNI)
    with pytest.raises(tcomp.TcompError, match="needs avx512vnni"):
        tcomp.compile(sch, target="llvm -mcpu=haswell")


def test_an_operand_that_does_not_fit_its_instruction_is_refused() -> None:
    """By hand: the copy's groups of four lie apart, which no step allows after tensorize."""
    func = quantized()
    sch = Schedule(func)
    sch.cache_read("C", "B")
    sch.tensorize(dot_loops(sch)[2], VNNI)
    (copy,) = sch.func.allocs
    apart = exchange_buffer(sch.func, copy, with_fields(copy, stride_rules=((1, 8, 0),)))
    with pytest.raises(tcomp.TcompError, match="changed how it lies in memory"):
        tcomp.compile(Schedule(apart))


def test_operands_of_an_instruction_do_not_grow() -> None:
    """The loops that fill the copy run past its end; it keeps its shape all the same."""
    func = quantized()
    sch = Schedule(func)
    copy = sch.cache_read("C", "B")
    sch.tensorize(dot_loops(sch)[2], VNNI)
    sch.split(sch.get_loops(copy)[2], [None, 3])
    lower(sch.func)
    check(sch, func, native=tcomp.Target.parse("cpu").has("avx512vnni"))


def test_prefetch_and_unroll_limits_reach_the_code() -> None:
    func = matmul(8, 16, 8)
    sch = Schedule(func)
    i, j, k = sch.get_loops("C")
    sch.pragma(i, "prefetch", 2)
    sch.pragma(j, "auto_unroll_max_step", 64)
    exe = tcomp.compile(sch)
    assert "prefetch" in exe.ir("asm")
    lowered = lower(sch.func)
    assert sum(isinstance(s, Prefetch) for s in walk_statements(lowered.body)) > 0
    assert text(lowered).count("for k in") == 0 and text(lowered).count("for j in") > 0
    check(sch, func)


def test_aligned_strides_reach_the_code() -> None:
    func = matmul(6, 10, 7)
    sch = Schedule(func)
    sch.storage_align("C", 0, 0, 16, 1)
    assert "alloc(float32[102])" in text(lower(sch.func))  # 6 rows of 17
    check(sch, func)


def test_unsafe_set_dtype_rounds_what_it_stores() -> None:
    func = matmul(4, 6, 8)
    sch = Schedule(func)
    sch.unsafe_set_dtype("C", 0, "float64")
    check(sch, func)
    sch.unsafe_set_dtype("C", 0, "int8")
    rng = np.random.default_rng(0)
    x, y = 100 * filled(rng, (4, 8)), filled(rng, (8, 6))
    assert not np.array_equal(tcomp.compile(sch)(x, y), np.maximum(x @ y, 0))


def test_a_parallel_loop_stays_free_of_races() -> None:
    """Each parallel tile has its own part of B, border included; written into one buffer, the parts would overlap."""
    a = te.placeholder((18,), name="A")
    b = te.compute((18,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((18,), lambda i: b[i] + 1.0, name="C")
    func = te.create_prim_func([a, te.compute((16,), lambda i: c[i] + c[i + 2], name="S"), c])
    sch = Schedule(func)
    (i,) = sch.get_loops("C")
    i0, _ = sch.split(i, [None, 4])
    sch.compute_at("B", i0)
    sch.parallel(i0)
    check(sch, func)
    halo = te.create_prim_func([a, te.compute((16,), lambda i: b[i] + b[i + 2], name="S")])
    sch = Schedule(halo)
    i0, _ = sch.split(sch.get_loops("S")[0], [None, 4])
    sch.compute_at("B", i0)
    sch.parallel(i0)
    with pytest.raises(ScheduleError, match="is parallel: an iteration may not use|is parallel, and then"):
        sch.rolling_buffer("B")


def test_prefetch_asks_for_every_line_of_a_fast_stream() -> None:
    """Of an operand that moves by lines; not of one that moves by an element."""
    a, b = te.placeholder((8, 64), name="A"), te.placeholder((8,), name="B")
    sch = Schedule(te.create_prim_func([a, b, te.compute((8, 64), lambda i, j: a[i, j] * b[i], name="C")], "f"))
    i, j = sch.get_loops("C")
    sch.vectorize(sch.split(j, [None, 16])[1])
    sch.pragma(i, "prefetch", 2)
    lowered = lower(sch.func)
    asked = [s for s in walk_statements(lowered.body) if isinstance(s, Prefetch)]
    assert [s.buffer.name for s in asked] == ["A"] * 4
    starts = [linear(s.indices[0]) for s in asked]
    assert [x.constant for x in starts] == [128, 144, 160, 176]
    assert [list(x.terms.values()) for x in starts] == [[64]] * 4


@pytest.mark.parametrize(("rows", "together"), [(12, 6), (12, 3), (11, 6), (11, 2), (7, 4)])
def test_the_next_panel_is_fetched_share_by_share(rows: int, together: int) -> None:
    """Tiles of two rows pass panels of 12 lines, so many of them together: each brings its share of the next panel, and they bring all;
    beside the last panel, the first one, where more rows come."""
    a, b = te.placeholder((rows, 12), name="A"), te.placeholder((3, 12, 16), name="B")
    k = te.reduce_axis(12, "k")
    c = te.compute((rows, 48), lambda i, j: te.sum(a[i, k] * b[j // 16, k, j % 16], axis=k), name="C")
    func = te.create_prim_func([a, b, c], "f")
    sch = Schedule(func)
    i, j, k = sch.get_loops("C")
    tiles, row = sch.split(i, [None, 2])
    blocks, tile = sch.split(tiles, [None, together])
    panels, column = sch.split(j, [None, 16])
    sch.reorder(blocks, panels, tile, k, row, column)
    run = sch.fuse(blocks, panels, tile)
    sch.pragma(k, "prefetch_next", together)
    asked = [s for s in walk_statements(lower(sch.func).body) if isinstance(s, Prefetch)]
    assert asked and {(s.buffer.name, s.level) for s in asked} == {("B", 2)}
    passes = -(-rows // 2 // together)
    for panel in range(3 * passes):
        at = [
            int_of(simplify(substitute(asked[0].indices[0], {run: const(panel * together + t), k: const(step)}), {}))
            for t in range(together)
            for step in range(12)
        ]
        begin = (panel + 1) % (3 if passes > 1 else 4) * 12 * 16
        assert set(range(begin, begin + 12 * 16, 16)) <= set(at) and min(at) == begin
    check(sch, func)


def test_runs_that_a_loop_inside_counts_are_not_fetched() -> None:
    """Which run it is, only a loop around can say."""
    a, b = te.placeholder((3, 32), name="A"), te.placeholder((8, 16, 32), name="B")
    k = te.reduce_axis(32, "k")
    c = te.compute((3, 8), lambda i, j: te.sum(a[i, k] * b[j, k // 2, k % 2], axis=k), name="C")
    func = te.create_prim_func([a, b, c], "f")
    sch = Schedule(func)
    sch.pragma(sch.get_loops("C")[1], "prefetch_next", 2)
    assert not any(isinstance(s, Prefetch) for s in walk_statements(lower(sch.func).body))
    check(sch, func)


def test_prefetch_inside_vectors_asks_for_the_first_lane() -> None:
    func = matmul(3, 32, 2)
    sch = Schedule(func)
    i, j, k = sch.get_loops("C")
    sch.pragma(j, "prefetch", 5)
    sch.vectorize(i)
    check(sch, func)


def test_prefetch_around_an_instruction() -> None:
    func = quantized(4)
    sch = Schedule(func)
    i, *_, j, _ = dot_loops(sch)
    sch.tensorize(j, VNNI)
    sch.pragma(i, "prefetch", 2)
    check(sch, func, native=tcomp.Target.parse("cpu").has("avx512vnni"))


def test_prefetch_leaves_scratch_memory_alone() -> None:
    func = matmul(8, 4, 6)
    sch = Schedule(func)
    i, _ = sch.get_loops("D")
    sch.compute_at("C", i)
    sch.pragma(i, "prefetch", 1)
    check(sch, func)


def test_a_copy_of_what_tables_point_to_is_whole() -> None:
    """Which elements an indirect index reaches is known only at run time."""
    func = gathered(12)
    sch = Schedule(func)
    sch.cache_index("R", "global")
    sch.read_at(sch.get_loops("R")[0], "R", "A", "local")
    assert [sch.get_extent(v) for v in sch.get_loops("A_local")[1:]] == [12, 4]
    check(sch, func)


@pytest.mark.parametrize("sizes", [(1, 1), (13, 5), (4, 33)])
def test_quotients_by_unknown_sizes_stay_inside_their_buffers(sizes: tuple[int, int]) -> None:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n + 1, m), name="A")
    t = te.compute((m, n + 1), lambda i, j: a[j, i] * 2.0, name="T")
    sch = Schedule(te.create_prim_func([a, te.compute((m, n + 1), lambda i, j: t[i, j] + 1.0, name="R")]))
    i, j = sch.get_loops("R")
    i0, i1 = sch.split(i, [None, 4])
    f = sch.fuse(i0, i1, j)
    sch.parallel(f)
    sch.parallel(sch.fuse(*sch.get_loops("T")))
    x = filled(np.random.default_rng(0), sizes)
    assert np.array_equal(tcomp.compile(sch)(x), 2 * x.T + 1)


def test_regions_of_unknown_size_are_no_larger_than_their_buffers() -> None:
    """A quotient of a loop of unknown length has no useful bound of its own."""
    n = te.var("n")
    a = te.placeholder((n, 7), name="A")
    t = te.compute((n, 7), lambda i, j: a[i, j] * 2.0, name="T")
    sch = Schedule(te.create_prim_func([a, te.compute((n * 7,), lambda i: t[i // 7, i % 7] + 1.0, name="R")]))
    (i,) = sch.get_loops("R")
    i0, _ = sch.split(i, [None, 2])
    sch.compute_at("T", i0)
    x = filled(np.random.default_rng(0), (9, 7))
    assert np.array_equal(tcomp.compile(sch)(x), 2 * x.reshape(-1) + 1)
    assert "536870912" not in str(sch) and "306783378" not in str(sch)


# traces


def test_a_trace_follows_its_decisions() -> None:
    """Steps that use a sampled number take the new one where a replay draws again."""
    func = matmul(8, 16, 4)
    sch = Schedule(func, seed=1)
    j = sch.get_loops("C")[1]
    factors = sch.sample_perfect_tile(j, 2, 16)
    sch.split(j, factors)
    assert "sch.split(j, [n, n_1])" in str(sch.trace)
    seen = set()
    for seed in range(12):
        again = sch.trace.replay(Schedule(func, seed=seed), draw=True)
        loops = again.get_loops("C")
        seen.add((again.get_extent(loops[1]), again.get_extent(loops[2])))
        check(again, func, native=False)
    assert len(seen) > 2
    assert str(sch.trace.replay(Schedule(func)).trace) == str(sch.trace)


def test_schedules_of_one_seed_decide_alike() -> None:
    def decide(seed: int) -> list[int]:
        sch = Schedule(matmul(24, 36, 4), seed=seed)
        return [f for loop in sch.get_loops("C")[:2] for f in sch.sample_perfect_tile(loop, 3)]

    assert decide(5) == decide(5) and len({tuple(decide(s)) for s in range(8)}) > 1


def test_a_trace_runs_only_steps_of_schedules() -> None:
    with pytest.raises(ScheduleError, match="'report'"):
        Trace.from_json('{"version": 1, "steps": [["report", ["x.html"], [], "none"]]}').replay(Schedule(add()))


@pytest.mark.parametrize("seed", range(700, 712))
def test_fuzzed_schedules_replay(seed: int) -> None:
    outcome = run_case(make_case(seed))
    assert not outcome.layer, outcome.detail


@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 16), ("float32", 4), ("float64", 8), ("int32", 16)])
@pytest.mark.parametrize("op", ["add", "max", "min"])
def test_lanes_are_combined_by_an_instruction(op: str, dtype: str, lanes: int, rng: np.random.Generator) -> None:
    """With NaN and infinity in it; the accumulator starts with its own value."""
    f = {"add": te.sum, "max": te.max, "min": te.min}[op]
    a, k = te.placeholder((5, lanes), dtype, "A"), te.reduce_axis(lanes, "k")
    func = te.create_prim_func([a, te.compute((5,), lambda i: f(a[i, k], axis=k), name="B")])
    sch = Schedule(func)
    sch.tensorize(sch.get_loops("B")[1], f"lanes_{op}_{dtype}x{lanes}")
    check(sch, func)
    x = (100 * rng.standard_normal((5, lanes))).astype(dtype)
    if dtype != "int32":
        x[1, 3], x[2, lanes - 1], x[3, 0] = np.nan, np.inf, -np.inf
    want = {"add": np.sum, "max": np.max, "min": np.min}[op](x, axis=1)
    np.testing.assert_allclose(tcomp.compile(sch)(x), want, rtol=1e-5)


def test_a_reduction_under_fused_symbolic_loops_is_decomposed() -> None:
    """The fused loop has n * m iterations, which integer sets cannot hold; it visits each point once all the same."""
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m, 4), name="A")
    k = te.reduce_axis(4, "k")
    func = te.create_prim_func([a, te.compute((n, m), lambda i, j: te.sum(a[i, j, k], axis=k), name="S")])
    sch = Schedule(func)
    both = sch.fuse(*sch.get_loops("S")[:2])
    sch.decompose_reduction("S", both)
    x = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32")
    assert np.allclose(tcomp.compile(sch)(x), x.sum(axis=2), atol=1e-6)
