"""Printing, rebuilding, equality and well-formedness of programs."""

import numpy as np
import pytest

from tcomp import te
from tcomp.dtype import bool_, dtype, float32
from tcomp.errors import ExprError, VerifyError
from tcomp.ir import Block, Buffer, Const, For, IterVar, Load, PrimFunc, Store, Var, const
from tcomp.ir.equal import first_difference, structural_equal, structural_hash
from tcomp.ir.node import rewrite, substitute, walk
from tcomp.ir.printer import excerpt, text
from tcomp.ir.repro import as_python, from_python
from tcomp.ir.verify import verify
from tcomp.ops import GraphBuilder
from tcomp.passes import FUSE, GRAPH, LOWER
from tcomp.schedule import Schedule
from tcomp.tools.expressions import random_func
from tcomp.tools.fuzz import Outcome, apply_choices, make_case


def matmul(n: object = 4, name: str = "C") -> PrimFunc:
    a, b = te.placeholder((n, 8), name="A"), te.placeholder((8, 6), name="B")
    k = te.reduce_axis(8, "k")
    c = te.compute((n, 6), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name=name)
    return te.create_prim_func([a, b, c], "matmul")


def test_printed_text() -> None:
    assert text(matmul()) == "\n".join([
        "def matmul(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):",
        "  for i in range(4):",
        "    for j in range(6):",
        "      for k in range(8):",
        "        block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):",
        "          init:",
        "            C[vi, vj] = 0.0",
        "          C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]",
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_every_scheduled_program_rebuilds_equal(seed: int) -> None:
    sch = Schedule(random_func(seed))
    apply_choices(sch, make_case(seed).choices, Outcome(make_case(seed)))
    again = from_python(as_python(sch.func))
    assert structural_equal(sch.func, again), first_difference(sch.func, again)
    assert structural_hash(sch.func) == structural_hash(again)
    verify(again)


def test_modules_rebuild_equal_at_each_stage(rng: np.random.Generator) -> None:
    g = GraphBuilder()
    x = g.input("x", (2, 3, 6, 6))
    w = g.constant(rng.standard_normal((4, 3, 3, 3)).astype("float32"))
    module = g.build(g.relu(g.conv2d(x, w, padding=1)), g.sum(x, axes=(1,)))
    for stage in (lambda m: m, GRAPH.run, FUSE.run, LOWER.run):
        module = stage(module)
        again = from_python(as_python(module))
        assert structural_equal(module, again), first_difference(module, again)
        verify(again)
        assert text(again) == text(module)


def test_equality_ignores_names_but_not_structure() -> None:
    assert structural_equal(matmul(), matmul())
    assert structural_hash(matmul(4)) != structural_hash(matmul(5))
    assert "token" in first_difference(matmul(4), matmul(5))
    zero, negative = Const(0.0, float32), Const(-0.0, float32)
    assert zero != negative and Const(float("nan"), float32) == Const(float("nan"), float32)


def test_symbolic_extents_become_parameters() -> None:
    n = te.var("n")
    f = matmul(n)
    assert f.dims == (n,) and "n: int64" in text(f)
    verify(f)


def test_rewrite_returns_the_same_object_where_nothing_changes() -> None:
    f = matmul()
    assert rewrite(f.body, lambda x: x) is f.body
    i = Var("i")
    e = i + 1
    assert substitute(e, {}) is e and substitute(e, {Var("j"): const(0)}) is e
    assert any(isinstance(x, Load) for x in walk(f.body))


def test_excerpt_marks_the_place() -> None:
    f = matmul()
    loop = next(iter(f.loops.values()))
    assert "for i in range(4):" in excerpt(f, {loop: "here"}) and "# <- here" in excerpt(f, {loop: "here"})


def broken(make: object) -> PrimFunc:
    b, i, v = Buffer("B", (const(4),), float32), Var("i"), Var("v")
    return make(b, i, v)


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("neither a parameter nor allocated", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), Store(Buffer("X", (const(4),), float32), (i,), Const(0.0, float32))))),
        ("outside the loop", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), Store(b, (v,), Const(0.0, float32))))),
        ("2 indices", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), Store(b, (i, i), Const(0.0, float32))))),
        ("is stored in", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), Store(b, (i,), const(1))))),
        ("bound twice", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), For(i, const(2), Store(b, (i,), Const(0.0, float32)))))),
        ("depends on another loop", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), For(v, i + 1, Store(b, (v,), Const(0.0, float32)))))),
        ("has an init", lambda b, i, v: PrimFunc("f", (b,), For(i, const(4), Block("X", (IterVar(v, const(4), "spatial", i),), Store(b, (v,), Const(0.0, float32)), Store(b, (v,), Const(0.0, float32)))))),
    ],
)  # fmt: skip
def test_verifier_points_at_what_is_wrong(what: str, make: object) -> None:
    with pytest.raises(VerifyError, match=what) as error:
        verify(broken(make))
    assert "# <-" in str(error.value)


def test_expressions_refuse_nonsense() -> None:
    i = Var("i")
    x = Const(1.0, float32)
    for bad in (lambda: i + x, lambda: i / 2, lambda: x // 2.0, lambda: bool(i < 3), lambda: dtype("float12")):
        with pytest.raises(ExprError):
            bad()
    assert (i < 3).dtype == bool_
