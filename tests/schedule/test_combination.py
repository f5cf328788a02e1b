"""Reductions computed in parts: combinations of any form, and the laws without which there are no parts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels import argmax, own_reduction

import tcomp
from tcomp import te
from tcomp.dtype import dtype, float32
from tcomp.errors import ScheduleError
from tcomp.ir import Block, Buffer, For, IterVar, Load, PrimFunc, Store, Var, const
from tcomp.ir.interp import run
from tcomp.ir.stmt import Let, seq
from tcomp.ir.verify import verify
from tcomp.schedule import Schedule

SIZES = [1, 3, 16, 37]


def in_parts(func: PrimFunc, name: str, width: int = 4) -> Schedule:
    """A reduction in vectors of partial results."""
    sch = Schedule(func)
    outer, lane = sch.split(sch.get_loops(name)[-1], [None, width])
    partial = sch.rfactor(name, lane)
    sch.reorder(outer, lane)
    if sch.func.blocks[partial.name].init is not None:  # each part is more than one element
        init = sch.decompose_reduction(partial, outer)
        sch.vectorize(sch.get_loops(init)[-1])
    sch.vectorize(lane)
    verify(sch.func)
    return sch


def runs_as(func: PrimFunc, sch: Schedule, x: np.ndarray, rtol: float) -> list[np.ndarray]:
    """Interpreted, compiled and by the default schedule alike; returns what the unscheduled kernel makes."""
    want = run(func, [x])
    compiled = [tcomp.compile(f)(x) for f in (sch, func)]
    for made in (run(sch.func, [x]), *(m if isinstance(m, tuple) else (m,) for m in compiled)):
        for got, right in zip(made, want, strict=True):
            assert got.dtype == right.dtype
            is_exact = rtol == 0
            assert (
                np.array_equal(got, right, equal_nan=got.dtype.kind == "f")
                if is_exact
                else np.allclose(got, right, rtol=rtol, atol=0)
            )
    return want


@pytest.mark.parametrize("m", SIZES)
def test_argmax_in_vectors(m: int, rng: np.random.Generator) -> None:
    """Ties go to the first, a NaN wins, and lanes that a tail leaves empty count for nothing."""
    x = rng.integers(-2, 3, (6, m)).astype("float32")
    x[1, m // 2] = np.nan
    x[2] = -np.inf
    func = argmax(6, m)
    place, value = runs_as(func, in_parts(func, "arg"), x, 0)
    assert np.array_equal(place, x.argmax(1)) and np.array_equal(value, x.max(1), equal_nan=True)


@pytest.mark.parametrize(
    "name", ["bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16", "float64"]
)
@pytest.mark.parametrize("f", [te.argmax, te.argmin])
@pytest.mark.drawn(1 / 2)
def test_places_of_extremes_of_every_dtype(f: Callable, name: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 2 if name == "bool" else 100, (3, 19)).astype(dtype(name).numpy)
    if name != "bool":
        x[0, :7] = dtype(name).highest
        x[1, 3:] = dtype(name).lowest
    a, k = te.placeholder(x.shape, name, "A"), te.reduce_axis(19, "k")
    func = te.create_prim_func([a, *te.compute((3,), lambda i: f(a[i, k], k), name="arg")])
    place, _ = runs_as(func, in_parts(func, "arg"), x, 0)
    assert np.array_equal(place, (np.argmax if f is te.argmax else np.argmin)(x, 1))


def softmax_pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Greatest value and the sum of exponentials below it, which two parts of a row combine into."""
    top = te.maximum(a[0], b[0])
    share = lambda v: te.if_then_else(v[0] >= top, v[1], v[1] * te.exp(v[0] - top))
    return top, share(a) + share(b)


