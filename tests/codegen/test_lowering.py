"""What lowering makes of loops; what the loader takes for granted of object code."""

import struct

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.codegen.llvm.expr import Abilities
from tcomp.codegen.llvm.kernel import kernel_module
from tcomp.codegen.llvm.machine import Machine, emit_object
from tcomp.codegen.lowering import STEPS, lower, partition
from tcomp.dtype import float32
from tcomp.ir import Block, Buffer, Cast, IterVar, Load, Var, const
from tcomp.ir.interp import run
from tcomp.ir.node import walk
from tcomp.ir.primfunc import PrimFunc
from tcomp.ir.stmt import For, If, Let, Store, walk_statements
from tcomp.ops import GraphBuilder
from tcomp.passes import FUSE, GRAPH, LOWER
from tcomp.schedule import Schedule
from tcomp.tools.fuzz import agree, make_inputs


def product(rows: int, inner: int, columns: int) -> PrimFunc:
    g = GraphBuilder()
    module = LOWER.run(
        FUSE.run(GRAPH.run(g.build(g.matmul(g.input("x", (rows, inner)), g.input("y", (inner, columns))))))
    )
    return next(f for f in module.functions.values() if isinstance(f, PrimFunc))


@pytest.mark.parametrize(("rows", "columns"), [(49, 64), (48, 70), (49, 70)])
def test_tiles_of_fused_loops_have_a_version_without_conditions(rows: int, columns: int) -> None:
    func = product(rows, 3, columns)
    sch = Schedule(func)
    i, j, k = sch.get_loops("matmul")
    io, ii = sch.split(i, [None, 5])
    jo, ji = sch.split(j, [None, 16])
    sch.reorder(jo, io, k, ii, ji)
    sch.decompose_reduction("matmul", k)
    sch.parallel(sch.fuse(jo, io))
    sch.unroll(ii)
    sch.vectorize(ji)
    lowered = sch.func
    for step in STEPS[: STEPS.index(partition.partition_loops) + 1]:
        lowered = step(lowered)
    nodes = list(walk_statements(lowered.body))
    assert {s.var.name for s in nodes if isinstance(s, Let)} == {"digit"}
    versions = [list(walk_statements(s.then)) for s in nodes if isinstance(s, If)]
    assert any(
        any(isinstance(s, For) and s.var is k for s in v) and not any(isinstance(s, If) for s in v) for v in versions
    )
    inputs = make_inputs(func, 0)
    assert all(map(agree, run(lowered, inputs), run(func, inputs)))


def has_plain_version(func: PrimFunc, sch: Schedule, k: Var) -> None:
    """A version of the reduction's loop has no conditions inside, and the answer is the same."""
    lowered = sch.func
    for step in STEPS[: STEPS.index(partition.partition_loops) + 1]:
        lowered = step(lowered)
    loops = [s for s in walk_statements(lowered.body) if isinstance(s, For) and s.var is k]
    assert any(not any(isinstance(s, If) for s in walk_statements(loop.body)) for loop in loops)
    inputs = make_inputs(func, 0)
    assert all(map(agree, run(lowered, inputs), run(func, inputs)))


@pytest.mark.parametrize(("rows", "group", "tile"), [(49, 12, 4), (50, 24, 6), (48, 12, 4)])
def test_tiles_of_groups_that_loops_around_decide_have_a_version_without_conditions(
    rows: int, group: int, tile: int
) -> None:
    func = product(rows, 3, 32)
    sch = Schedule(func)
    i, j, k = sch.get_loops("matmul")
    io, ii = sch.split(i, [None, group])
    im, ii = sch.split(ii, [None, tile])
    sch.reorder(io, im, k, ii, j)
    sch.decompose_reduction("matmul", k)
    sch.unroll(ii)
    sch.vectorize(j)
    has_plain_version(func, sch, k)


@pytest.mark.parametrize(("rows", "group"), [(49, 4), (60, 5), (23, 3)])
def test_tiles_of_blocks_of_rows_in_fused_loops_have_a_version_without_conditions(rows: int, group: int) -> None:
    """Two digits of the fused loop's variable decide: the block of rows and the tile in it."""
    func = product(rows, 3, 32)
    sch = Schedule(func)
    i, j, k = sch.get_loops("matmul")
    io, ii = sch.split(i, [None, 4])
    jo, ji = sch.split(j, [None, 16])
    block, tile = sch.split(io, [None, group])
    sch.reorder(block, jo, tile, k, ii, ji)
    sch.fuse(block, jo, tile)
    sch.decompose_reduction("matmul", k)
    sch.unroll(ii)
    sch.vectorize(ji)
    has_plain_version(func, sch, k)


