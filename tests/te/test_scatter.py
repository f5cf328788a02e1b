"""Stores at computed places: values, what schedules may do with them, and what is refused."""

from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import ExprError, ScheduleError
from tcomp.ir.primfunc import PrimFunc
from tcomp.schedule import Schedule
from tcomp.schedule.rules.default import default_schedule
from tcomp.target import Target

R = np.random.default_rng(3)
W, I, U = (
    te.placeholder((7, 40), name="W"),
    te.placeholder((10,), "int64", name="I"),
    te.placeholder((10, 40), name="U"),
)

K = te.reduce_axis(40)
COMBINE = {"add": np.add, "set": lambda a, b: b, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def at(i: Any) -> Any:
    return te.maximum(te.minimum(I[i], 6), 0)


def kernel(combine: str = "add") -> PrimFunc:
    s = te.scatter(W, (10, 40), lambda i, j: ((at(i), j), U[i, j] * 2.0), combine, "S")
    return te.create_prim_func([W, I, U, s], "scattered")


def arrays() -> list[np.ndarray]:
    return [
        R.standard_normal((7, 40)).astype("float32"),
        R.integers(-2, 9, 10),
        R.standard_normal((10, 40)).astype("float32"),
    ]


def expected(w: np.ndarray, index: np.ndarray, u: np.ndarray, combine: str) -> np.ndarray:
    out = w.copy()
    for place, row in zip(np.clip(index, 0, 6), u):
        out[place] = COMBINE[combine](out[place], row * 2)
    return out


def check(kernel: Any, combine: str) -> None:
    inputs = arrays()
    for target in ("cpu", "reference"):
        np.testing.assert_array_equal(tcomp.compile(kernel, target=target)(*inputs), expected(*inputs, combine))


@pytest.mark.parametrize("combine", ["add", "set", "mul", "min", "max"])
def test_points_change_elements_in_their_order(combine: str) -> None:
    check(kernel(combine), combine)


@pytest.mark.parametrize("combine", ["add", "set", "mul", "min", "max"])
def test_loops_of_columns_may_run_in_any_way(combine: str) -> None:
    sch = Schedule(kernel(combine))
    n, d = sch.get_loops("S")
    outer, inner = sch.split(d, [None, 16])
    sch.reorder(outer, n, inner)
    sch.parallel(outer)
    sch.vectorize(inner)
    sch.unroll(sch.split(n, [None, 5])[1])
    check(sch, combine)


@pytest.mark.parametrize("combine", ["add", "set", "mul", "min", "max"])
def test_the_order_of_points_is_kept(combine: str) -> None:
    sch = Schedule(kernel(combine))
    n, d = sch.get_loops("S")
    outer, inner = sch.split(n, [None, 5])
    for step, why in (
        (lambda: sch.parallel(outer), "reduction"),
        (lambda: sch.vectorize(inner), "reduction"),
        (lambda: sch.reorder(inner, outer), "changed in their order"),
        (lambda: sch.reorder(inner, d, outer), "changed in their order"),
        (lambda: sch.parallel(sch.fuse(inner, d)), "reduction"),
    ):
        with pytest.raises(ScheduleError, match=why):
            step()


def test_other_steps_are_refused_beside_computed_places() -> None:
    sch = Schedule(kernel())
    n, d = sch.get_loops("S")
    for step in (
        lambda: sch.cache_write("S", 0, "local"),
        lambda: sch.cache_read("S", 0, "local"),
        lambda: sch.compute_at("S_base", n),
        lambda: sch.rfactor("S", n),
        lambda: sch.merge(sch.get_loops("S_base")[0], n),
    ):
        with pytest.raises(ScheduleError, match="stores at computed places"):
            step()
    assert sch.why_not("split", d, (None, 4)) is None


def test_stages_before_and_behind_are_right() -> None:
    start = te.compute((7, 40), lambda i, j: W[i, j] + 1.0, name="start")
    s = te.scatter(start, (10, 40), lambda i, j: ((at(i), j), U[i, j] * 2.0), name="S")
    func = te.create_prim_func([W, I, U, te.compute((7, 40), lambda i, j: s[i, j] * s[i, j], name="out")], "chain")
    w, index, u = arrays()
    want = expected(w + np.float32(1), index, u, "add") ** 2
    for target in ("cpu", "reference"):
        np.testing.assert_allclose(tcomp.compile(func, target=target)(w, index, u), want, rtol=1e-6)


def test_the_default_schedule_gives_each_task_columns_of_its_own() -> None:
    found = default_schedule(kernel(), Target.parse("llvm -mcpu=haswell -num-cores=2"))
    assert found.origin == "scatter" and "vectorize(" in str(found.schedule.trace)
    check(found.schedule, "add")


def test_a_histogram_is_a_scatter() -> None:
    zeros = te.compute((5,), lambda i: te.const(0, "int32"), name="zeros")
    index = te.placeholder((100,), "int64", name="index")
    place = lambda i: (te.maximum(te.minimum(index[i], 4), 0),)
    counts = te.scatter(zeros, (100,), lambda i: (place(i), te.const(1, "int32")), name="H")
    found = R.integers(0, 5, 100)
    got = tcomp.compile(te.create_prim_func([index, counts], "histogram"))(found)
    assert (got == np.bincount(found, minlength=5)).all()


@pytest.mark.parametrize(
    ("why", "wrong"),
    [
        ("not inside S", lambda: te.create_prim_func([W, I, U, te.scatter(W, (10, 40), lambda i, j: ((I[i], j), U[i, j]), name="S")])),
        ("takes 1", lambda: te.scatter(W, (10, 40), lambda i: ((i, i), W[0, 0]))),
        (r"returns \(places, value\)", lambda: te.scatter(W, (10, 40), lambda i, j: U[i, j])),
        ("1 places for the 2 axes", lambda: te.scatter(W, (10, 40), lambda i, j: ((at(i),), U[i, j]))),
        ("a int64 value for elements of float32", lambda: te.scatter(W, (10, 40), lambda i, j: ((at(i), j), I[i]))),
        ("a reduction", lambda: te.scatter(W, (10, 40), lambda i, j: ((at(i), j), te.sum(U[i, K], axis=K)))),
        ("annotation", lambda: te.scatter(W, (10, 40), lambda i, j: ((at(i), j), U[i, j]), annotations={"note": 1.5})),
        ("unknown|one of add", lambda: te.scatter(W, (10, 40), lambda i, j: ((at(i), j), U[i, j]), "sub")),
        ("truths", lambda: te.scatter(te.placeholder((3,), "bool"), (3,), lambda i: ((i,), te.const(True, "bool")))),
    ],
)  # fmt: skip
def test_wrong_scatters_are_refused(why: str, wrong: Any) -> None:
    with pytest.raises(ExprError, match=why):
        wrong()