OWN: dict[str, tuple[Callable, Any, int, str, Callable]] = {
    "1 less than a product": (lambda a, b: a + (b + a * b), 0.0, 1, "float64", lambda x: [np.prod(1 + x, 1) - 1]),
    "exclusive or": (lambda a, b: a ^ b, 0, 1, "int32", lambda x: [np.bitwise_xor.reduce(x, 1)]),
    "sum and greatest": (lambda a, b: (a[0] + b[0], te.maximum(a[1], b[1])), (0.0, -np.inf), 2, "float64", lambda x: [x.sum(1), x.max(1)]),
    "crossed": (
        lambda a, b: (a[0] + b[0], a[1] + b[1] + a[0] * b[0]), (0.0, 0.0), 2, "float64",
        lambda x: [x.sum(1), x.sum(1) + (x.sum(1) ** 2 - (x * x).sum(1)) / 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("name", OWN)
def test_own_reducers_in_vectors(name: str, m: int, rng: np.random.Generator) -> None:
    combine, first, values, kind, reference = OWN[name]
    x = rng.integers(1, 9, (5, m)).astype(kind) if "int" in kind else 0.1 * rng.random((5, m)).astype(kind)
    func = own_reduction(combine, first, m, 5, values, kind)
    made = runs_as(func, in_parts(func, "R"), x, 1e-12)
    for got, right in zip(made, reference(x), strict=True):
        assert np.allclose(got, right, rtol=1e-12, atol=0)


@pytest.mark.parametrize("m", SIZES)
def test_the_sum_of_exponentials_below_the_greatest(m: int, rng: np.random.Generator) -> None:
    x = (50 * rng.standard_normal((5, m))).astype("float64")
    a, k = te.placeholder(x.shape, "float64", "A"), te.reduce_axis(m, "k")
    reduce = te.comm_reducer(softmax_pair, lambda *types: (-np.inf, 0.0), name="pair")
    func = te.create_prim_func([a, *te.compute((5,), lambda i: reduce((a[i, k], const(1.0, "float64")), k), name="R")])
    top, total = runs_as(func, in_parts(func, "R"), x, 1e-12)
    assert np.allclose(top + np.log(total), np.logaddexp.reduce(x, 1), rtol=1e-12)


@pytest.mark.parametrize("m", SIZES)
def test_shared_parts_of_elements_are_not_read_behind_a_tail(m: int, rng: np.random.Generator) -> None:
    """The interpreter checks every index."""
    x = rng.random((5, m))
    a, k = te.placeholder(x.shape, "float64", "A"), te.reduce_axis(m, "k")
    reduce = te.comm_reducer(lambda a, b: a + (b + a * b), lambda t: 0.0)

    def element(i: Any) -> Any:
        e = a[i, k] * 0.01
        for _ in range(30):
            e = e * 0.5 + e * 0.5
        return e

    func = te.create_prim_func([a, te.compute((5,), lambda i: reduce(element(i), k), name="R")])
    (made,) = runs_as(func, in_parts(func, "R"), x, 1e-12)
    assert np.allclose(made, np.prod(1 + 0.01 * x, 1) - 1, rtol=1e-12)


BROKEN = {
    "commutative": ("not commutative: of .* and .* it makes", lambda a, b: a - b, 0.0, 1),
    "slightly": ("not commutative", lambda a, b: a * 0.999 + b, 0.0, 1),
    "associative": ("not associative: of .* and .* and .* it makes", lambda a, b: a + b + a * b * (a + b), 0.0, 1),
    "mean": ("not associative", lambda a, b: (a + b) * 0.5, 0.0, 1),
    "first value": ("first value changes", lambda a, b: a * b + a + b, 1.0, 1),
    "second of two": (r"not commutative: of \(.*, .*\) and", lambda a, b: (a[0] + b[0], a[1] * b[0] + b[1]), (0.0, 0.0), 2),
    "two of nothing": ("two first values do not make one", lambda a, b: (te.maximum(a[0], b[0]), a[1] * te.exp(a[0] - te.maximum(a[0], b[0])) + b[1] * te.exp(b[0] - te.maximum(a[0], b[0]))), (-np.inf, 0.0), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_reducer_is_not_computed_in_parts(name: str) -> None:
    reason, combine, first, values = BROKEN[name]
    func = own_reduction(combine, first, 10, values=values)
    sch = Schedule(func)
    _, lane = sch.split(sch.get_loops("R")[1], [None, 4])
    with pytest.raises(ScheduleError, match=reason):
        sch.rfactor("R", lane)
    assert tcomp.compile(func)  # the default schedule asks as well


def by_hand(change: str) -> PrimFunc:
    """R[i] = f(R[i], A[i, k]) with named values, written so that one thing is out of place."""
    n, m = const(4), const(8)
    a, out, other = Buffer("A", (n, m), float32), Buffer("R", (n,), float32), Buffer("B", (n,), float32)
    i, k, vi, vk = Var("i"), Var("k"), Var("vi"), Var("vk")
    held, new = Var("held", a.dtype), Var("new", a.dtype)
    value = held + new * 0.5 + held * new * 0.5 if change != "index" else held + new * vk.astype("float32")
    if change == "load":
        value = held + new * Load(other, (vi,))
    body: Any = Store(out, (vi,), value)
    if change == "two stores":
        body = seq([body, Store(other, (vi,), new)])
    element = Load(a, (vi, vk))
    if change == "accumulator":
        element = element + Load(out, (vi,))
    body = Let(held, Load(out, (vi,)), Let(new, element, body))
    first: Any = const(0.0, "float32") if change != "init" else Load(other, (vi,))
    block = Block("R", (IterVar(vi, n, "spatial", i), IterVar(vk, m, "reduce", k)), body, Store(out, (vi,), first))
    outputs = (other, out) if change == "two stores" else (out,)
    inputs = (a,) if change == "two stores" else (a, other)
    return PrimFunc("hand", (*inputs, *outputs), For(i, n, For(k, m, block)), len(outputs))


@pytest.mark.parametrize("change", ["index", "load", "two stores", "accumulator", "init"])
def test_a_form_that_tells_no_combination_is_refused(change: str) -> None:
    sch = Schedule(by_hand(change))
    with pytest.raises(ScheduleError, match="not of the form"):
        sch.rfactor("R", sch.get_loops("R")[1])
    sch = Schedule(by_hand("none"))
    with pytest.raises(ScheduleError, match="it is not|first value"):
        sch.rfactor("R", sch.get_loops("R")[1])


@pytest.mark.parametrize("step", ["decompose_reduction", "rfactor"])
def test_nothing_runs_over_an_axis_without_elements(step: str) -> None:
    """Fused with an empty axis, a reduction leaves no loop that belongs to it."""
    n = te.var("n")
    a, k = te.placeholder((0, n), name="A"), te.reduce_axis(n, "k")
    func = te.create_prim_func([a, te.compute((0,), lambda i: te.sum(a[i, k], k), name="C")])
    sch = Schedule(func)
    fused = sch.fuse(*sch.get_loops("C"))
    if step == "rfactor":
        sch.rfactor("C", sch.split(fused, [None, 4])[1])
    else:
        sch.decompose_reduction("C", fused)
    verify(sch.func)
    x = np.ones((0, 5), "float32")
    assert run(sch.func, [x], {sch.func.dims[0]: 5})[0].shape == (0,)  # the interpreter watches every access
    assert tcomp.compile(sch)(x).shape == (0,)


def test_a_copy_of_an_operand_stays_inside_though_its_block_never_runs() -> None:
    a, b, k = te.placeholder((2, 2), name="A"), te.placeholder((2, 0), name="B"), te.reduce_axis(2, "k")
    func = te.create_prim_func([a, b, te.compute((2, 0), lambda i, j: te.sum(a[i, k] * b[k, j], k), name="C")])
    sch = Schedule(func)
    partial = sch.rfactor("C", sch.split(sch.get_loops("C")[2], [None, 5])[1])
    with pytest.raises(ScheduleError, match="not certain that every index is inside A"):
        sch.reindex(partial, "A")
    assert tcomp.compile(sch)(np.ones((2, 2), "float32"), np.ones((2, 0), "float32")).shape == (2, 0)