def test_scratch_memory_in_another_layout_is_filled_past_the_edge() -> None:
    """A column that is kept as (quotient, remainder) has a place of its own past the edge too: no mask is needed."""
    func = product(3, 5, 70)
    sch = Schedule(func)
    write = sch.cache_write("matmul", 0, "local").name
    outer, inner = sch.split(sch.get_loops(write)[1], [None, 64])
    sch.reorder(outer, sch.get_loops(write)[0], inner)
    sch.compute_at("matmul", outer)
    sch.transform_layout("matmul", 0, lambda i, j: (j // 32, i, j % 32))
    *_, j, k = sch.get_loops("matmul")
    sch.reorder(k, j)
    sch.vectorize(sch.split(j, [None, 16])[1])
    stores = [s for s in walk_statements(lower(sch.func).body) if isinstance(s, Store) and s.buffer.scope == "local"]
    assert stores and all(s.mask is None for s in stores)
    inputs = make_inputs(func, 0)
    assert all(map(agree, run(STEPS[0](sch.func), inputs), run(func, inputs)))


def test_buffers_of_a_parallel_loop_are_known_not_to_overlap() -> None:
    func = product(6, 5, 70)
    sch = Schedule(func)
    sch.parallel(sch.get_loops("matmul")[0])
    text = kernel_module(lower(sch.func), "f", Abilities())
    (chunk,) = [line for line in text.splitlines() if line.startswith("define internal") and ".chunk" in line]
    assert chunk.count("ptr noalias") == 3


def test_functions_of_other_objects_are_called_through_the_table_of_addresses() -> None:
    """The loader has no room for stubs: calls must not ask for any, be they written or LLVM's own."""
    text = """
    declare void @elsewhere(ptr)
    declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
    define void @f(ptr %a, ptr %b, i64 %n) nounwind {
      call void @elsewhere(ptr %a)
      call void @llvm.memcpy.p0.p0.i64(ptr %a, ptr %b, i64 %n, i1 false)
      ret void
    }"""
    data = emit_object(text, Machine("x86_64-unknown-linux-gnu", "x86-64", ""))
    kinds = relocations(data)
    assert len(kinds) == 2 and set(kinds) <= {9, 41, 42}  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX


def relocations(data: bytes) -> list[int]:
    """The types of the relocations of an ELF object for x86-64."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    kinds = []
    for at in range(table, table + count * size, size):
        kind, offset, nbytes = *struct.unpack_from("<I", data, at + 4), *struct.unpack_from("<QQ", data, at + 24)
        if kind == 4:
            kinds += [struct.unpack_from("<I", data, o + 8)[0] for o in range(offset, offset + nbytes, 24)]
    return kinds


def test_a_vector_of_which_one_lane_may_store_runs_by_itself() -> None:
    """Conditions leave the first of four lanes, and where it stores does not depend on the lane."""
    n = const(8)
    a, b = Buffer("A", (n,), float32), Buffer("B", (n,), float32)
    o, i, v = Var("o"), Var("i"), Var("v")
    block = Block(
        "B",
        (IterVar(v, const(32), "spatial", o * 4 + i),),
        Store(b, (v // 4,), Load(a, (v // 4,)) * Cast(float32, v)),
        None,
        i < 1,
    )
    func = PrimFunc("one", (a, b), For(o, n, For(i, const(4), block)), 1)
    sch = tcomp.Schedule(func)
    sch.vectorize(sch.get_loops("B")[1])
    x = np.arange(8, dtype="float32") + 1
    assert np.array_equal(tcomp.compile(sch)(x), x * 4 * np.arange(8))


def test_masks_that_are_loaded_are_masked_themselves() -> None:
    """Of ten elements in a vector of sixteen, six of a condition lie beyond its buffer."""
    p, a, b = te.placeholder((10,), "bool", "P"), te.placeholder((10,), name="A"), te.placeholder((10,), name="B")
    func = te.create_prim_func([p, a, b, te.compute((10,), lambda i: te.select(p[i], a[i], b[i]), name="C")], "pick")
    sch = Schedule(func)
    (i,) = sch.get_loops("C")
    sch.vectorize(sch.split(i, [None, 16])[1])
    loads = [x for x in walk(lower(sch.func).body) if isinstance(x, Load)]
    assert {x.buffer.name for x in loads} == {"P", "A", "B"} and all(x.mask is not None for x in loads)
