"""Accesses are proved inside when a kernel is made; results are written once; reducers of any form."""

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.analysis.check import check
from tcomp.errors import ExprError, VerifyError
from tcomp.ir.expr import Expr, Load
from tcomp.ir.node import rewrite, with_fields
from tcomp.ir.primfunc import PrimFunc
from tcomp.schedule import primitives
from tcomp.schedule.primitives import Primitive

A = te.placeholder((8,), name="A")
I = te.placeholder((8,), "int32", name="I")
N = te.var("n")
B = te.placeholder((N,), name="B")
P = te.placeholder((N * te.var("m"),), name="P")
EMPTY = te.placeholder((0,), name="E")


def at(i: Expr) -> Expr:
    return te.cast(I[i], "int64")


OUTSIDE = {
    "beyond": ((8,), lambda i: A[i + 100], "may be from 100 to 107, the extent is 8"),
    "before": ((8,), lambda i: A[i - 1], "may be from -1 to 6"),
    "far": ((8,), lambda i: A[i + 10**12], "may be from 1000000000000"),
    "larger result": ((9,), lambda i: A[i], "may be from 0 to 8"),
    "gather": ((8,), lambda i: A[at(i)], "any value"),
    "half guarded": ((8,), lambda i: te.if_then_else(at(i) < 8, A[at(i)], 0.0), "any value"),
    "wrong guard": ((8,), lambda i: te.if_then_else(i < 7, A[i + 2], 0.0), "may be from 2 to 9"),
    "other side": ((8,), lambda i: te.if_then_else(i < 7, 0.0, A[i + 1]), "may be from 1 to 8"),
    "empty": ((8,), lambda i: EMPTY[i], "the extent is 0"),
    "symbolic": ((N,), lambda i: B[i + 1], "the extent is n"),
    "the first of perhaps none": ((8,), lambda i: B[0], "from 0 to 0, the extent is n"),
    "gather of a product": ((8,), lambda i: P[at(i)], "any value"),
    "clamped high only": ((8,), lambda i: A[te.minimum(at(i), 7)], "any value to 7"),
}
INSIDE = {
    "reversed": ((8,), lambda i: A[7 - i]),
    "guarded": ((8,), lambda i: te.if_then_else(i >= 1, A[i - 1], 0.0)),
    "else": ((8,), lambda i: te.if_then_else(i < 1, 0.0, A[i - 1])),
    "all": ((9,), lambda i: te.if_then_else(te.all(i >= 1, i < 9), A[i - 1], 0.0)),
    "clamped": ((8,), lambda i: A[te.maximum(te.minimum(at(i), 7), 0)]),
    "data guarded": ((8,), lambda i: te.if_then_else(te.all(at(i) >= 0, at(i) < 8), A[at(i)], 0.0)),
    "halves": ((16,), lambda i: A[i // 2]),
    "remainder": ((100,), lambda i: A[i % 8]),
    "symbolic": ((N,), lambda i: te.if_then_else(i + 1 < N, B[i + 1], 0.0)),
    "symbolic reversed": ((N,), lambda i: B[N - 1 - i]),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_access_that_may_leave_its_tensor_is_refused(name: str) -> None:
    shape, f, message = OUTSIDE[name]
    with pytest.raises(ExprError, match=message) as error:
        te.create_prim_func([A, I, B, P, EMPTY, te.compute(shape, f, name="C")])
    assert "which is not inside" in str(error.value) and "# <- this block" in str(error.value)


@pytest.mark.parametrize("name", INSIDE)
def test_an_access_that_stays_inside_is_accepted(name: str) -> None:
    shape, f = INSIDE[name]
    te.create_prim_func([A, I, B, te.compute(shape, f, name="C")])


def test_a_reduction_over_more_than_its_tensor_has_is_refused() -> None:
    t = te.compute((3,), lambda i: A[i] + 1.0, name="T")
    k = te.reduce_axis(64, "k")
    with pytest.raises(ExprError, match=r"accesses T\[vk\].*from 0 to 63, the extent is 3"):
        te.create_prim_func([A, te.compute((), lambda: te.sum(t[k], axis=k), name="C")])


def beyond(func: PrimFunc) -> PrimFunc:
    """A step that moves every load one element on."""

    def move(e: object) -> object:
        return with_fields(e, indices=(e.indices[0] + 1,)) if isinstance(e, Load) else e

    return with_fields(func, body=rewrite(func.body, move))


def test_verify_mode_proves_accesses_inside_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    func = te.create_prim_func([A, te.compute((8,), lambda i: A[i], name="C")])
    check(func)
    with pytest.raises(VerifyError, match=r"C accesses A outside its 8 elements of axis 0, at vi \+ 1"):
        check(beyond(func))
    monkeypatch.setenv("TCOMP_VERIFY", "1")
    tcomp.config.config.cache_clear()
    careless = Primitive("unroll", lambda func, loop: None, lambda func, loop: (beyond(func), None))
    monkeypatch.setitem(primitives.ALL, "unroll", careless)
    try:
        sch = tcomp.Schedule(func)
        sch.split(sch.get_loops("C")[0], [None, 3])
        with pytest.raises(VerifyError, match="outside its 8 elements"):
            sch.unroll(sch.get_loops("C")[0])
    finally:
        monkeypatch.undo()
        tcomp.config.config.cache_clear()


def test_a_result_is_listed_once() -> None:
    c = te.compute((8,), lambda i: A[i], name="C")
    with pytest.raises(ExprError, match="tensor C is listed twice"):
        te.create_prim_func([A, c, c])


def test_reduce_axes_are_checked() -> None:
    square = te.placeholder((8, 8), name="S")
    k = te.reduce_axis(8, "k")
    with pytest.raises(ExprError, match="an axis is named twice among k, k"):
        te.sum(square[k, k], axis=[k, k])
    with pytest.raises(ExprError, match="negative extent"):
        te.reduce_axis(-3)
    with pytest.raises(ExprError, match="an extent is read from a tensor"):
        te.reduce_axis(te.cast(I[0], "int64"))


REDUCERS = {
    "twice": (lambda a, b: a + (b + a * b), 0.0, lambda x: np.prod(1 + x, -1) - 1),
    "product less one": (lambda a, b: a + a * (b - 1.0), 1.0, lambda x: np.prod(x, -1)),
    "sum": (lambda a, b: b + a, 0.0, lambda x: x.sum(-1)),
    "hypot": (lambda a, b: te.sqrt(a * a + b * b), 0.0, lambda x: np.sqrt((x * x).sum(-1))),
    "greatest size": (lambda a, b: te.maximum(a, te.maximum(b, -b)), 0.0, lambda x: np.abs(x).max(-1)),
}


@pytest.mark.parametrize("size", [1, 3, 64, 257])
@pytest.mark.parametrize("name", REDUCERS)
def test_reducers_of_any_form(name: str, size: int, rng: np.random.Generator) -> None:
    """The default schedule, the loops reordered, and rfactor, against NumPy."""
    combine, identity, reference = REDUCERS[name]
    x = (0.1 * rng.random((5, size)) + (0.95 if "less" in name else 0)).astype("float32")
    m, k = te.placeholder(x.shape, name="M"), te.reduce_axis(size, "k")
    reduce = te.comm_reducer(combine, lambda t: identity)
    func = te.create_prim_func([m, te.compute((5,), lambda i: reduce(m[i, k], k), name="C")])
    want = reference(x.astype("float64"))
    assert np.allclose(tcomp.compile(func)(x), want, rtol=1e-4)
    sch = tcomp.Schedule(func)
    i, r = sch.get_loops("C")
    sch.reorder(r, i)
    assert np.allclose(tcomp.compile(sch)(x), want, rtol=1e-4)
    sch = tcomp.Schedule(func)
    _, inner = sch.split(sch.get_loops("C")[1], [None, 4])
    sch.rfactor("C", inner)
    assert np.allclose(tcomp.compile(sch)(x), want, rtol=1e-4)


def test_the_reducer_that_reads_its_accumulator_twice_over_64_tenths() -> None:
    m, k = te.placeholder((64, 64), name="M"), te.reduce_axis(64, "k")
    reduce = te.comm_reducer(lambda a, b: a + (b + a * b), lambda t: 0.0)
    func = te.create_prim_func([m, te.compute((64,), lambda i: reduce(m[i, k] * 0.1, k), name="C")])
    assert np.allclose(tcomp.compile(func)(np.ones((64, 64), "float32")), 444.79, rtol=1e-4)
