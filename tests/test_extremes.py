"""Deep expressions, many parts, long chains, and reductions over nothing."""

from collections.abc import Callable

import numpy as np
import pytest

import tcomp
from frontend import Tensor, nn, ops
from tcomp import te
from tcomp.errors import ExprError, ScheduleError
from tcomp.ir import interp
from tcomp.ir.equal import structural_hash
from tcomp.ir.expr import Expr
from tcomp.ir.printer import text
from tcomp.ir.repro import as_python, from_python
from tcomp.ir.verify import verify
from tcomp.schedule.schedule import Schedule


def repeated(start: Expr, step: Callable[[Expr], Expr], times: int) -> Expr:
    for _ in range(times):
        start = step(start)
    return start


A = te.placeholder((64,), name="A")


@pytest.mark.parametrize("depth", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_deep_expressions_compile_print_and_reproduce(depth: int) -> None:
    deep = te.compute((64,), lambda i: repeated(A[i], lambda e: e + A[i] * 1.0, depth), name="C")
    func = te.create_prim_func([A, deep])
    verify(func)
    assert "part0 = " in text(func)
    assert structural_hash(from_python(as_python(func))) == structural_hash(func)
    assert (tcomp.compile(func)(np.ones(64, np.float32)) == depth + 1).all()
    (want,) = interp.run(func, [np.ones(64, np.float32)])
    assert (want == depth + 1).all()


def test_what_an_expression_uses_twice_is_computed_once() -> None:
    halves = te.compute((64,), lambda i: repeated(A[i], lambda e: e * 0.5 + e * 0.5, 60), name="C")
    x = np.arange(64, dtype=np.float32)
    assert np.array_equal(tcomp.compile(te.create_prim_func([A, halves]))(x), x)  # 2**60 operations, written out


def test_a_reduction_of_a_deep_element() -> None:
    rows, k = te.placeholder((8, 5), name="R"), te.reduce_axis(5, "k")
    total = te.compute((8,), lambda i: te.sum(repeated(rows[i, k], lambda e: e + rows[i, k], 600), axis=k), name="C")
    assert (tcomp.compile(te.create_prim_func([rows, total]))(np.ones((8, 5), np.float32)) == 5 * 601).all()


def test_alternatives_too_deep_to_prove_are_refused() -> None:
    chosen = te.compute((64,), lambda i: repeated(A[0], lambda e: te.if_then_else(i < 9, A[i], e), 300), name="C")
    with pytest.raises(ExprError, match="nested more than 100 deep"):
        te.create_prim_func([A, chosen])


@pytest.mark.parametrize("count", [300, pytest.param(1500, marks=pytest.mark.slow)])
def test_chains_of_stages(count: int) -> None:
    last = A
    for n in range(count):
        last = te.compute((64,), lambda i, t=last: t[i] + 1.0, name=f"S{n}")
    exe = tcomp.compile(te.create_prim_func([A, last]))
    assert (exe(np.zeros(64, np.float32)) == count).all()


def test_extents_too_deep_are_refused() -> None:
    with pytest.raises(ExprError, match="an extent of more than 100 operations"):
        te.placeholder((repeated(te.var("n"), lambda e: e + te.var("m"), 2000),))


def test_inlining_stops_before_an_expression_gets_too_deep() -> None:
    half = te.compute((64,), lambda i: repeated(A[i], lambda e: e + 1.0, 60), name="H")
    whole = te.compute((64,), lambda i: repeated(half[i], lambda e: e * 2.0, 60), name="W")
    sch = Schedule(te.create_prim_func([A, half, whole][::2]))
    with pytest.raises(ScheduleError, match="more than 100 operations deep"):
        sch.compute_inline("H")
    with pytest.raises(ScheduleError, match="more than 100 operations deep"):
        sch.reverse_compute_inline("W")


def test_loops_nest_to_a_limit() -> None:
    sch = Schedule(te.create_prim_func([A, te.compute((64,), lambda i: A[i], name="C")]))
    with pytest.raises(ScheduleError, match="more than 100 loops would stand one inside another"):
        for _ in range(1200):
            sch.add_unit_loop("C")
    assert len(sch.get_loops("C")) == 100 and (tcomp.compile(sch)(np.ones(64, np.float32)) == 1).all()
    with pytest.raises(ExprError, match="101 axes"):
        te.create_prim_func([te.compute((1,) * 101, lambda *i: te.const_like(1.0, A[0]), name="many")])


class Stacked(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return ops.stack(parts, 0)


@pytest.mark.parametrize("count", [3, 65, 300])
def test_stacks_of_many_parts(count: int) -> None:
    parts = [np.full((2, 3), n, np.float32) for n in range(count)]
    assert np.array_equal(tcomp.compile(Stacked(), [Tensor(p) for p in parts])(*parts), np.stack(parts))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("count", [2, 3, 7, 65, 200])
def test_concatenations_of_many_parts(count: int, axis: int, rng: np.random.Generator) -> None:
    widths = rng.integers(1, 5, count)
    parts = [rng.standard_normal((w, 3) if axis == 0 else (3, w)).astype(np.float32) for w in widths]
    builder = tcomp.GraphBuilder()
    values = [builder.input(f"x{n}", p.shape) for n, p in enumerate(parts)]
    exe = tcomp.compile(builder.build(builder.op("concat", *values, axis=axis)))
    assert np.array_equal(exe(*parts), np.concatenate(parts, axis))


def test_a_long_sequence_model(rng: np.random.Generator) -> None:
    model = nn.LSTM(3, 4)
    x = Tensor(rng.standard_normal((200, 2, 3)).astype(np.float32))
    np.testing.assert_allclose(tcomp.compile(model, [x])(x.numpy())[0], model(x)[0].numpy(), rtol=1e-4, atol=1e-5)


# reductions over nothing

N, M = te.var("n"), te.var("m")
ROWS = te.placeholder((M, N), name="R")
K = te.reduce_axis(N, "k")
REDUCTIONS = {
    "sum": (lambda e: te.sum(e, axis=K), [0.0]),
    "prod": (lambda e: te.prod(e, axis=K), [1.0]),
    "max": (lambda e: te.max(e, axis=K), [-np.inf]),
    "argmax": (lambda e: te.argmax(e, axis=K), [-1, -np.inf]),
    "own": (lambda e: te.comm_reducer(lambda a, b: a + (b + a * b), lambda t: 0.0)(e, K), [0.0]),
}


def by_halves(sch: Schedule) -> None:
    (loop,) = sch.get_loops("C")[1:]
    sch.reorder(*sch.split(loop, [None, 4])[::-1])


def in_one_loop(sch: Schedule) -> None:
    sch.fuse(*sch.get_loops("C"))


def columns_inside(sch: Schedule) -> None:
    i, k = sch.get_loops("C")
    outer, inner = sch.split(i, [None, 4])
    sch.reorder(outer, k, inner)
    sch.vectorize(inner)


def factored(sch: Schedule) -> None:
    sch.rfactor("C", sch.split(sch.get_loops("C")[1], [None, 4])[1])


def decomposed(sch: Schedule) -> None:
    sch.decompose_reduction("C", sch.get_loops("C")[1])


BY_HAND = (None, by_halves, in_one_loop, columns_inside, factored, decomposed)


CASES = [(name, how) for name in REDUCTIONS for how in BY_HAND if how is not factored or name in ("sum", "prod", "max")]
"""All pairs but those that rfactor refuses."""


@pytest.mark.parametrize(
    ("name", "how"), CASES, ids=lambda x: x if isinstance(x, str) else getattr(x, "__name__", "default")
)
def test_a_reduction_over_nothing_is_its_first_value(name: str, how: Callable[[Schedule], None] | None) -> None:
    build, first = REDUCTIONS[name]
    results = te.compute((M,), lambda i: build(ROWS[i, K]), name="C")
    func = te.create_prim_func([ROWS, *(results if isinstance(results, tuple) else [results])])
    sch = Schedule(func)
    if how is not None:
        how(sch)
    exe = tcomp.compile(func if how is None else sch)
    for rows, columns in ((5, 0), (0, 3), (0, 0), (1, 0), (5, 1), (5, 7)):
        x = np.linspace(0.5, 1.5, rows * columns, dtype=np.float32).reshape(rows, columns)
        out = [np.full(rows, 77, b.dtype.numpy) for b in func.outputs]
        exe(x, out=out[0] if len(out) == 1 else tuple(out))
        sizes = {v: rows if v is M else columns for v in func.dims}
        for have, want, start in zip(out, interp.run(func, [x], sizes), first):
            np.testing.assert_allclose(have, want, rtol=1e-5)
            assert columns or (have == start).all()
        for have, want in zip(out, interp.run(sch.func, [x], sizes)):
            np.testing.assert_allclose(have, want, rtol=1e-5)


def test_a_workspace_that_no_machine_has_is_an_error() -> None:
    g, n = tcomp.GraphBuilder(), 1 << 21
    table = g.matmul(g.input("x", (n, 1)), g.input("y", (1, n)))
    exe = tcomp.compile(g.build(g.max(g.softmax(table, axis=-1), axes=(0, 1))))
    with pytest.raises(tcomp.TcompError, match=r"no memory for \d+\.\d GiB"):
        exe(np.ones((n, 1), np.float32), np.ones((1, n), np.float32))
